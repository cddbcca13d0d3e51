"""One batch of indexed documents as plain arrays: chunks, words and vectors, never changed."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from recallm_core.documents.document import Chunk, Document
from recallm_core.retrieval import postings
from recallm_core.retrieval.embedding import Embedder, Floats, unit
from recallm_core.retrieval.postings import Postings
from recallm_core.retrieval.vectors import DEFAULT_SEARCH, Coarse, VectorSearch, train

Ints = npt.NDArray[np.int64]
Split = Callable[[Document], Sequence[Chunk]]

_PARENT_WEIGHT = 1.0  # of the vector of a chunk's section, beside its own
_DOCUMENT_WEIGHT = 0.5  # and of its document
_ENCODED_AT_ONCE = 4096  # chunks
_BLOCK = 32_768  # chunks whose vectors are put in context together


class Texts(Protocol):
    """Where a segment's documents are kept."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> Document: ...


@dataclass(frozen=True, slots=True)
class Segment:
    """Documents that were indexed together.

    Attributes:
        texts: The documents themselves, by position.
        ids: Their ids, by position.
        metadata: Their metadata, by position.
        chunk_document: Position of each chunk's document, ascending, ``int32[chunks]``.
        chunk_start: First character of each chunk, ``int64[chunks]``.
        chunk_end: One past its last character, ``int64[chunks]``.
        chunk_parent: Number of the section that each chunk belongs to, ascending.
        chunk_terms: Terms in each chunk, ``int32[chunks]``.
        title_terms: Terms in each document's title, ``int32[documents]``.
        words: Which chunks a term occurs in.
        titles: Which documents' titles a term occurs in.
        vectors: One unit vector per chunk, of its text in its surroundings, ``float16``.
        coarse: What an approximate search needs; None where the vectors are few enough without.
    """

    texts: Texts
    ids: tuple[str, ...]
    metadata: tuple[Any, ...]
    chunk_document: npt.NDArray[np.int32]
    chunk_start: npt.NDArray[np.int64]
    chunk_end: npt.NDArray[np.int64]
    chunk_parent: npt.NDArray[np.int32]
    chunk_terms: npt.NDArray[np.int32]
    title_terms: npt.NDArray[np.int32]
    words: Postings
    titles: Postings
    vectors: npt.NDArray[np.float16]
    coarse: Coarse | None = None

    @property
    def chunk_count(self) -> int:
        """Chunks in this segment."""
        return len(self.chunk_start)


class ReadyVectors:
    """An embedder that hands out ready vectors, one for each document in turn."""

    fingerprint = "made"

    def __init__(self, vectors: Floats) -> None:
        self._waiting = vectors
        self.dim = int(vectors.shape[1])

    def encode_documents(self, texts: Sequence[str]) -> Floats:
        """Returns the next vectors, scaled to length 1."""
        batch, self._waiting = self._waiting[: len(texts)], self._waiting[len(texts) :]
        return unit(np.array(batch, np.float32))

    def encode_query(self, text: str) -> Floats:
        """Always raises: nobody asks while a segment is built."""
        raise AssertionError("only documents are encoded here")


def build(
    documents: Sequence[Document],
    embedder: Embedder,
    split: Split,
    progress: Callable[[int, int], None] | None = None,
    search: VectorSearch = DEFAULT_SEARCH,
) -> Segment:
    """Returns the segment of some documents with distinct ids.

    Besides the result, only a block of chunks is in memory at a time.

    Args:
        documents: What to index.
        embedder: Makes the vectors.
        split: Gives the chunks of a document, ascending and disjoint.
        progress: Called with the chunks embedded so far and the total.
        search: Says from how many vectors on a search needs trained parts.
    """
    cuts = _cut(documents, split)
    words, lengths = [], [np.zeros(0, np.int32)]
    vectors = np.zeros((cuts.chunks, embedder.dim), np.float16)
    for first, end in _blocks(cuts.document):
        texts = [
            documents[cuts.document[n]].text[cuts.start[n] : cuts.end[n]] for n in range(first, end)
        ]
        table, sizes = postings.collect(texts, first)
        words.append(table)
        lengths.append(sizes)
        titles = [documents[number].title for number in cuts.document[first:end]]
        headed = [_with_headings(title, text) for title, text in zip(titles, texts, strict=True)]
        raw = _encode(headed, embedder, first, cuts.chunks, progress)
        vectors[first:end] = _in_context(raw, cuts.parent[first:end], cuts.document[first:end])
    titled, title_terms = postings.collect([document.title or "" for document in documents])
    return Segment(
        texts=tuple(documents),
        ids=tuple(document.id for document in documents),
        metadata=tuple(document.metadata for document in documents),
        chunk_document=cuts.document,
        chunk_start=cuts.start,
        chunk_end=cuts.end,
        chunk_parent=cuts.parent,
        chunk_terms=np.concatenate(lengths),
        title_terms=title_terms,
        words=postings.join(words),
        titles=titled,
        vectors=vectors,
        coarse=train(vectors, search),
    )


@dataclass(frozen=True, slots=True)
class _Cuts:
    """Where the chunks of some documents are; columns as in ``Segment``."""

    document: npt.NDArray[np.int32]
    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    parent: npt.NDArray[np.int32]

    @property
    def chunks(self) -> int:
        return len(self.start)


def _cut(documents: Sequence[Document], split: Split) -> _Cuts:
    document, start, end, parent = array("i"), array("q"), array("q"), array("i")
    section, last = -1, None
    for number, source in enumerate(documents):
        for chunk in split(source):
            inside = (number, chunk.parent or chunk.start)
            section += inside != last
            last = inside
            document.append(number)
            start.append(chunk.start)
            end.append(chunk.end)
            parent.append(section)
    return _Cuts(
        np.frombuffer(document, np.int32),
        np.frombuffer(start, np.int64),
        np.frombuffer(end, np.int64),
        np.frombuffer(parent, np.int32),
    )


def _with_headings(title: str | None, text: str) -> str:
    """A chunk as it is embedded: the title says what a short passage leaves out."""
    return f"{title}\n{text}" if title else text


def _encode(
    texts: Sequence[str],
    embedder: Embedder,
    done: int,
    total: int,
    progress: Callable[[int, int], None] | None,
) -> Floats:
    """The vectors of one block, in full precision."""
    raw = np.zeros((len(texts), embedder.dim), np.float32)
    for at in range(0, len(texts), _ENCODED_AT_ONCE):
        batch = texts[at : at + _ENCODED_AT_ONCE]
        raw[at : at + len(batch)] = embedder.encode_documents(batch)
        if progress is not None:
            progress(done + at + len(batch), total)
    return raw


def _blocks(document: npt.NDArray[Any]) -> Iterator[tuple[int, int]]:
    """Ranges of chunks of whole documents, each of ``_BLOCK`` chunks or a little more."""
    if not len(document):
        return
    first = 0
    for end in np.append(group_starts(document)[1:], len(document)):
        if end - first >= _BLOCK or end == len(document):
            yield first, int(end)
            first = int(end)


def _in_context(raw: Floats, parent: npt.NDArray[Any], document: npt.NDArray[Any]) -> Floats:
    """Each chunk's vector with those of its section and of its document added."""
    if not len(raw):
        return raw
    weighted = raw + _PARENT_WEIGHT * _group_means(raw, parent)
    return _normalise(weighted + _DOCUMENT_WEIGHT * _group_means(raw, document))


def _group_means(raw: Floats, group: npt.NDArray[Any]) -> Floats:
    """The unit mean of each row's group; the rows of a group are neighbours."""
    starts = group_starts(group)
    sums = _normalise(np.add.reduceat(raw, starts, axis=0))
    sizes = np.diff(np.append(starts, len(group)))
    repeated: Floats = np.repeat(sums, sizes, axis=0)
    return repeated


def group_starts(group: npt.NDArray[Any]) -> Ints:
    """Returns where each run of equal values begins."""
    starts: Ints = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
    return starts


def _normalise(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Floats = (rows / np.where(lengths > 0, lengths, 1.0)).astype(np.float32, copy=False)
    return unit


class _JoinedTexts:
    """Documents of several segments, those that were deleted left out."""

    def __init__(self, places: Sequence[tuple[Texts, int]]) -> None:
        self._places: list[tuple[Texts, int]] = [
            texts._places[inner] if isinstance(texts, _JoinedTexts) else (texts, inner)
            for texts, inner in places
        ]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, position: int) -> Document:
        texts, inner = self._places[position]
        return texts[inner]


def merge(
    segments: Sequence[Segment],
    live: Sequence[npt.NDArray[np.bool_]],
    search: VectorSearch = DEFAULT_SEARCH,
) -> Segment:
    """Returns one segment with the living documents of several, in order; nothing is recomputed."""
    alive_rows = [np.flatnonzero(alive) for alive in live]
    offsets = np.cumsum([0, *(len(alive_row) for alive_row in alive_rows)])
    chunks = [alive[part.chunk_document] for part, alive in zip(segments, live, strict=True)]
    columns: dict[str, Any] = {}
    for name in ("chunk_start", "chunk_end", "chunk_terms", "vectors"):
        columns[name] = _concatenate(segments, chunks, name)
    columns["title_terms"] = _concatenate(segments, live, "title_terms")
    columns["chunk_document"] = np.concatenate(
        [
            (_new_numbers(alive) + offsets[n])[part.chunk_document[inside]]
            for n, (part, alive, inside) in enumerate(zip(segments, live, chunks, strict=True))
        ]
    ).astype(np.int32)
    columns["chunk_parent"] = _sections(segments, chunks)
    columns["words"] = _merged_postings([part.words for part in segments], chunks)
    columns["titles"] = _merged_postings([part.titles for part in segments], live)
    places = [
        (part.texts, int(n))
        for part, alive_row in zip(segments, alive_rows, strict=True)
        for n in alive_row
    ]
    ids = (
        part.ids[n] for part, alive_row in zip(segments, alive_rows, strict=True) for n in alive_row
    )
    metadata = (
        part.metadata[n]
        for part, alive_row in zip(segments, alive_rows, strict=True)
        for n in alive_row
    )
    columns["coarse"] = train(columns["vectors"], search)
    return Segment(texts=_JoinedTexts(places), ids=tuple(ids), metadata=tuple(metadata), **columns)


def _concatenate(
    segments: Sequence[Segment], masks: Sequence[npt.NDArray[np.bool_]], name: str
) -> npt.NDArray[Any]:
    return np.concatenate(
        [np.asarray(getattr(part, name))[rows] for part, rows in zip(segments, masks, strict=True)]
    )


def _new_numbers(mask: npt.NDArray[np.bool_]) -> Ints:
    """The new number of each row that is kept; rows that aren't have none that counts."""
    numbers: Ints = np.cumsum(mask) - 1
    return numbers


def _sections(
    segments: Sequence[Segment], chunks: Sequence[npt.NDArray[np.bool_]]
) -> npt.NDArray[np.int32]:
    first = 0
    columns = []
    for part, inside in zip(segments, chunks, strict=True):
        sections = part.chunk_parent[inside]
        if len(sections):
            steps = np.append(False, sections[1:] != sections[:-1])
            columns.append(np.cumsum(steps) + first)
            first = int(columns[-1][-1]) + 1
    return np.concatenate([np.zeros(0, np.int32), *columns]).astype(np.int32)


def _merged_postings(parts: Sequence[Postings], rows: Sequence[npt.NDArray[np.bool_]]) -> Postings:
    firsts = np.cumsum([0, *(int(inside.sum()) for inside in rows)])
    remaining = [
        postings.select(part, inside, int(first))
        for part, inside, first in zip(parts, rows, firsts, strict=False)
    ]
    return postings.join(remaining)


def arrays(segment: Segment) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Yields every array of a segment with the name under which it is stored."""
    for field in fields(Segment):
        value = getattr(segment, field.name)
        if isinstance(value, Postings | Coarse):
            for part in fields(value):
                yield f"{field.name}-{part.name}", getattr(value, part.name)
        elif isinstance(value, np.ndarray):
            yield field.name, value
