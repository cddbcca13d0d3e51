"""Which of the best candidates to take, so that they don't all say the same."""

from __future__ import annotations

import numpy as np

from recallm_core.retrieval.embedding import Floats


def diverse(relevance: Floats, vectors: Floats, k: int, weight: float) -> list[int]:
    """Returns the positions chosen by maximal marginal relevance, in the order of choice.

    Each choice is the candidate with the highest ``weight * relevance - (1 - weight) *
    redundancy``; the redundancy is its highest cosine with one that was chosen before. Of equals,
    the first is taken.

    Args:
        relevance: The candidates' cosines with the question, ``float32[n]``.
        vectors: Their unit vectors, ``float32[n, dim]``.
        k: At most so many.
        weight: 1: by relevance alone; 0: the most relevant one, then whatever differs most.
    """
    positions: list[int] = []
    redundancy = np.full(len(relevance), -np.inf, np.float32)
    scores = relevance.astype(np.float32)  # a copy: those that were chosen are struck out in it
    for _ in range(min(k, len(relevance))):
        best = int(np.argmax(scores))
        positions.append(best)
        redundancy = np.maximum(redundancy, vectors @ vectors[best])
        scores = weight * relevance - (1 - weight) * redundancy
        scores[positions] = -np.inf
    return positions
