"""Every quote in a text, however it is marked, in order."""

from __future__ import annotations

import re
from collections.abc import Iterator

from recallm_core.checking.blocks import block_quotes, fences, open_tags, quotes_in_tags
from recallm_core.checking.fields import in_fields, looks_like_json
from recallm_core.checking.marks import AHEAD, in_marks, is_passed
from recallm_core.checking.pairs import open_from
from recallm_core.checking.written import View, WrittenQuote

TAG_ROOM = 200  # characters between a quote's end and the end of the tag around it, at most
_BLANK = re.compile(r"\n[ \t]*\n")
_UNSURE_LINE = re.compile(r"[ ]{0,3}(?:[`~>].*)?\Z")
_JSON_INFO = frozenset(("", "json", "json5", "jsonc"))
Range = tuple[int, int]


def read(text: str, *, whole: bool = True) -> tuple[WrittenQuote, ...]:
    """Returns the quotes of a text in order; none lies in another.

    Quotation marks of many languages, Markdown's block quotes, tags (``<quote>``, ``<q>``,
    ``<cite>`` ...) and the fields of JSON, in the whole text or in a block of code. Code holds no
    quotes.

    Args:
        text: Any text.
        whole: Whether it begins here; only then can it be JSON as a whole.
    """
    if whole and looks_like_json(text, 0, len(text)):
        return tuple(in_fields(text, 0, len(text)))
    quotes: list[WrittenQuote] = []
    for start, end in _prose(text, quotes):
        quotes += _in_prose(text, start, end)
    return tuple(sorted(quotes, key=lambda written: written.start or 0))


def _prose(text: str, quotes: list[WrittenQuote]) -> Iterator[Range]:
    """Yields what lies between blocks of code; those that are JSON are read."""
    at = 0
    for fence in fences(text):
        yield at, fence.start
        if fence.info in _JSON_INFO and looks_like_json(text, *fence.body):
            quotes += in_fields(text, *fence.body)
        at = fence.end
    yield at, len(text)


def _in_prose(text: str, start: int, end: int) -> Iterator[WrittenQuote]:
    at = start
    for first, past, written in quotes_in_tags(text, start, end):
        yield from _quotes_outside_tags(text, at, first)
        if written is not None:
            yield written
        at = past
    yield from _quotes_outside_tags(text, at, end)


def _quotes_outside_tags(text: str, start: int, end: int) -> Iterator[WrittenQuote]:
    at = start
    for first, past, block in block_quotes(text, start, end):
        yield from in_marks(View.plain(text, at, first))
        if isinstance(block, WrittenQuote):
            yield block
        else:
            yield from in_marks(block)
        at = past
    yield from in_marks(View.plain(text, at, end))


def read_settled(text: str, *, whole: bool) -> tuple[list[WrittenQuote], int]:
    """Returns the quotes at the head of a text that more text can't change.

    Args:
        text: A text that isn't complete.
        whole: Whether it begins here.

    Returns:
        The quotes, and a blank line before which nothing else is to be looked for.
    """
    limit = _open_from(text, whole=whole)
    quotes = []
    for written in read(text, whole=whole):
        if (written.end or 0) >= limit or not _is_settled(text[:limit], written):
            limit = min(limit, written.start or 0)
            break
        quotes.append(written)
    past = _last_break(text, limit)
    return quotes, past if text[:past].strip() else 0


def _is_settled(text: str, written: WrittenQuote) -> bool:
    end = written.end or 0
    if written.form == "marks":
        return is_passed(text, end + 1) or is_passed(text, end)
    return len(text) >= end + AHEAD + TAG_ROOM


def _open_from(text: str, *, whole: bool) -> int:
    """From where on the structure of a text isn't certain yet."""
    if whole and looks_like_json(text, 0, len(text)):
        return 0
    line = text.rfind("\n") + 1
    limits = [line if _UNSURE_LINE.match(text, line) else len(text)]
    limits += [fence.start for fence in fences(text) if not fence.closed or fence.end == len(text)]
    limits += list(open_tags(text))
    limits += [a for a, b, _ in block_quotes(text, 0, len(text)) if b + 1 >= len(text)]
    limit = min(limits)
    ends = [fence.end for fence in fences(text)]
    ends += [b for _, b, _ in quotes_in_tags(text, 0, len(text))]
    ends += [b for _, b, _ in block_quotes(text, 0, len(text))]
    last = max((end for end in ends if end <= limit), default=0)  # prose from here on is open
    return last + open_from(text[last:limit])


def _last_break(text: str, limit: int) -> int:
    """One past the last blank line before a place that no block of code or tag holds."""
    unbroken = [(fence.start, fence.end) for fence in fences(text)]
    unbroken += [(a, b) for a, b, _ in quotes_in_tags(text, 0, len(text))]
    ends = [match.end() for match in _BLANK.finditer(text, 0, limit)]
    free = (end for end in reversed(ends) if not any(a < end < b for a, b in unbroken))
    return next(free, 0)
