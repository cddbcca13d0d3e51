"""Splitting a document into chunks: exact, gapless ranges that end where sentences end."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from recallm_core.documents.document import Chunk, Document
from recallm_core.errors import DocumentError
from recallm_core.inputs.arguments import whole_number
from recallm_core.text.boundaries import grapheme_boundaries, grapheme_boundary_before
from recallm_core.text.lexical import is_shortened

BYTES_PER_TOKEN = 4
"""The estimate used where no token offsets are given: UTF-8 bytes per token."""

# A break ends where its white space ends. Paragraphs and headings must leave a chunk half full,
# sentences and lines a quarter; a space may stand anywhere.
_BREAKS = (
    (re.compile(r"(?:\r\n|\r|\n)[ \t]*(?:\r\n|\r|\n)\s*|\f\s*"), 0.5),
    (
        re.compile(
            r"(?:(?<![A-Z])\.|[!?\u2026\u061F\u06D4])[\"')\]\u2019\u201D\xBB]*\s+(?![a-z])"
            r"|[\u3002\uFF01\uFF1F\uFF61][\"')\u2019\u201D\u300D\u300F\uFF09]*\s*"  # CJK
            r"|[\u0964\u0965]\s*"  # danda
        ),
        0.25,
    ),
    (re.compile(r"[\r\n]\s*"), 0.25),
    (re.compile(r"\s+"), 0.0),
)
# Bounded repeats: a line of a million blanks must not be scanned once per character.
_HEADING = re.compile(
    r"^[ ]{0,3}(?P<fence>```|~~~).*?(?:^[ ]{0,3}(?P=fence)|\Z)"
    r"|^(?P<marks>\#{1,6})[ \t]{1,9}(?P<title>[^\r\n]{1,200}?)[ \t]{0,9}\#{0,9}[ \t]{0,9}\r?$"
    r"|(?:\A|\n[ \t]*\r?\n)(?P<head>(?:[=*]{3,}[ \t]*\r?\n[ ]?)?"
    r"(?P<over>[^\s=*][^\r\n]{0,199})\r?\n(?P<line>\*{3,}|={3,}|-{3,}|~{3,}|\^{3,})[ \t]*\r?)$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of a Markdown or reStructuredText source.

    Attributes:
        start: Offset of its first character.
        level: 1 for the highest.
        title: Its text without marks.
    """

    start: int
    level: int
    title: str


def headings(text: str) -> Iterator[Heading]:
    """Yields the headings of a text in order; those inside fenced code don't count."""
    for match in _HEADING.finditer(text):
        if match["marks"]:
            yield Heading(match.start(), len(match["marks"]), match["title"])
        elif match["over"]:
            level = max(1, "*=-~^".index(match["line"][0]))
            yield Heading(match.start("head"), level, match["over"].strip())


def split(
    text: str, *, max_tokens: int = 128, token_starts: Sequence[int] | None = None
) -> list[int]:
    """Cuts a text into stretches of at most ``max_tokens`` tokens.

    A cut is made before a heading, else after a paragraph, a sentence, a line or a space, else
    between two graphemes. Only a single grapheme may be longer than ``max_tokens``.

    Args:
        text: Any text.
        max_tokens: Size of a stretch, at least 1.
        token_starts: Offset in ``text`` of each of its tokens, ascending. None estimates a token
            per four bytes of UTF-8.

    Returns:
        Ascending offsets from 0 to ``len(text)``: stretch ``i`` is ``text[cuts[i]:cuts[i + 1]]``.
        Every character is in exactly one stretch.

    Raises:
        DocumentError: ``max_tokens`` is below 1.
    """
    return _split(text, [h.start for h in headings(text)], max_tokens, token_starts)


def chunk(
    document: Document,
    *,
    max_tokens: int = 128,
    parent_tokens: int = 512,
    token_starts: Sequence[int] | None = None,
) -> list[Chunk]:
    """Splits a document into small chunks for search, each with the larger stretch around it.

    Args:
        document: What to split.
        max_tokens: Size of a chunk, at least 1.
        parent_tokens: Size of the stretch of whole chunks that a chunk's ``parent`` names.
        token_starts: Offset of each token of the text, ascending; None estimates, as in ``split``.

    Returns:
        Chunks in order. Their texts joined are the document's text; none for an empty text.

    Raises:
        DocumentError: ``max_tokens`` is below 1, or ``parent_tokens`` below ``max_tokens``.
    """
    whole_number("max_tokens", max_tokens, 1, error=DocumentError)
    whole_number("parent_tokens", parent_tokens, 1, error=DocumentError)
    if parent_tokens < max_tokens:
        raise DocumentError(
            f"parent_tokens ({parent_tokens}) must be at least max_tokens ({max_tokens})"
        )
    text = document.text
    outline = list(headings(text))
    heads = [heading.start for heading in outline]
    cuts = _split(text, heads, max_tokens, token_starts)
    paths = _paths(outline)
    chunks = []
    for parent in pairwise(_parents(text, cuts, heads, parent_tokens, token_starts)):
        for i in range(bisect_left(cuts, parent[0]), bisect_left(cuts, parent[1])):
            start, end = cuts[i], cuts[i + 1]
            section = paths[bisect_right(heads, start)]
            chunks.append(Chunk(document.id, start, end, text[start:end], section, parent))
    return chunks


def _paths(outline: list[Heading]) -> list[tuple[str, ...]]:
    """Returns the headings above a place that has 0, 1, 2, ... headings before it."""
    paths: list[tuple[str, ...]] = [()]
    open_: list[Heading] = []
    for heading in outline:
        while open_ and open_[-1].level >= heading.level:
            open_.pop()
        open_.append(heading)
        paths.append(tuple(h.title for h in open_))
    return paths


def _split(
    text: str, heads: list[int], max_tokens: int, token_starts: Sequence[int] | None
) -> list[int]:
    whole_number("max_tokens", max_tokens, 1, error=DocumentError)
    reach = _reach(text, max_tokens, token_starts)
    cuts = [0]
    while cuts[-1] < len(text):
        start = cuts[-1]
        limit = reach(start)
        cuts.append(limit if limit == len(text) else _cut(text, heads, start, limit))
    return cuts


def _reach(text: str, max_tokens: int, token_starts: Sequence[int] | None) -> Callable[[int], int]:
    """Returns how far a stretch from a given start may go."""
    if token_starts is None:
        return partial(_reach_by_bytes, text, max_tokens * BYTES_PER_TOKEN)
    return partial(_reach_by_tokens, len(text), max_tokens, token_starts)


def _reach_by_bytes(text: str, size: int, start: int) -> int:
    window = text[start : start + size]
    if window.isascii():
        return start + len(window)
    return start + len(window.encode("utf-8", "replace")[:size].decode("utf-8", "ignore"))


def _reach_by_tokens(length: int, max_tokens: int, starts: Sequence[int], start: int) -> int:
    last = bisect_left(starts, start) + max_tokens
    return starts[last] if last < len(starts) else length


def _cut(text: str, heads: list[int], start: int, limit: int) -> int:
    """Returns the best place to cut in ``(start, limit]``; past it only for a long grapheme."""
    room = limit - start
    at = bisect_right(heads, limit) - 1
    if at >= 0 and heads[at] > start + room // 4:
        return heads[at]
    for pattern, fill in _BREAKS:
        best = _last_break(pattern, text, start, start + int(room * fill), limit)
        if best > start and (cut := grapheme_boundary_before(text, start, best)) > start:
            return cut
    if room and (cut := grapheme_boundary_before(text, start, limit)) > start:
        return cut
    return _end_of_grapheme(text, start)


def _last_break(pattern: re.Pattern[str], text: str, start: int, low: int, limit: int) -> int:
    """Returns where the last match in a stretch ends that doesn't end an abbreviation; else 0."""
    for match in reversed(list(pattern.finditer(text, low, limit))):
        if not (match.group().startswith(".") and is_shortened(text, start, match.start())):
            return match.end()
    return 0


def _end_of_grapheme(text: str, start: int) -> int:
    size = 16
    while True:
        inner = grapheme_boundaries(text[start : start + size])[1:-1]
        if inner.any():
            return start + 1 + int(inner.argmax())
        if start + size >= len(text):
            return len(text)
        size *= 2


def _parents(
    text: str,
    cuts: list[int],
    heads: list[int],
    parent_tokens: int,
    token_starts: Sequence[int] | None,
) -> list[int]:
    """Returns the cuts between parents: full ones, or half full ones before a heading."""
    room = parent_tokens * (BYTES_PER_TOKEN if token_starts is None else 1)
    before_heading = set(heads)
    bounds, size = [0], 0
    for start, end in pairwise(cuts):
        if token_starts is None:
            length = len(text[start:end].encode("utf-8", "replace"))
        else:
            length = bisect_left(token_starts, end) - bisect_left(token_starts, start)
        half_full = start in before_heading and 2 * size >= room
        if size and (half_full or size + length > room):
            bounds.append(start)
            size = 0
        size += length
    bounds.append(len(text))
    return bounds
