"""What can be asked of an index: searches, packs, counts. Nothing here changes it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recallm_core.documents.document import (
    Passage,
    ScoredChunk,
    check_text,
)
from recallm_core.inputs.arguments import whole_number
from recallm_core.packing import DEFAULT_OVERHEAD, Order, Overhead, Pack
from recallm_core.retrieval import packs, ranking, search
from recallm_core.retrieval.diversity import diverse
from recallm_core.retrieval.embedding import Embedder, Floats
from recallm_core.retrieval.ranking import DocumentView, State, Where
from recallm_core.retrieval.search import Mode

Progress = Callable[[int, int], None]


class Searchable:
    """Searches and packs one state of a collection; a change puts another state in its place.

    Every method reads the state once, so it sees no change half done.

    Args:
        state: What is indexed.
        embedder: What made its vectors, and makes those of questions.
    """

    def __init__(self, state: State, embedder: Embedder) -> None:
        self._state = state
        self._embedder = embedder

    @property
    def documents(self) -> DocumentView:
        """The documents by id, as they are now."""
        return DocumentView(self._state)

    @property
    def embedder(self) -> Embedder:
        """What makes the vectors."""
        return self._embedder

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
            for number, score in search.rank(state, self._embedder, question, k, mode, where)
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
        direction = search.direction(vector, k, self._embedder.dim)
        return [
            ranking.chunk(state, number, score)
            for number, score in search.nearest(state, direction, k, where)
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
        nearest = search.nearest_documents(
            state, search.direction(vector, k, self._embedder.dim), k, where
        )
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
        direction = search.direction(vector, min(k, fetch_k), self._embedder.dim)
        nearest = search.nearest_documents(state, direction, max(k, fetch_k), where)
        if not nearest:
            return []
        scores = np.array([score for _, score in nearest], np.float32)
        vectors = ranking.vectors(state, [number for number, _ in nearest])
        return [ranking.chunk(state, *nearest[n]) for n in diverse(scores, vectors, k, relevance)]

    def matching(self, where: Where | None = None) -> list[str]:
        """Returns the ids of the documents whose metadata fit, without reading their texts."""
        state = self._state
        fits = [ranking.fitting(part, where) for part in state.parts]
        return [
            part.segment.ids[position]
            for part, fit in zip(state.parts, fits, strict=True)
            for position in np.flatnonzero(fit)
        ]

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
                shipped model's context leaves.
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
        ranked = search.rank(
            state, self._embedder, question, packs.candidates(token_budget), mode, where
        )
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
