"""A report as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from recallm_core.checking.quotes import VERDICTS, Quote
from recallm_core.checking.showing import MEANINGS, claims_summary, details, summary
from recallm_core.rendering.layout import cut
from recallm_core.rendering.style import PAGE_STYLE, STYLE
from recallm_core.rendering.visible import visible_runs, visible_slice

if TYPE_CHECKING:
    from recallm_core.checking.report import QuoteReport

_CONTEXT = 160  # characters of the document before and after a slice
_HUES = dict(zip(VERDICTS, (150, 205, 8, 300, 35, 350), strict=True))
_STYLE = """
.recallm .v{font-weight:650;font-size:.8rem;border-radius:4px;padding:.05rem .4rem;color:#fff}
.recallm .said{white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:plaintext}
.recallm .from{color:var(--soft);font-size:.9rem;white-space:pre-wrap;overflow-wrap:anywhere;
unicode-bidi:plaintext;border-inline-start:2px solid var(--line);padding-inline-start:.8rem;
margin:.4rem 0 0}
.recallm .card{border-top:1px solid var(--line);padding:.8rem 0}
.recallm .card:target{background:var(--mark)}
.recallm .text a{color:inherit}
""" + "".join(
    f".recallm .v.{name}{{background:hsl({hue} 62% 34%)}}\n"
    f".recallm .text .{name}{{border-bottom:2px solid hsl({hue} 70% 50%);"
    f"background:hsl({hue} 70% 50%/.16)}}\n"
    for name, hue in _HUES.items()
)


def to_html(report: QuoteReport) -> str:
    """Returns a self-contained page: the text with its quotes marked, each with its verdict.

    It holds no script and its policy allows only its own style, so it can't reach the network.
    """
    style = STYLE + PAGE_STYLE + _STYLE
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return "".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            '<meta name="referrer" content="no-referrer">\n<title>Quotes checked</title>\n',
            f'<style>{style}</style>\n</head>\n<body class="recallm page" id="r">\n',
            f"<header><h1>{_text(summary(report))}</h1></header>\n<main>\n",
            '<section class="answer" aria-label="Text"><h2>Text</h2>\n<div class="text">',
            *_link_quotes(report),
            '</div></section>\n<section class="sources" aria-label="Quotes"><h2>Quotes</h2>\n',
            *(_card(report, n, quote) for n, quote in enumerate(report.quotes, 1)),
            *_unsupported_html(report),
            "</section>\n</main>\n</body>\n</html>\n",
        )
    )


def _link_quotes(report: QuoteReport) -> Iterator[str]:
    text = report.original
    ranges = [
        (quote.start, quote.end, number)
        for number, quote in enumerate(report.quotes, 1)
        if quote.start is not None and quote.end is not None
    ]
    for piece in cut(0, len(text), ranges):
        shown = _text(visible_slice(text, piece.start, piece.end))
        if not piece.numbers:
            yield shown
            continue
        number = piece.numbers[-1]
        verdict = report.quotes[number - 1].verdict
        yield f'<a class="{verdict}" href="#q{number}" title="{verdict}">{shown}</a>'


def _card(report: QuoteReport, number: int, quote: Quote) -> str:
    lines = "".join(f'<p class="from">{_text(line)}</p>' for line in details(quote))
    return (
        f'<article class="card" id="q{number}"><span class="v {quote.verdict}">'
        f'{quote.verdict}</span> <span class="facts">{MEANINGS[quote.verdict]}</span>'
        f'<div class="said">{_text(quote.text)}</div>{lines}'
        f"{_in_context(report, quote)}</article>\n"
    )


def _unsupported_html(report: QuoteReport) -> Iterator[str]:
    if report.claims:
        yield f"<h2>{_text(claims_summary(report))}</h2>\n"
        yield from (f'<p class="from">{_text(claim.text)}</p>' for claim in report.unsupported)


def _in_context(report: QuoteReport, quote: Quote) -> str:
    """The slice where it stands, with what is around it."""
    citation = quote.citation
    document = report.sources.get(citation.document_id) if citation else None
    if citation is None or document is None or quote.verdict == "stitched":
        return ""
    text, start, end = document.text, citation.start, citation.end
    before = visible_slice(text, max(0, start - _CONTEXT), start)
    after = visible_slice(text, end, end + _CONTEXT)
    return (
        f'<details><summary>In the document</summary><p class="from">{_text(before)}'
        f"<mark>{_text(citation.text)}</mark>{_text(after)}</p></details>"
    )


def _text(text: str) -> str:
    """The only way for text into the page: visible and escaped."""
    return "".join(
        f'<span class="ctl">{escape(run)}</span>' if replaced else escape(run)
        for run, replaced in visible_runs(text)
    )
