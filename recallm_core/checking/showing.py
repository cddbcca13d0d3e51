"""A report as plain data, as plain lines and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from recallm_core.checking.quotes import Quote
from recallm_core.rendering.data import citation_data
from recallm_core.rendering.layout import place_of
from recallm_core.rendering.markdown import escape
from recallm_core.rendering.visible import one_line

if TYPE_CHECKING:
    from recallm_core.checking.report import QuoteReport

SCHEMA = 1  # raised when a key changes its meaning or goes; new keys don't raise it
_SHOWN = 200  # characters of a quote, where a person reads
MEANINGS = {
    "exact": "verbatim",
    "drift": "the same words, written otherwise",
    "altered": "not what the document says",
    "stitched": "pieces of several places, joined",
    "misattributed": "stands in another document",
    "absent": "in none of the documents",
}


def to_dict(report: QuoteReport) -> dict[str, Any]:
    """Returns the report as dictionaries, lists, strings and numbers.

    Offsets are code points, half-open: a quote's in ``original``, a citation's in its document.
    """
    return {
        "schema": SCHEMA,
        "ok": report.ok,
        "counts": report.counts,
        "repairs": report.repairs,
        "original": report.original,
        "text": report.text,
        "quotes": [_quote(number, quote) for number, quote in enumerate(report.quotes, 1)],
        "claims": [
            {
                "text": claim.text,
                "start": claim.start,
                "end": claim.end,
                "score": claim.score,
                "citation": None if claim.citation is None else citation_data(n, claim.citation),
            }
            for n, claim in enumerate(report.claims, 1)
        ],
        "sources": [
            {"document_id": key, "title": document.title, "characters": len(document.text)}
            for key, document in report.sources.items()
        ],
    }


def to_text(report: QuoteReport) -> str:
    """Returns a line for each quote with what the document says, and the counts."""
    lines = [line for n, quote in enumerate(report.quotes, 1) for line in _lines(n, quote)]
    lines += [f"unsupported: {shorten(claim.text)}" for claim in report.unsupported]
    if report.claims:
        lines.append(claims_summary(report))
    return "\n".join([*lines, summary(report)]) + "\n"


def summary(report: QuoteReport) -> str:
    """Returns the counts in words."""
    if not report.quotes:
        return "no quotes found"
    counted = [f"{count:,} {verdict}" for verdict, count in report.counts.items() if count]
    total = f"{len(report.quotes):,} quote{'' if len(report.quotes) == 1 else 's'}"
    mended = f"; {report.repairs:,} repaired" if report.repairs else ""
    return f"{total}: {', '.join(counted)}{mended}"


def claims_summary(report: QuoteReport) -> str:
    """Returns how many of the sentences without a quote the documents' words support."""
    count, bare = len(report.claims), len(report.unsupported)
    what = f"{count:,} sentence{'' if count == 1 else 's'} without a quote"
    return f"{what}: {count - bare:,} matched, {bare:,} unsupported"


def to_markdown(report: QuoteReport) -> str:
    """Returns the counts, then each quote with its verdict; nothing in a quote is markup."""
    blocks = ["## Quotes checked", escape(summary(report)) + "."]
    for number, quote in enumerate(report.quotes, 1):
        blocks.append(f"{number}. **{quote.verdict}**: {escape(one_line(quote.text))}")
        blocks += [f"    {escape(line)}" for line in details(quote)]
    if report.unsupported:
        blocks.append("## Sentences whose words no document holds")
        blocks += [f"- {escape(one_line(claim.text))}" for claim in report.unsupported]
    return "\n\n".join(blocks) + "\n"


def details(quote: Quote) -> Iterator[str]:
    """Yields what the documents say of a quote, in lines for people."""
    if quote.citation is not None and quote.verdict != "stitched":
        yield f"{place_of(quote.citation)}: {shorten(quote.citation.text)}"
    for piece in quote.pieces:
        yield f"{place_of(piece)}: {shorten(piece.text)}"
    for change in quote.changes:
        yield f"{change.kind}: {_put(change.written)} for {_put(change.found)}"
    if quote.verdict == "misattributed":
        named = ", ".join(map(one_line, quote.claimed or ())) or "a source that wasn't given"
        yield f"said to be from {named}"


def shorten(text: str) -> str:
    """Returns the beginning of a text on one line."""
    line = one_line(text)
    return line if len(line) <= _SHOWN else line[:_SHOWN] + " \u2026"


def _put(words: str) -> str:
    return f"\u201c{one_line(words)}\u201d" if words else "nothing"


def _lines(number: int, quote: Quote) -> Iterator[str]:
    yield f"[{number}] {quote.verdict}: {shorten(quote.text)}"
    if not quote.sound or quote.verdict == "drift":
        yield from (f"    {line}" for line in details(quote))


def _quote(number: int, quote: Quote) -> dict[str, Any]:
    return {
        "number": number,
        "text": quote.text,
        "start": quote.start,
        "end": quote.end,
        "verdict": quote.verdict,
        "form": quote.form,
        "score": quote.score,
        "claimed": None if quote.claimed is None else list(quote.claimed),
        "replacement": quote.replacement,
        "citation": None if quote.citation is None else citation_data(number, quote.citation),
        "pieces": [citation_data(n, piece) for n, piece in enumerate(quote.pieces, 1)],
        "changes": [
            {"kind": change.kind, "written": change.written, "found": change.found}
            for change in quote.changes
        ],
    }
