"""The document's own slice in the place of a quote that drifted from it."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from recallm_core.checking.fields import escape_json
from recallm_core.checking.quotes import Quote
from recallm_core.checking.written import WrittenQuote

_PARAGRAPH = re.compile(r"\n[ \t]*\n")


def replacement(written: WrittenQuote, slices: Sequence[str]) -> str | None:
    """Returns what to put in a quote's place so that it reads as the document does.

    Args:
        written: The quote.
        slices: The document's words for it; more than one around an ellipsis.

    Returns:
        None where the quote stays: its marks couldn't hold the slice.
    """
    if len(slices) != 1 or written.start is None:
        return None
    text = slices[0] + _stop(written.text, slices[0])
    if written.form == "marks":
        fits = not _PARAGRAPH.search(text) and not any(mark in text for mark in written.close)
        return text if fits else None
    if written.form == "tag":
        return html.escape(text, quote=False)
    if written.form == "block":
        return "\n> ".join(text.splitlines())
    return escape_json(text)


def _stop(quote: str, source: str) -> str:
    """The full stop or comma that ends a quote within its marks, where the document has none."""
    return quote[-1] if quote[-1:] in (".", ",") and source[-1:].isalnum() else ""


def repair_text(text: str, quotes: Sequence[Quote]) -> str:
    """Returns the text with each quote's replacement in its place."""
    pieces, at = [], 0
    for quote in quotes:
        if quote.replacement is not None and quote.start is not None and quote.end is not None:
            pieces += [text[at : quote.start], quote.replacement]
            at = quote.end
    return "".join([*pieces, text[at:]])


def shift_range(quotes: Sequence[Quote], start: int, end: int) -> tuple[int, int]:
    """Returns where a range of the original that no repair cuts stands in the repaired text."""
    moves = [
        (quote.end, len(quote.replacement) - (quote.end - quote.start))
        for quote in quotes
        if quote.replacement is not None and quote.start is not None and quote.end is not None
    ]
    before = sum(move for at, move in moves if at <= start)
    return start + before, end + sum(move for at, move in moves if at <= end)


def ranges_after_repair(quotes: Sequence[Quote]) -> list[tuple[int | None, int | None]]:
    """Returns where each quote stands in the repaired text."""
    shift, places = 0, []
    for quote in quotes:
        if quote.start is None or quote.end is None:
            places.append((quote.start, quote.end))
            continue
        start, end = quote.start + shift, quote.end + shift
        if quote.replacement is not None:
            end = start + len(quote.replacement)
            shift += len(quote.replacement) - (quote.end - quote.start)
        places.append((start, end))
    return places
