"""How a question becomes a ranking of chunks: by words, by vectors, by both."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from recallm_core.documents.document import (
    check_text,
)
from recallm_core.inputs.arguments import shown, whole_number
from recallm_core.retrieval import ranking
from recallm_core.retrieval.embedding import Embedder, Floats, unit
from recallm_core.retrieval.ranking import State, Where

Mode = Literal["hybrid", "dense", "lexical"]

_LEXICAL_WEIGHT = 2.0  # of the words' ranking beside a static table's; 1 beside a real encoder's


def direction(vector: Floats, k: int, dim: int) -> Floats:
    """Returns a question's vector at length 1.

    Raises:
        ValueError: It can't be searched for.
    """
    whole_number("k", k)
    vector = numbers("vector", vector)
    if vector.shape != (dim,) or not np.isfinite(vector).all():
        raise ValueError(f"expected a vector of {dim} finite numbers, got shape {vector.shape}")
    unit_vector: Floats = unit(np.array([vector], np.float32))[0]
    return unit_vector


def nearest(state: State, query: Floats, k: int, where: Where | None) -> list[tuple[int, float]]:
    """Returns the numbers of the nearest chunks over all parts, with their cosines."""
    allowed = [ranking.allowed_chunks(part, where) for part in state.parts]
    depth, total = max(2 * k, 200), state.firsts[-1]
    scores = ranking.nearest_chunks(state, query, depth, allowed)
    while len(scores) < k and depth < total:  # so many equal ones that all were left out
        depth = min(4 * depth, total)
        scores = ranking.nearest_chunks(state, query, depth, allowed)
    return ranking.best_chunks(state, scores, k)


def nearest_documents(
    state: State, query: Floats, k: int, where: Where | None
) -> list[tuple[int, float]]:
    """Returns the same, but of each document only the nearest chunk."""
    total = state.firsts[-1]
    depth = min(2 * k, total)
    while True:
        chunks = nearest(state, query, depth, where)
        documents = ranking.by_document(state, chunks)
        if len(documents) >= k or len(chunks) < depth or depth >= total:
            return documents[:k]
        depth = min(4 * depth, total)


def rank(
    state: State, embedder: Embedder, question: str, k: int, mode: Mode, where: Where | None
) -> list[tuple[int, float]]:
    """Returns the numbers of the best chunks over all parts, with their scores."""
    check_text(question, "a question")
    k = whole_number("k", k)
    if mode not in ("hybrid", "dense", "lexical"):
        raise ValueError(f"mode must be 'hybrid', 'dense' or 'lexical', got {mode!r}")
    depth = max(2 * k, 200)
    allowed = [ranking.allowed_chunks(part, where) for part in state.parts]
    rankings = []
    if mode != "dense":
        rankings.append(
            (_lexical_weight(embedder), ranking.by_words(state, question, depth, allowed))
        )
    if mode != "lexical":
        query = embedder.encode_query(question)
        rankings.append((1.0, ranking.by_vectors(state, query, depth, allowed)))
    fused = rankings[0][1] if len(rankings) == 1 else ranking.fuse_ranks(rankings)
    return ranking.best_chunks(state, fused, k)


def _lexical_weight(embedder: Embedder) -> float:
    return _LEXICAL_WEIGHT if embedder.fingerprint.startswith("static-") else 1.0


def numbers(name: str, value: Any) -> Floats:
    """Returns vectors as an array of numbers, whatever they come as."""
    try:
        return np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be an array of numbers, got {shown(value)}") from error
