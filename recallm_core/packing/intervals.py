"""Disjoint stretches of documents, joined only where both sides agree on every character."""

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
class Stretch:
    """A stretch of one document that is in the pack."""

    start: int
    end: int
    text: str = field(compare=False)


@dataclass(slots=True)
class Layout:
    """The disjoint stretches of each document kept so far, in order of offset."""

    texts: Mapping[str, str]
    runs: dict[str, list[Stretch]] = field(default_factory=dict)

    def union(self, chunk: ScoredChunk) -> tuple[Stretch, list[Stretch]] | None:
        """The stretch that results from adding a chunk and those it replaces; None: conflict."""
        source = self.texts.get(chunk.document_id)
        added = Stretch(chunk.start, chunk.end, chunk.text)
        if source is not None:
            added = whole_words(source, chunk.start, chunk.end)
        touched = self._touched(chunk.document_id, added, reach=0 if source is not None else -1)
        for run in touched:
            joined = _joined(run, added, source)
            if joined is None:
                return None
            added = joined
        return added, touched

    def _touched(self, document_id: str, added: Stretch, *, reach: int) -> list[Stretch]:
        runs = self.runs.get(document_id, [])
        first = bisect_left(runs, added.start - reach, key=lambda run: run.end)
        touched = []
        for run in runs[first:]:
            if run.start > added.end + reach:
                break
            touched.append(run)
        return touched

    def put(self, document_id: str, run: Stretch, replaced: Sequence[Stretch]) -> None:
        """Keeps a stretch in place of those it contains."""
        runs = self.runs.setdefault(document_id, [])
        for old in replaced:
            runs.remove(old)
        insort(runs, run)


def _joined(run: Stretch, other: Stretch, source: str | None) -> Stretch | None:
    """Two overlapping or touching stretches as one; None if they disagree about a character."""
    first, second = sorted((run, other))
    end = max(first.end, second.end)
    if source is not None:
        return Stretch(first.start, end, source[first.start : end])
    shared = min(first.end, second.end) - second.start
    offset = second.start - first.start
    if first.text[offset : offset + shared] != second.text[:shared]:
        return None
    return Stretch(first.start, end, first.text + second.text[max(0, first.end - second.start) :])


def whole_words(source: str, start: int, end: int) -> Stretch:
    """The slice, grown so that neither end cuts a word or a character."""
    start, end = _boundary(source, start, step=-1), _boundary(source, end, step=1)
    return Stretch(start, end, source[start:end])


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
