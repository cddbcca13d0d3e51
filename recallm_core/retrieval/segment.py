"""One batch of indexed documents as plain arrays: chunks, words and vectors, never changed."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from recallm_core.documents import Chunk, Document
from recallm_core.embedding import Embedder, Floats, unit
from recallm_core.lexical import terms
from recallm_core.retrieval.vectors import Coarse, train

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
class Postings:
    """For each term, sorted by its key, the places it occurs in and how often.

    Attributes:
        keys: 64-bit hash of each term, ascending, ``uint64[terms]``.
        starts: First entry of each term, ``int64[terms + 1]``.
        places: Number of the chunk or document, ascending within a term, ``int32[entries]``.
        counts: Occurrences there, ``uint16[entries]``; stops at 65,535.
    """

    keys: npt.NDArray[np.uint64]
    starts: npt.NDArray[np.int64]
    places: npt.NDArray[np.int32]
    counts: npt.NDArray[np.uint16]

    def of(self, key: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint16]]:
        """Returns the places of a term and how often it occurs in each."""
        at = int(np.searchsorted(self.keys, np.uint64(key)))
        if at == len(self.keys) or int(self.keys[at]) != key:
            return self.places[:0], self.counts[:0]
        entries = slice(int(self.starts[at]), int(self.starts[at + 1]))
        return self.places[entries], self.counts[entries]


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


class Made:
    """An embedder for documents whose vectors are there already, in the order of the documents."""

    fingerprint = "made"

    def __init__(self, vectors: Floats) -> None:
        self._waiting = vectors
        self.dim = int(vectors.shape[1])

    def encode_documents(self, texts: Sequence[str]) -> Floats:
        """Returns the next vectors, scaled to length 1."""
        given, self._waiting = self._waiting[: len(texts)], self._waiting[len(texts) :]
        return unit(np.array(given, np.float32))

    def encode_query(self, text: str) -> Floats:
        """Always raises: nobody asks while a segment is built."""
        raise AssertionError("only documents are encoded here")


def build(
    documents: Sequence[Document],
    embedder: Embedder,
    split: Split,
    progress: Callable[[int, int], None] | None = None,
) -> Segment:
    """Returns the segment of some documents with distinct ids.

    Args:
        documents: What to index.
        embedder: Makes the vectors.
        split: Gives the chunks of a document, ascending and disjoint.
        progress: Called with the chunks embedded so far and the total.
    """
    cut = [(number, chunk) for number, each in enumerate(documents) for chunk in split(each)]
    texts = [chunk.text for _, chunk in cut]
    words, chunk_terms = _postings(texts)
    titles, title_terms = _postings([document.title or "" for document in documents])
    chunk_document = np.array([number for number, _ in cut], np.int32)
    chunk_parent = _numbered([(number, chunk.parent or chunk.start) for number, chunk in cut])
    headed = [_headed(documents[number], chunk.text) for number, chunk in cut]
    vectors = _vectors(headed, embedder, chunk_parent, chunk_document, progress)
    return Segment(
        texts=tuple(documents),
        ids=tuple(document.id for document in documents),
        metadata=tuple(document.metadata for document in documents),
        chunk_document=chunk_document,
        chunk_start=np.array([chunk.start for _, chunk in cut], np.int64),
        chunk_end=np.array([chunk.end for _, chunk in cut], np.int64),
        chunk_parent=chunk_parent,
        chunk_terms=chunk_terms,
        title_terms=title_terms,
        words=words,
        titles=titles,
        vectors=vectors,
        coarse=train(vectors),
    )


def _headed(document: Document, text: str) -> str:
    """A chunk as it is embedded: the title says what a short passage leaves out."""
    return f"{document.title}\n{text}" if document.title else text


def _numbered(sections: Sequence[object]) -> npt.NDArray[np.int32]:
    """Numbers runs of equal values."""
    changes = [n > 0 and each != sections[n - 1] for n, each in enumerate(sections)]
    return np.cumsum(changes, dtype=np.int32)


def term_key(term: str) -> int:
    """Returns the 64-bit key under which a term is stored."""
    return int.from_bytes(hashlib.blake2b(term.encode(), digest_size=8).digest(), "little")


def _postings(texts: Iterable[str]) -> tuple[Postings, npt.NDArray[np.int32]]:
    """Returns where each term occurs, and the terms of each text."""
    numbers: dict[str, int] = {}
    term, place, count, lengths = array("q"), array("q"), array("q"), array("i")
    for position, text in enumerate(texts):
        found = Counter(terms(text))
        lengths.append(sum(found.values()))
        for word, times in found.items():
            term.append(numbers.setdefault(word, len(numbers)))
            place.append(position)
            count.append(times)
    keys = np.array([term_key(word) for word in numbers], np.uint64)
    entries = keys[np.frombuffer(term, np.int64)] if len(keys) else keys
    places, counts = np.frombuffer(place, np.int64), np.frombuffer(count, np.int64)
    return collect_postings(entries, places, counts), np.array(lengths, np.int32)


def collect_postings(
    keys: npt.NDArray[np.uint64], places: npt.NDArray[Any], counts: npt.NDArray[Any]
) -> Postings:
    """Returns entries, given in any order, grouped by term."""
    order = np.lexsort((places, keys))
    distinct, firsts = np.unique(keys[order], return_index=True)
    return Postings(
        keys=distinct,
        starts=np.append(firsts, len(order)).astype(np.int64),
        places=places[order].astype(np.int32),
        counts=np.minimum(counts[order], 65535).astype(np.uint16),
    )


def _vectors(
    texts: Sequence[str],
    embedder: Embedder,
    parent: npt.NDArray[Any],
    document: npt.NDArray[Any],
    progress: Callable[[int, int], None] | None,
) -> npt.NDArray[np.float16]:
    """One vector per chunk; few are held in full precision at a time."""
    vectors = np.zeros((len(texts), embedder.dim), np.float16)
    for first, end in _blocks(document):
        raw = np.zeros((end - first, embedder.dim), np.float32)
        for at in range(first, end, _ENCODED_AT_ONCE):
            batch = texts[at : min(at + _ENCODED_AT_ONCE, end)]
            raw[at - first : at - first + len(batch)] = embedder.encode_documents(batch)
            if progress is not None:
                progress(at + len(batch), len(texts))
        vectors[first:end] = _in_context(raw, parent[first:end], document[first:end])
    return vectors


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
    around = raw + _PARENT_WEIGHT * _group_means(raw, parent)
    return _normalised(around + _DOCUMENT_WEIGHT * _group_means(raw, document))


def _group_means(raw: Floats, group: npt.NDArray[Any]) -> Floats:
    """The unit mean of each row's group; the rows of a group are neighbours."""
    starts = group_starts(group)
    sums = _normalised(np.add.reduceat(raw, starts, axis=0))
    sizes = np.diff(np.append(starts, len(group)))
    repeated: Floats = np.repeat(sums, sizes, axis=0)
    return repeated


def group_starts(group: npt.NDArray[Any]) -> Ints:
    """Returns where each run of equal values begins."""
    starts: Ints = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
    return starts


def _normalised(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Floats = (rows / np.where(lengths > 0, lengths, 1.0)).astype(np.float32, copy=False)
    return unit


class _Joined:
    """Documents of several segments, those that were deleted left out."""

    def __init__(self, places: Sequence[tuple[Texts, int]]) -> None:
        self._places: list[tuple[Texts, int]] = [
            texts._places[inner] if isinstance(texts, _Joined) else (texts, inner)
            for texts, inner in places
        ]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, position: int) -> Document:
        texts, inner = self._places[position]
        return texts[inner]


def merge(segments: Sequence[Segment], live: Sequence[npt.NDArray[np.bool_]]) -> Segment:
    """Returns one segment with the living documents of several, in order; nothing is recomputed."""
    kept = [np.flatnonzero(alive) for alive in live]
    offsets = np.cumsum([0, *(len(each) for each in kept)])
    chunks = [alive[part.chunk_document] for part, alive in zip(segments, live, strict=True)]
    columns: dict[str, Any] = {}
    for name in ("chunk_start", "chunk_end", "chunk_terms", "vectors"):
        columns[name] = _concatenated(segments, chunks, name)
    columns["title_terms"] = _concatenated(segments, live, "title_terms")
    columns["chunk_document"] = np.concatenate(
        [
            (_renumbered(alive) + offsets[n])[part.chunk_document[inside]]
            for n, (part, alive, inside) in enumerate(zip(segments, live, chunks, strict=True))
        ]
    ).astype(np.int32)
    columns["chunk_parent"] = _sections(segments, chunks)
    columns["words"] = _merged_postings([part.words for part in segments], chunks)
    columns["titles"] = _merged_postings([part.titles for part in segments], live)
    places = [(part.texts, int(n)) for part, each in zip(segments, kept, strict=True) for n in each]
    ids = (part.ids[n] for part, each in zip(segments, kept, strict=True) for n in each)
    metadata = (part.metadata[n] for part, each in zip(segments, kept, strict=True) for n in each)
    columns["coarse"] = train(columns["vectors"])
    return Segment(texts=_Joined(places), ids=tuple(ids), metadata=tuple(metadata), **columns)


def _concatenated(
    segments: Sequence[Segment], kept: Sequence[npt.NDArray[np.bool_]], name: str
) -> npt.NDArray[Any]:
    return np.concatenate(
        [np.asarray(getattr(part, name))[rows] for part, rows in zip(segments, kept, strict=True)]
    )


def _renumbered(kept: npt.NDArray[np.bool_]) -> Ints:
    """The new number of each row that is kept; rows that aren't have none that counts."""
    numbers: Ints = np.cumsum(kept) - 1
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


def _merged_postings(parts: Sequence[Postings], kept: Sequence[npt.NDArray[np.bool_]]) -> Postings:
    keys, places, counts = [], [], []
    first = 0
    for part, rows in zip(parts, kept, strict=True):
        inside = rows[part.places]
        keys.append(np.repeat(part.keys, np.diff(part.starts))[inside])
        places.append(_renumbered(rows)[part.places[inside]] + first)
        counts.append(part.counts[inside])
        first += int(rows.sum())
    return collect_postings(np.concatenate(keys), np.concatenate(places), np.concatenate(counts))


def arrays(segment: Segment) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Yields every array of a segment with the name under which it is stored."""
    for field in fields(Segment):
        value = getattr(segment, field.name)
        if isinstance(value, Postings | Coarse):
            for part in fields(value):
                yield f"{field.name}-{part.name}", getattr(value, part.name)
        elif isinstance(value, np.ndarray):
            yield field.name, value
