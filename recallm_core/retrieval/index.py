"""CorpusIndex: finds the chunks of a collection that a question is about, and packs them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from recallm_core.documents.chunking import BYTES_PER_TOKEN
from recallm_core.documents.chunking import chunk as split_document
from recallm_core.documents.document import (
    Chunk,
    Document,
    collect,
)
from recallm_core.inputs.arguments import shown
from recallm_core.locks import ForkSafeLock
from recallm_core.retrieval import ranking, saved_parts, segment, store
from recallm_core.retrieval.embedding import Embedder, Floats, GivenVectors, as_embedder
from recallm_core.retrieval.files import FileRecord
from recallm_core.retrieval.ranking import Part, State
from recallm_core.retrieval.search import numbers
from recallm_core.retrieval.searchable import Progress, Searchable
from recallm_core.retrieval.token_counts import TokenCounts
from recallm_core.retrieval.vectors import DEFAULT_SEARCH, VectorSearch

_SHORT = 256  # tokens of a document that isn't cut: half of a passage is seldom enough


def split(document: Document) -> list[Chunk]:
    """Returns the chunks under which a document is found; a short document is one chunk."""
    short = len(document.text.encode()) <= BYTES_PER_TOKEN * _SHORT
    return split_document(document, max_tokens=_SHORT if short else 128, parent_tokens=512)


def whole(document: Document) -> list[Chunk]:
    """Returns a document as one chunk, however long it is."""
    return [Chunk(document.id, 0, len(document.text), document.text)]


@dataclass(frozen=True, slots=True)
class IndexStats:
    """What an index holds.

    Attributes:
        documents: Living documents.
        chunks: Their chunks.
        characters: Characters in all of them.
        segments: Batches that a search goes through.
        dim: Numbers in a vector.
        embedder: Fingerprint of what made the vectors.
        generation: Of the saved index that this one was opened from or saved to; None: none.
    """

    documents: int
    chunks: int
    characters: int
    segments: int
    dim: int
    embedder: str
    generation: int | None


@dataclass(slots=True)
class _Origin:
    """The folder that an index was opened from or saved to."""

    path: Path | None = None
    generation: int | None = None
    files: dict[str, FileRecord] = field(default_factory=dict)


class CorpusIndex(Searchable):
    """A collection of documents that can be searched by words and by meaning.

    Searches may run in several threads while one thread changes the index. A change is kept in
    memory until ``save``. Results depend only on the documents, not on the order of changes:
    chunks with equal scores come by document id and offset.
    """

    def __init__(
        self,
        embedder: Embedder | str | None = None,
        *,
        vector_search: VectorSearch = DEFAULT_SEARCH,
    ) -> None:
        super().__init__(State(()), as_embedder(embedder))
        self._vector_search = vector_search
        self._origin = _Origin()
        self._changing = ForkSafeLock()

    @classmethod
    def build(
        cls,
        documents: Iterable[Document | str],
        embedder: Embedder | str | None = None,
        path: str | Path | None = None,
        *,
        progress: Progress | None = None,
        vector_search: VectorSearch = DEFAULT_SEARCH,
    ) -> CorpusIndex:
        """Returns an index of some documents; saved to ``path`` if one is given.

        Args:
            documents: Documents or texts; equal ids need equal texts.
            embedder: Makes the vectors; None: the table that ships with the library. A string
                names a ``sentence-transformers`` model.
            path: Folder to save to; an index that is there already is replaced.
            progress: Called with the chunks embedded so far and the total.
            vector_search: From how many chunks on the search by vector is approximate, and how.

        Raises:
            DocumentError: Two documents have the same explicit id and different texts.
            CorpusIndexError: The index can't be saved to ``path``.
        """
        index = cls(embedder, vector_search=vector_search)
        index.add(documents, progress=progress)
        if path is not None:
            index.save(path)
        return index

    @classmethod
    def open(
        cls,
        path: str | Path,
        embedder: Embedder | str | None = None,
        *,
        vector_search: VectorSearch = DEFAULT_SEARCH,
    ) -> CorpusIndex:
        """Returns the index saved in a folder; every file is checked before it is used.

        Args:
            path: The folder.
            embedder: The one that the index was built with; None: the one that ships.
                ``GivenVectors(0)`` takes the size that was saved.
            vector_search: How its vectors are searched.

        Raises:
            CorpusIndexError: The folder holds no index, one of another version or embedder, or a
                file that was changed since it was written.
        """
        index = cls(embedder, vector_search=vector_search)
        loaded = store.load(Path(path), index._embedder)
        if isinstance(embedder, GivenVectors):
            index._embedder = GivenVectors(loaded.dim)
        index._state = State(
            tuple(
                replace(
                    ranking.part(
                        part.segment,
                        vector_search,
                        TokenCounts(part.segment.chunk_count, part.tokens),
                    ),
                    name=part.name,
                    live=part.live,
                )
                for part in loaded.segments
            )
        )
        index._origin = _Origin(Path(path), loaded.generation, dict(loaded.files))
        return index

    def save(self, path: str | Path | None = None) -> None:
        """Writes the index into a folder; until the last moment, the folder's old index stands.

        Args:
            path: The folder; None: the one that it was opened from or last saved to.

        Raises:
            ValueError: There is no such folder yet and none was given.
            CorpusIndexError: It can't be written, another process is writing, or another process
                has changed it since this index was opened.
        """
        with self._changing:
            folder = self._origin.path if path is None else Path(path)
            if folder is None:
                raise ValueError("this index was never saved; give save() a folder")
            same = self._origin.path is not None and folder == self._origin.path
            saved = store.save(
                folder,
                [
                    saved_parts.Part(part.name, part.segment, part.live, part.tokens.all())
                    for part in self._state.parts
                ],
                self._embedder,
                expected=self._origin.generation if same else None,
                known=self._origin.files if same else {},
            )
            self._origin = _Origin(folder, saved.generation, dict(saved.files))

    def add(self, documents: Iterable[Document | str], *, progress: Progress | None = None) -> int:
        """Adds documents; those whose id is there already are replaced.

        Args:
            documents: Documents or texts.
            progress: Called with the chunks embedded so far and the total.

        Returns:
            How many were new or different.

        Raises:
            DocumentError: Two documents have the same explicit id and different texts.
        """
        fresh = [document for document in collect(documents) if not self._has(document)]
        if not fresh:
            return 0
        self._put(segment.build(fresh, self._embedder, split, progress, self._vector_search))
        return len(fresh)

    def add_vectors(self, documents: Sequence[Document], vectors: Floats) -> None:
        """Adds documents whose vectors were made elsewhere; each is found as a whole.

        Those whose id is there already are replaced. The vectors are kept as ``float16``.

        Args:
            documents: Documents with distinct ids.
            vectors: One for each, ``float32[n, dim]``; they are scaled to length 1.

        Raises:
            ValueError: Ids are given twice, or the vectors aren't one of ``dim`` finite numbers for
                each document.
        """
        vectors = numbers("vectors", vectors)
        if vectors.shape != (len(documents), self._embedder.dim) or not np.isfinite(vectors).all():
            raise ValueError(
                f"expected {len(documents)} vectors of {self._embedder.dim} finite numbers, got "
                f"shape {vectors.shape}"
            )
        if len({document.id for document in documents}) < len(documents):
            raise ValueError("each id may be given once; leave out all but the last of equal ones")
        if documents:
            content = segment.ReadyVectors(vectors)
            self._put(segment.build(documents, content, whole, search=self._vector_search))

    def _put(self, built: segment.Segment) -> None:
        with self._changing:
            parts = [
                *ranking.without(self._state, set(built.ids)),
                ranking.part(built, self._vector_search),
            ]
            self._become(parts)

    def _has(self, document: Document) -> bool:
        """Whether exactly this document is in the index."""
        known = self.documents
        return document.id in known and ranking.equal(known[document.id], document)

    def delete(self, document_ids: Iterable[str]) -> int:
        """Removes documents; returns how many there were.

        Raises:
            KeyError: An id isn't in the index; then nothing is removed.
            ValueError: They are no ids.
        """
        ids = _ids(document_ids)
        with self._changing:
            unknown = sorted(ids - self._state.places.keys())
            if unknown:
                raise KeyError(f"the index has no document {unknown[0]!r}")
            self._become(ranking.without(self._state, ids))
        return len(ids)

    def sync(
        self, documents: Iterable[Document | str], *, progress: Progress | None = None
    ) -> bool:
        """Makes the index hold exactly these documents, and pays only for what changed.

        With an index saved per folder of files, a second run over the same files indexes nothing.

        Args:
            documents: Documents or texts.
            progress: Called with the chunks embedded so far and the total.

        Returns:
            Whether anything changed.

        Raises:
            DocumentError: Two documents have the same explicit id and different texts.
        """
        targets = list(collect(documents))
        with self._changing:
            gone = self._state.places.keys() - {document.id for document in targets}
            changed = self.add(targets, progress=progress)
            if gone:
                self.delete(gone)
        return bool(changed or gone)

    def stats(self) -> IndexStats:
        """Returns what the index holds."""
        state = self._state
        return IndexStats(
            documents=len(state.places),
            chunks=sum(part.chunk_count for part in state.parts),
            characters=state.characters,
            segments=len(state.parts),
            dim=self._embedder.dim,
            embedder=self._embedder.fingerprint,
            generation=self._origin.generation,
        )

    def _become(self, parts: Sequence[Part]) -> None:
        self._state = State(tuple(ranking.compact(parts, self._vector_search)))


def _ids(value: Iterable[str]) -> set[str]:
    """The ids of documents, one or many."""
    if isinstance(value, str):
        return {value}
    listed = list(value) if isinstance(value, Iterable) else [value]
    odd = [item for item in listed if not isinstance(item, str)]
    if odd:
        raise ValueError(f"document_ids must be an id or a list of ids, got {shown(odd[0])}")
    return set(listed)
