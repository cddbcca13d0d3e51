"""What a search reads, and how rankings by words and by vectors become one."""

from __future__ import annotations

import uuid
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from recallm_core.documents.document import Document, ScoredChunk
from recallm_core.inputs.arguments import shown
from recallm_core.retrieval.embedding import Floats
from recallm_core.retrieval.segment import Segment, merge
from recallm_core.retrieval.token_counts import TokenCounts, merge_counts
from recallm_core.retrieval.vectors import DEFAULT_SEARCH, NearestVectors, VectorSearch
from recallm_core.retrieval.words import WordScores

Mask = npt.NDArray[np.bool_]
Where = Mapping[str, Any] | Callable[[Mapping[str, Any]], bool]

_RRF = 60.0  # of reciprocal rank fusion; as good or better than summed z-scores from 8K tokens up


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A segment, which of its documents are alive, and its vectors ready for search.

    Attributes:
        name: Names its files.
        segment: What was indexed.
        live: One bool per document.
        nearest: Its vectors.
        tokens: How long its chunks are; the one thing that grows.
    """

    name: str
    segment: Segment
    live: Mask
    nearest: NearestVectors
    tokens: TokenCounts

    @property
    def chunks_live(self) -> Mask:
        """One bool per chunk."""
        return self.live[self.segment.chunk_document]

    @property
    def chunk_count(self) -> int:
        """Living chunks."""
        return int(self.chunks_live.sum())


@dataclass(frozen=True, eq=False)
class State:
    """All that a search reads; a change makes a new one, so searches never see half of it."""

    parts: tuple[Part, ...]

    @cached_property
    def places(self) -> dict[str, tuple[int, int]]:
        """Part and position of each living document, in the order they were added."""
        return {
            part.segment.ids[position]: (number, int(position))
            for number, part in enumerate(self.parts)
            for position in np.flatnonzero(part.live)
        }

    @cached_property
    def words(self) -> WordScores:
        """The words of all parts."""
        return WordScores([p.segment for p in self.parts], [p.live for p in self.parts])

    @cached_property
    def firsts(self) -> list[int]:
        """The number of each part's first chunk, in the numbering over all parts."""
        counts = [part.segment.chunk_count for part in self.parts]
        return [0, *(int(total) for total in np.cumsum(counts, dtype=np.int64))]

    @cached_property
    def characters(self) -> int:
        """Characters in all living documents."""
        total = 0
        for part in self.parts:
            lengths = part.segment.chunk_end - part.segment.chunk_start
            total += int(lengths[part.chunks_live].sum())
        return total

    def locate(self, number: int) -> tuple[Part, int]:
        """Returns the part of a chunk and its number there."""
        place = bisect_right(self.firsts, number) - 1
        return self.parts[place], number - self.firsts[place]


class DocumentView(Mapping[str, Document]):
    """The documents of an index by id, in the order they were added; read when asked for."""

    def __init__(self, state: State) -> None:
        self._state = state

    def __getitem__(self, document_id: str) -> Document:
        try:
            number, position = self._state.places[document_id]
        except KeyError:
            raise KeyError(f"the index has no document {document_id!r}") from None
        return self._state.parts[number].segment.texts[position]

    def __iter__(self) -> Iterator[str]:
        return iter(self._state.places)

    def __len__(self) -> int:
        return len(self._state.places)

    def __contains__(self, document_id: object) -> bool:
        return document_id in self._state.places


def part(
    built: Segment, search: VectorSearch = DEFAULT_SEARCH, tokens: TokenCounts | None = None
) -> Part:
    """Returns a new segment, all alive."""
    live = np.ones(len(built.ids), np.bool_)
    nearest = NearestVectors(built.vectors, built.coarse, search)
    counts = TokenCounts(built.chunk_count) if tokens is None else tokens
    return Part("s" + uuid.uuid4().hex, built, live, nearest, counts)


def without(state: State, document_ids: set[str]) -> list[Part]:
    """Returns the parts of a state with some documents dead; unknown ids don't matter."""
    dead: dict[int, list[int]] = {}
    for document_id in document_ids & state.places.keys():
        number, position = state.places[document_id]
        dead.setdefault(number, []).append(position)
    parts = list(state.parts)
    for number, positions in dead.items():
        old = parts[number]
        live = old.live.copy()
        live[positions] = False
        parts[number] = replace(old, live=live)
    return parts


def compact(parts: Sequence[Part], search: VectorSearch = DEFAULT_SEARCH) -> list[Part]:
    """Returns the parts with small neighbours merged and mostly dead ones rewritten.

    Each part is left at least twice as large as the next, so there are few, and adding documents
    one by one costs each chunk a number of moves that is logarithmic.
    """
    compact: list[Part] = []
    for part in parts:
        if not part.live.any():
            continue
        if 2 * int(part.live.sum()) < len(part.live):
            part = _merge([part], search)
        compact.append(part)
        while len(compact) > 1 and compact[-2].chunk_count < 2 * compact[-1].chunk_count:
            last, previous = compact.pop(), compact.pop()
            compact.append(_merge([previous, last], search))
    return compact


def _merge(parts: Sequence[Part], search: VectorSearch) -> Part:
    whole = merge([one.segment for one in parts], [one.live for one in parts], search)
    tokens = merge_counts([one.tokens for one in parts], [one.chunks_live for one in parts])
    return part(whole, search, tokens)


def equal(one: Document, other: Document) -> bool:
    """Whether two documents with one id are the same in all that an index keeps."""
    return one == other and one.source_map == other.source_map


def allowed_chunks(candidate: Part, where: Where | None) -> Mask | None:
    """Returns which chunks of a part a search may find; None: all of them."""
    documents = fitting(candidate, where)
    return None if documents.all() else documents[candidate.segment.chunk_document]


def fitting(candidate: Part, where: Where | None) -> Mask:
    """Returns which documents of a part are alive and have the wanted metadata."""
    if where is None:
        return candidate.live
    if not callable(where) and not isinstance(where, Mapping):
        raise ValueError(
            "where must be a function of a document's metadata, or a mapping of the values that "
            f"it must have, got {shown(where)}"
        )
    accepts = where if callable(where) else _has_values(where)
    fit = [bool(accepts(metadata)) for metadata in candidate.segment.metadata]
    return candidate.live & np.array(fit, np.bool_)


def _has_values(values: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], bool]:
    missing = object()
    return lambda metadata: all(metadata.get(key, missing) == values[key] for key in values)


def by_words(
    state: State, question: str, depth: int, masks: Sequence[Mask | None]
) -> dict[int, float]:
    """Returns the chunks with the best scores by words."""
    scores = state.words.scores(question)
    for score, mask in zip(scores, masks, strict=True):
        if mask is not None:
            score[~mask] = 0.0
    every = np.concatenate([np.zeros(0), *scores])
    return _best(np.flatnonzero(every > 0), every[every > 0], depth)


def by_vectors(
    state: State, query: Floats, depth: int, masks: Sequence[Mask | None]
) -> dict[int, float]:
    """Returns the chunks with the best scores by vector; none for a question without one."""
    return nearest_chunks(state, query, depth, masks) if query.any() else {}


def nearest_chunks(
    state: State, query: Floats, depth: int, masks: Sequence[Mask | None]
) -> dict[int, float]:
    """Returns the chunks whose vectors have the highest products with a vector."""
    rows, scores = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for candidate, first, mask in zip(state.parts, state.firsts, masks, strict=False):
        rows_of_part, products = candidate.nearest.search(query, depth + 1, mask)
        rows.append(rows_of_part + first)
        scores.append(products)
    return _best(np.concatenate(rows), np.concatenate(scores), depth)


def _best(numbers: npt.NDArray[np.int64], scores: npt.NDArray[Any], depth: int) -> dict[int, float]:
    """The ``depth`` best, without any that are equal to one that is cut off.

    Which of several equals would come is a matter of storage; without them the result depends on
    the documents alone. Where all are equal, or nothing else is left, they stay.
    """
    if len(scores) > depth > 0:
        cut = np.partition(scores, len(scores) - depth - 1)[len(scores) - depth - 1]
        inside = scores > cut if (scores > cut).any() else scores >= cut
        numbers, scores = numbers[inside], scores[inside]
    return {int(n): float(score) for n, score in zip(numbers, scores, strict=True)}


def fuse_ranks(rankings: Sequence[tuple[float, Mapping[int, float]]]) -> dict[int, float]:
    """Returns the sum of weighted reciprocal ranks; equal scores share a rank."""
    total: dict[int, float] = {}
    for weight, scores in rankings:
        descending = sorted(scores.values(), reverse=True)
        ranks: dict[float, int] = {}
        for rank, score in enumerate(descending, start=1):
            ranks.setdefault(score, rank)
        for number, score in scores.items():
            total[number] = total.get(number, 0.0) + weight / (_RRF + ranks[score])
    return total


def best_chunks(state: State, scores: Mapping[int, float], k: int) -> list[tuple[int, float]]:
    """Returns the ``k`` best chunks, best first; equals by document id and offset."""
    if len(scores) > k > 0:
        worst = sorted(scores.values(), reverse=True)[k - 1]
        scores = {number: score for number, score in scores.items() if score >= worst}

    def key(item: tuple[int, float]) -> tuple[float, str, int]:
        where, inner = state.locate(item[0])
        document = where.segment.ids[where.segment.chunk_document[inner]]
        return -item[1], document, int(where.segment.chunk_start[inner])

    return sorted(scores.items(), key=key)[:k]


def chunk(state: State, number: int, score: float) -> ScoredChunk:
    """Returns a chunk with its text."""
    where, inner = state.locate(number)
    document = where.segment.ids[where.segment.chunk_document[inner]]
    start, end = int(where.segment.chunk_start[inner]), int(where.segment.chunk_end[inner])
    return ScoredChunk(document, start, end, text_of(where.segment, inner), score)


def vectors(state: State, numbers: Sequence[int]) -> Floats:
    """Returns the unit vectors of some chunks, ``float32[n, dim]``."""
    places = [state.locate(number) for number in numbers]
    return np.stack([where.segment.vectors[inner] for where, inner in places]).astype(np.float32)


def by_document(state: State, ranked: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Returns the first chunk of each document in a ranking, in its order."""
    firsts: dict[str, tuple[int, float]] = {}
    for number, score in ranked:
        where, inner = state.locate(number)
        document = where.segment.ids[where.segment.chunk_document[inner]]
        firsts.setdefault(document, (number, score))
    return list(firsts.values())


def text_of(segment: Segment, inner: int) -> str:
    """Returns the text of a segment's chunk."""
    document = segment.texts[int(segment.chunk_document[inner])]
    return document.text[int(segment.chunk_start[inner]) : int(segment.chunk_end[inner])]


def neighbours(state: State, number: int) -> list[int]:
    """Returns the chunks before and after a chunk in its document."""
    where, inner = state.locate(number)
    documents = where.segment.chunk_document
    adjacent = (n for n in (inner - 1, inner + 1) if 0 <= n < len(documents))
    return [number + n - inner for n in adjacent if documents[n] == documents[inner]]
