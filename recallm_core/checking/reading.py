"""Every quote in a text, however it is marked, in order."""

from __future__ import annotations

from collections.abc import Iterator

from recallm_core.checking.blocks import block_quotes, fences, tagged
from recallm_core.checking.fields import in_fields, looks_like_json
from recallm_core.checking.marks import in_marks
from recallm_core.checking.written import View, Written

_JSON_INFO = frozenset(("", "json", "json5", "jsonc"))
Range = tuple[int, int]


def read(text: str) -> tuple[Written, ...]:
    """Returns the quotes of a text in order; none lies in another.

    Quotation marks of many languages, Markdown's block quotes, tags (``<quote>``, ``<q>``,
    ``<cite>`` ...) and the fields of JSON, in the whole text or in a block of code. Code holds no
    quotes.
    """
    if looks_like_json(text, 0, len(text)):
        return tuple(in_fields(text, 0, len(text)))
    found: list[Written] = []
    for start, end in _prose(text, found):
        found += _in_prose(text, start, end)
    return tuple(sorted(found, key=lambda written: written.start or 0))


def _prose(text: str, found: list[Written]) -> Iterator[Range]:
    """Yields what lies between blocks of code; those that are JSON are read."""
    at = 0
    for fence in fences(text):
        yield at, fence.start
        if fence.info in _JSON_INFO and looks_like_json(text, *fence.body):
            found += in_fields(text, *fence.body)
        at = fence.end
    yield at, len(text)


def _in_prose(text: str, start: int, end: int) -> Iterator[Written]:
    at = start
    for first, past, written in tagged(text, start, end):
        yield from _untagged(text, at, first)
        if written is not None:
            yield written
        at = past
    yield from _untagged(text, at, end)


def _untagged(text: str, start: int, end: int) -> Iterator[Written]:
    at = start
    for first, past, block in block_quotes(text, start, end):
        yield from in_marks(View.plain(text, at, first))
        if isinstance(block, Written):
            yield block
        else:
            yield from in_marks(block)
        at = past
    yield from in_marks(View.plain(text, at, end))
