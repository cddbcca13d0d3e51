"""Maximal marginal relevance: the definition, and an index that chooses by it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core import CorpusIndex, Document
from recallm_core.retrieval.diversity import diverse
from recallm_core.retrieval.embedding import Floats, GivenVectors


def unit_rows(seed: int, count: int, dim: int = 5) -> Floats:
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    found: Floats = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return found


def naive(relevance: Floats, vectors: Floats, k: int, weight: float) -> list[int]:
    chosen: list[int] = []
    while len(chosen) < min(k, len(relevance)):
        scores = {
            n: weight * float(relevance[n])
            - (1 - weight) * max(float(vectors[n] @ vectors[c]) for c in chosen)
            if chosen
            else float(relevance[n])
            for n in range(len(relevance))
            if n not in chosen
        }
        chosen.append(max(scores, key=lambda n: scores[n]))
    return chosen


sizes, seeds = st.integers(0, 12), st.integers(0, 1000)


@given(seeds, sizes, st.integers(0, 15), st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]))
def test_the_choice_is_the_definition(seed: int, count: int, k: int, weight: float) -> None:
    vectors, asked = unit_rows(seed, count), unit_rows(seed + 1, 1)[0]
    relevance = (vectors @ asked).astype(np.float32)
    chosen = diverse(relevance, vectors, k, weight)
    assert len(set(chosen)) == len(chosen) == min(k, count)
    expected = naive(relevance, vectors, k, weight)
    gained = [relevance[n] for n in chosen]
    assert chosen == expected or np.allclose(gained, [relevance[n] for n in expected], atol=1e-5)


def index_of(vectors: Floats) -> CorpusIndex:
    index = CorpusIndex(GivenVectors(vectors.shape[1]))
    for number, vector in enumerate(vectors):  # several parts
        index.add_vectors([Document(f"text {number}", str(number))], vector[None])
    return index


@given(seeds, st.integers(1, 9), st.integers(0, 9))
def test_by_relevance_alone_it_is_the_nearest(seed: int, count: int, k: int) -> None:
    index, asked = index_of(unit_rows(seed, count)), unit_rows(seed + 1, 1)[0]
    nearest = [hit.document_id for hit in index.search_documents(asked, k)]
    found = index.search_diverse(asked, k, relevance=1.0)
    assert [hit.document_id for hit in found] == nearest
    assert nearest == [hit.document_id for hit in index.search_vector(asked, k)]


def test_what_says_the_same_comes_last() -> None:
    vectors = np.array([[1, 0.1, 0], [1, 0.11, 0], [0.6, 0, 0.8]], np.float32)
    index, asked = index_of(vectors), np.array([2, 0, 0], np.float32)
    assert [h.document_id for h in index.search_documents(asked, 2)] == ["0", "1"]
    assert [h.document_id for h in index.search_diverse(asked, 2)] == ["0", "2"]
    index.delete(["2"])
    assert [h.document_id for h in index.search_diverse(asked, 3)] == ["0", "1"]
    only = index.search_diverse(asked, 3, where=lambda metadata: False)
    assert only == []


def test_of_a_long_document_the_nearest_chunk_stands_for_it() -> None:
    long = " ".join(f"Fact {n} is about lamp number {n}." for n in range(300))
    index = CorpusIndex.build([Document(long, "long"), Document("The ferry leaves at 9.", "ferry")])
    asked = index.embedder.encode_query("lamp number 250")
    hits = index.search_diverse(asked, 5)
    assert [hit.document_id for hit in hits] == ["long", "ferry"]
    assert long[hits[0].start : hits[0].end] == hits[0].text
    assert hits[0].score == pytest.approx(index.search_vector(asked, 1)[0].score)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": -1}, "must not be negative"),
        ({"fetch_k": -1}, "must not be negative"),
        ({"relevance": 1.5}, r"relevance must be a number in \[0, 1\], got 1.5"),
        ({"relevance": float("nan")}, "relevance must be"),
    ],
)
def test_wrong_numbers_are_refused(options: dict[str, float], message: str) -> None:
    index, asked = index_of(unit_rows(0, 2)), unit_rows(1, 1)[0]
    with pytest.raises(ValueError, match=message):
        index.search_diverse(asked, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="finite numbers"):
        index.search_documents(asked[:2])
