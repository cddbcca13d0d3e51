"""Disjoint intervals of documents, joined only where both sides agree on every character."""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import regex

from recallm_core.documents.document import ScoredChunk

_WORD_WINDOW = 64  # characters looked at on each side of a cut to find the end of its word
_WORD_BOUNDARY = regex.compile(r"\b", regex.WORD)
_JOINERS = "\u200d\ufe0e\ufe0f"


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """An interval of one document that is in the pack."""

    start: int
    end: int
    text: str = field(compare=False)


@dataclass(slots=True)
class IntervalSet:
    """The disjoint intervals of each document kept so far, in order of offset."""

    texts: Mapping[str, str]
    by_document: dict[str, list[Interval]] = field(default_factory=dict)

    def union(self, chunk: ScoredChunk) -> tuple[Interval, list[Interval]] | None:
        """Returns a chunk joined with what it overlaps, and what it replaces; None: conflict."""
        source = self.texts.get(chunk.document_id)
        added = Interval(chunk.start, chunk.end, chunk.text)
        if source is not None:
            added = whole_words(source, chunk.start, chunk.end)
        touched = self._touching(chunk.document_id, added, reach=0 if source is not None else -1)
        for interval in touched:
            joined = _join(interval, added, source)
            if joined is None:
                return None
            added = joined
        return added, touched

    def _touching(self, document_id: str, added: Interval, *, reach: int) -> list[Interval]:
        intervals = self.by_document.get(document_id, [])
        first = bisect_left(intervals, added.start - reach, key=lambda interval: interval.end)
        touched = []
        for interval in intervals[first:]:
            if interval.start > added.end + reach:
                break
            touched.append(interval)
        return touched

    def put(self, document_id: str, interval: Interval, replaced: Sequence[Interval]) -> None:
        """Keeps an interval in place of those it contains."""
        intervals = self.by_document.setdefault(document_id, [])
        for old in replaced:
            intervals.remove(old)
        insort(intervals, interval)


def _join(interval: Interval, other: Interval, source: str | None) -> Interval | None:
    """Two overlapping or touching intervals as one; None if they disagree about a character."""
    first, second = sorted((interval, other))
    end = max(first.end, second.end)
    if source is not None:
        return Interval(first.start, end, source[first.start : end])
    shared = min(first.end, second.end) - second.start
    offset = second.start - first.start
    if first.text[offset : offset + shared] != second.text[:shared]:
        return None
    return Interval(first.start, end, first.text + second.text[max(0, first.end - second.start) :])


def whole_words(source: str, start: int, end: int) -> Interval:
    """Returns a slice widened until neither end cuts a word or a character."""
    start, end = _boundary(source, start, step=-1), _boundary(source, end, step=1)
    return Interval(start, end, source[start:end])


def _boundary(source: str, cut: int, *, step: int) -> int:
    """The nearest word boundary at or beyond ``cut``; a character's end where the word has none."""
    if cut <= 0 or cut >= len(source) or _plainly_between_words(source[cut - 1], source[cut]):
        return cut
    low, high = max(0, cut - _WORD_WINDOW), min(len(source), cut + _WORD_WINDOW)
    boundaries = {low + match.start() for match in _WORD_BOUNDARY.finditer(source[low:high])}
    inner = boundaries - ({low, high} - {0, len(source)})
    stop = low if step < 0 else high
    for place in range(cut, stop + step, step):
        if place in inner:
            return place
    while 0 < cut < len(source) and _extends(source[cut]):
        cut += step
    return cut


def _plainly_between_words(before: str, after: str) -> bool:
    spaced = before.isspace() or after.isspace()
    return spaced and (before + after).isascii() and before + after != "\r\n"


def _extends(character: str) -> bool:
    return unicodedata.category(character).startswith("M") or character in _JOINERS
