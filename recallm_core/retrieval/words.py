"""Scores of chunks by their words: BM25 of the chunk, of its section and of its document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recallm_core.retrieval.postings import term_key
from recallm_core.retrieval.segment import Segment, group_starts
from recallm_core.text.lexical import terms

Scores = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_K1 = 1.5
_B = 0.75
# Chosen on training rows by benchmarks/ranking_weights.py: a heavier document level finds more
# short passages of an encyclopedia and fewer places in long manuals.
DOCUMENT_WEIGHT = 1.0  # of a document's score, beside those of the chunk and of its section
TITLE_WEIGHT = 8  # times that a term of the title counts among those of its document


@dataclass(frozen=True, slots=True)
class _Lengths:
    """Terms in each unit of one level of one segment, and which units are alive."""

    terms: npt.NDArray[np.int64]
    live: Mask | None  # None: all


@dataclass(frozen=True, slots=True)
class _Hits:
    """The units of one level that a term occurs in, and how often."""

    places: npt.NDArray[Any]
    counts: npt.NDArray[Any]


class WordScores:
    """BM25 over the living documents of some segments, as if they were one collection."""

    def __init__(self, segments: Sequence[Segment], live: Sequence[Mask]) -> None:
        self._segments = tuple(segments)
        self._levels = [_levels(part, alive) for part, alive in zip(segments, live, strict=True)]
        self._sizes, self._means = [], []
        for level in range(3):
            units = [levels[level] for levels in self._levels]
            size = sum(int(_alive(unit).sum()) for unit in units)
            total = sum(int(unit.terms[_alive(unit)].sum()) for unit in units)
            self._sizes.append(size)
            self._means.append(total / size if total else 1.0)

    def scores(self, question: str) -> list[Scores]:
        """Returns one score per chunk for each segment; 0 where no term matches."""
        return [
            chunk + section[part.chunk_parent] + DOCUMENT_WEIGHT * document[part.chunk_document]
            for part, (chunk, section, document) in zip(
                self._segments, self.levels(question), strict=True
            )
        ]

    def levels(self, question: str) -> list[list[Scores]]:
        """Returns for each segment the scores of its chunks, of its sections and documents."""
        totals = [[np.zeros(len(units.terms)) for units in levels] for levels in self._levels]
        for term in dict.fromkeys(terms(question)):
            self._add(term_key(term), totals)
        return totals

    def _add(self, key: int, totals: Sequence[Sequence[Scores]]) -> None:
        """Adds the share of one term at every level of every segment."""
        hits_by_part = [
            _hits(part, levels, key)
            for part, levels in zip(self._segments, self._levels, strict=True)
        ]
        for level in range(3):
            frequency = sum(len(hits[level].places) for hits in hits_by_part)
            if not frequency:
                continue
            rarity = np.log1p((self._sizes[level] - frequency + 0.5) / (frequency + 0.5))
            for hits, levels, total in zip(hits_by_part, self._levels, totals, strict=True):
                places, counts = hits[level].places, hits[level].counts
                length = levels[level].terms[places] / self._means[level]
                total[level][places] += (
                    rarity * counts * (_K1 + 1) / (counts + _K1 * (1 - _B + _B * length))
                )


def _alive(units: _Lengths) -> Mask:
    return np.ones(len(units.terms), np.bool_) if units.live is None else units.live


def _levels(part: Segment, live: Mask) -> tuple[_Lengths, _Lengths, _Lengths]:
    """The chunks, sections and documents of a segment."""
    chunks = live[part.chunk_document]
    firsts = group_starts(part.chunk_parent) if part.chunk_count else np.zeros(0, np.int64)
    lengths = part.chunk_terms.astype(np.int64)
    sections = np.add.reduceat(lengths, firsts) if len(firsts) else lengths
    documents = np.bincount(part.chunk_document, lengths, minlength=len(live)).astype(np.int64)
    documents += TITLE_WEIGHT * part.title_terms.astype(np.int64)
    if live.all():
        return _Lengths(lengths, None), _Lengths(sections, None), _Lengths(documents, None)
    return (
        _Lengths(lengths, chunks),
        _Lengths(sections, chunks[firsts]),
        _Lengths(documents, live),
    )


def _hits(part: Segment, levels: Sequence[_Lengths], key: int) -> tuple[_Hits, _Hits, _Hits]:
    """Where a term occurs: chunks, and from them the sections and documents around them."""
    places, counts = part.words.of(key)
    titled, title_counts = part.titles.of(key)
    chunks_live, documents_live = levels[0].live, levels[2].live
    if chunks_live is not None and documents_live is not None:
        alive, alive_titles = chunks_live[places], documents_live[titled]
        places, counts = places[alive], counts[alive]
        titled, title_counts = titled[alive_titles], title_counts[alive_titles]
    wide = counts.astype(np.int64)
    sections = _group(part.chunk_parent[places], wide)
    documents = _group(part.chunk_document[places], wide)
    if len(titled):
        weighted = _Hits(titled, TITLE_WEIGHT * title_counts.astype(np.int64))
        documents = _unite(documents, weighted)
    return _Hits(places, wide), sections, documents


def _group(group: npt.NDArray[Any], counts: npt.NDArray[np.int64]) -> _Hits:
    if not len(group):
        return _Hits(group, counts)
    starts = group_starts(group)
    return _Hits(group[starts], np.add.reduceat(counts, starts))


def _unite(one: _Hits, other: _Hits) -> _Hits:
    places, inverse = np.unique(np.concatenate([one.places, other.places]), return_inverse=True)
    counts = np.bincount(inverse, np.concatenate([one.counts, other.counts]))
    return _Hits(places, counts.astype(np.int64))
