"""CorpusIndex: finds the chunks of a collection that a question is about, and packs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from recallm_core.documents.chunking import BYTES_PER_TOKEN
from recallm_core.documents.chunking import chunk as split_document
from recallm_core.documents.document import (
    Chunk,
    Document,
    Passage,
    ScoredChunk,
    check_text,
    collect,
)
from recallm_core.inputs.arguments import shown, whole_number
from recallm_core.locks import ForkSafeLock
from recallm_core.packing import DEFAULT_OVERHEAD, Order, Overhead, Pack
from recallm_core.retrieval import packs, ranking, segment, store
from recallm_core.retrieval.diversity import diverse
from recallm_core.retrieval.embedding import Embedder, Floats, GivenVectors, as_embedder, unit
from recallm_core.retrieval.files import FileRecord
from recallm_core.retrieval.ranking import DocumentView, Part, State, Where
from recallm_core.retrieval.token_counts import TokenCounts
from recallm_core.retrieval.vectors import DEFAULT_SEARCH, VectorSearch

Mode = Literal["hybrid", "dense", "lexical"]
Progress = Callable[[int, int], None]

_SHORT = 256  # tokens of a document that isn't cut: half of a passage is seldom enough
_LEXICAL_WEIGHT = 2.0  # of the words' ranking beside a static table's; 1 beside a real encoder's


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


class CorpusIndex:
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
        self._embedder = as_embedder(embedder)
        self._vector_search = vector_search
        self._state = State(())
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
                    store.Part(part.name, part.segment, part.live, part.tokens.all())
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
        vectors = _numbers("vectors", vectors)
        if vectors.shape != (len(documents), self._embedder.dim) or not np.isfinite(vectors).all():
            raise ValueError(
                f"expected {len(documents)} vectors of {self._embedder.dim} finite numbers, got "
                f"shape {vectors.shape}"
            )
        if len({document.id for document in documents}) < len(documents):
            raise ValueError("each id may be given once; leave out all but the last of equal ones")
        if documents:
            content = segment.Made(vectors)
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

    def _become(self, parts: Sequence[Part]) -> None:
        self._state = State(tuple(ranking.compacted(parts, self._vector_search)))

    @property
    def documents(self) -> DocumentView:
        """The documents by id, as they are now."""
        return DocumentView(self._state)

    @property
    def embedder(self) -> Embedder:
        """What makes the vectors."""
        return self._embedder

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

    def search(
        self, question: str, k: int = 20, *, mode: Mode = "hybrid", where: Where | None = None
    ) -> list[ScoredChunk]:
        """Returns the chunks that a question is about, best first.

        Args:
            question: Anything.
            k: At most so many.
            mode: ``lexical``: by words, ``dense``: by vectors, ``hybrid``: by both ranks.
            where: Only documents with these values in their metadata, or for whose metadata this
                function returns True.

        Raises:
            ValueError: ``k`` is negative or the mode unknown.
            DocumentError: The question has a lone surrogate.
        """
        state = self._state
        return [
            ranking.chunk(state, number, score)
            for number, score in self._ranked(state, question, k, mode, where)
        ]

    def search_vector(
        self, vector: Floats, k: int = 20, *, where: Where | None = None
    ) -> list[ScoredChunk]:
        """Returns the chunks whose vectors have the highest cosine with a vector, best first.

        Args:
            vector: ``float32[dim]``; its length doesn't matter.
            k: At most so many.
            where: As in ``search``.

        Raises:
            ValueError: ``k`` is negative, or it isn't a vector of ``dim`` finite numbers.
        """
        state = self._state
        direction = self._asked(vector, k)
        return [
            ranking.chunk(state, number, score)
            for number, score in self._nearest(state, direction, k, where)
        ]

    def search_documents(
        self, vector: Floats, k: int = 4, *, where: Where | None = None
    ) -> list[ScoredChunk]:
        """Returns the nearest documents, best first: of each the chunk nearest to a vector.

        Args:
            vector: ``float32[dim]``; its length doesn't matter.
            k: At most so many documents.
            where: As in ``search``.

        Raises:
            ValueError: ``k`` is negative, or it isn't a vector of ``dim`` finite numbers.
        """
        state = self._state
        nearest = self._nearest_documents(state, self._asked(vector, k), k, where)
        return [ranking.chunk(state, number, score) for number, score in nearest]

    def search_diverse(
        self,
        vector: Floats,
        k: int = 4,
        *,
        fetch_k: int = 20,
        relevance: float = 0.5,
        where: Where | None = None,
    ) -> list[ScoredChunk]:
        """Returns near documents that differ, by maximal marginal relevance: of each a chunk.

        Args:
            vector: ``float32[dim]``; its length doesn't matter.
            k: At most so many documents.
            fetch_k: Among how many of the nearest documents they are chosen.
            relevance: 1: by nearness alone; 0: the nearest one, then whatever differs most.
            where: As in ``search``.

        Returns:
            In the order of choice; the scores are cosines with the vector.

        Raises:
            ValueError: ``k`` or ``fetch_k`` is negative, ``relevance`` isn't in [0, 1], or it isn't
                a vector of ``dim`` finite numbers.
        """
        if not 0 <= relevance <= 1:
            raise ValueError(f"relevance must be a number in [0, 1], got {relevance}")
        state = self._state
        direction = self._asked(vector, min(k, fetch_k))
        nearest = self._nearest_documents(state, direction, max(k, fetch_k), where)
        if not nearest:
            return []
        scores = np.array([score for _, score in nearest], np.float32)
        vectors = ranking.vectors(state, [number for number, _ in nearest])
        return [ranking.chunk(state, *nearest[n]) for n in diverse(scores, vectors, k, relevance)]

    def _asked(self, vector: Floats, k: int) -> Floats:
        """A question's vector at length 1.

        Raises:
            ValueError: It can't be searched for.
        """
        whole_number("k", k)
        vector = _numbers("vector", vector)
        if vector.shape != (self._embedder.dim,) or not np.isfinite(vector).all():
            raise ValueError(
                f"expected a vector of {self._embedder.dim} finite numbers, got shape "
                f"{vector.shape}"
            )
        direction: Floats = unit(np.array([vector], np.float32))[0]
        return direction

    def _nearest(
        self, state: State, direction: Floats, k: int, where: Where | None
    ) -> list[tuple[int, float]]:
        """The numbers of the nearest chunks over all parts, with their cosines."""
        allowed = [ranking.allowed(part, where) for part in state.parts]
        depth, total = max(2 * k, 200), state.firsts[-1]
        nearest = ranking.nearest_chunks(state, direction, depth, allowed)
        while len(nearest) < k and depth < total:  # so many equal ones that all were left out
            depth = min(4 * depth, total)
            nearest = ranking.nearest_chunks(state, direction, depth, allowed)
        return ranking.ordered(state, nearest, k)

    def _nearest_documents(
        self, state: State, direction: Floats, k: int, where: Where | None
    ) -> list[tuple[int, float]]:
        """The same, but of each document only the nearest chunk."""
        total = state.firsts[-1]
        depth = min(2 * k, total)
        while True:
            ranked = self._nearest(state, direction, depth, where)
            nearest = ranking.by_document(state, ranked)
            if len(nearest) >= k or len(ranked) < depth or depth >= total:
                return nearest[:k]
            depth = min(4 * depth, total)

    def matching(self, where: Where | None = None) -> list[str]:
        """Returns the ids of the documents whose metadata fit, without reading their texts."""
        state = self._state
        fits = [ranking.fitting(part, where) for part in state.parts]
        return [
            part.segment.ids[position]
            for part, fit in zip(state.parts, fits, strict=True)
            for position in np.flatnonzero(fit)
        ]

    def _ranked(
        self, state: State, question: str, k: int, mode: Mode, where: Where | None
    ) -> list[tuple[int, float]]:
        """The numbers of the best chunks over all parts, with their scores."""
        check_text(question, "a question")
        k = whole_number("k", k)
        if mode not in ("hybrid", "dense", "lexical"):
            raise ValueError(f"mode must be 'hybrid', 'dense' or 'lexical', got {mode!r}")
        depth = max(2 * k, 200)
        allowed = [ranking.allowed(part, where) for part in state.parts]
        rankings = []
        if mode != "dense":
            rankings.append(
                (self._lexical_weight, ranking.by_words(state, question, depth, allowed))
            )
        if mode != "lexical":
            query = self._embedder.encode_query(question)
            rankings.append((1.0, ranking.by_vectors(state, query, depth, allowed)))
        fused = rankings[0][1] if len(rankings) == 1 else ranking.fused(rankings)
        return ranking.ordered(state, fused, k)

    @property
    def _lexical_weight(self) -> float:
        return _LEXICAL_WEIGHT if self._embedder.fingerprint.startswith("static-") else 1.0

    def count_tokens(
        self, tokenizer: packs.Tokens | None = None, *, progress: Progress | None = None
    ) -> int:
        """Counts the tokens of all chunks, so that no pack has to; ``save`` keeps the counts.

        Args:
            tokenizer: Of the model that will read packs; None: the shipped model's.
            progress: Called with the chunks counted so far and the total.

        Returns:
            How many chunks weren't counted before.

        Raises:
            ValueError: The tokenizer has no fingerprint.
            CheckpointError: No tokenizer was given and the shipped model isn't there.
        """
        count, key = packs.known_counter(tokenizer)
        if key is None:
            raise ValueError(
                "counts are kept by the tokenizer's fingerprint, and this one has none"
            )
        return packs.count_all(self._state, count, key, progress)

    def pack(
        self,
        question: str,
        token_budget: int | None = None,
        tokenizer: packs.Tokens | None = None,
        *,
        mode: Mode = "hybrid",
        where: Where | None = None,
        order: Order = "document",
    ) -> tuple[Passage, ...]:
        """Returns the passages that a model should read to answer a question.

        Args:
            question: Anything.
            token_budget: Limit for all passages with their headers; None: 32,768, or what the
                shipped model's window leaves.
            tokenizer: Counts tokens; None: the shipped model's.
            mode: As in ``search``.
            where: As in ``search``.
            order: As in ``recallm_core.packing.pack``.

        Raises:
            ValueError: The budget is negative.
            CheckpointError: No tokenizer was given and the shipped model isn't there.
        """
        count, key = packs.known_counter(tokenizer)
        usual = packs.shipped()[1] if tokenizer is None else packs.DEFAULT_BUDGET
        budget = usual if token_budget is None else token_budget
        return self.pack_report(
            question, budget, count, tokens_key=key, mode=mode, where=where, order=order
        ).passages

    def pack_report(
        self,
        question: str,
        token_budget: int,
        count: Callable[[str], int],
        *,
        overhead: Overhead = DEFAULT_OVERHEAD,
        tokens_key: str | None = None,
        mode: Mode = "hybrid",
        where: Where | None = None,
        order: Order = "document",
        expand_top: int | None = None,
        gap_tokens: int = packs.GAP_TOKENS,
    ) -> Pack:
        """Returns a pack with its token count and what was left out and why.

        Args:
            question: Anything.
            token_budget: Limit for all passages with their headers.
            count: Tokens of a text under the model's tokenizer.
            overhead: Tokens that a passage costs beyond its text.
            tokens_key: Names the tokenizer, for instance its fingerprint: each chunk is then
                counted once and remembered. None: what chunks cost is estimated by their length.
            mode: As in ``search``.
            where: As in ``search``; a filter always searches, even if everything would fit.
            order: As in ``recallm_core.packing.pack``.
            expand_top: How many of the best hits get the chunks beside them; None: one for every
                4,096 tokens of the budget.
            gap_tokens: Gaps up to this size are filled if the budget still allows.
        """
        check_text(question, "a question")
        token_budget = whole_number("token_budget", token_budget)
        gap_tokens = whole_number("gap_tokens", gap_tokens)
        if expand_top is not None:
            expand_top = whole_number("expand_top", expand_top)
        state = self._state
        if where is None:
            everything = packs.everything(state, token_budget, count, overhead)
            if everything is not None:
                return everything
        ranked = self._ranked(state, question, packs.candidates(token_budget), mode, where)
        return packs.fill(
            state,
            ranked,
            token_budget=token_budget,
            count=count,
            overhead=overhead,
            order=order,
            expand_top=packs.expanded(token_budget) if expand_top is None else expand_top,
            gap_tokens=gap_tokens,
            tokens_key=tokens_key,
        )


def _ids(value: Iterable[str]) -> set[str]:
    """The ids of documents, one or many."""
    if isinstance(value, str):
        return {value}
    listed = list(value) if isinstance(value, Iterable) else [value]
    odd = [item for item in listed if not isinstance(item, str)]
    if odd:
        raise ValueError(f"document_ids must be an id or a list of ids, got {shown(odd[0])}")
    return set(listed)


def _numbers(name: str, value: Any) -> Floats:
    """Vectors as an array of numbers, whatever they come as."""
    try:
        return np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be an array of numbers, got {shown(value)}") from error
