from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recallm_core import CorpusIndex, Document
from recallm_core.errors import CorpusIndexError
from recallm_core.retrieval.embedding import GivenVectors

numbers = st.floats(-2, 2, width=32) | st.floats(width=32, allow_nan=False, allow_infinity=False)
operations = st.lists(
    st.tuples(st.booleans(), st.integers(0, 7), st.tuples(numbers, numbers, numbers)), max_size=20
)


def array(*rows: Any) -> np.ndarray[Any, Any]:
    return np.array(rows, np.float32)


def filled() -> CorpusIndex:
    index = CorpusIndex(GivenVectors(2))
    documents = [
        Document("one", "a", metadata={"year": 1}),
        Document("two " * 3000, "b", "Title", {"year": 2}),
        Document("", "c"),
    ]
    index.add_vectors(documents, array([2, 0], [3, 4], [0, 1]))
    return index


def cosine(one: Any, other: Any) -> float:
    one, other = np.array(one, np.float64), np.array(other, np.float64)
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / length if length else 0.0


def test_documents_are_found_whole_by_the_cosine_of_their_vectors(tmp_path: Path) -> None:
    index = filled()
    index.save(tmp_path)
    for each in (index, CorpusIndex.open(tmp_path, GivenVectors(0))):
        found = each.search_vector(array(10, 0), 3)
        assert [hit.document_id for hit in found] == ["a", "b", "c"]
        assert [hit.score for hit in found] == pytest.approx([1, 0.6, 0], abs=1e-3)
        assert found[1].text == each.documents["b"].text
        later = each.search_vector(array(10, 0), 3, where={"year": 2})
        assert [hit.document_id for hit in later] == ["b"]
        assert each.matching() == ["a", "b", "c"]
        assert each.matching({"year": 1}) == ["a"]
        assert each.search("two", 1, mode="lexical")[0].document_id == "b"


@settings(max_examples=40)
@given(operations=operations, asked=st.tuples(numbers, numbers, numbers), k=st.integers(0, 9))
@example(operations=[(True, 0, (0.0, 0.0, 2.0**-80))], asked=(0.0, 0.0, 1.0), k=1)
@example(operations=[(True, 0, (0.0, 2.0**-149, 0.0))], asked=(0.0, 2.0**100, 2.0**100), k=1)
def test_any_changes_leave_what_brute_force_finds(operations: Any, asked: Any, k: int) -> None:
    index, known = CorpusIndex(GivenVectors(3)), {}
    for adds, number, vector in operations:
        name = f"n{number}"
        if adds:
            index.add_vectors([Document("same text", name)], array(vector))
            known[name] = vector
        elif name in known:
            index.delete([name])
            del known[name]
    found = index.search_vector(array(*asked), k)
    best = sorted((cosine(vector, asked) for vector in known.values()), reverse=True)[:k]
    assert [hit.score for hit in found] == pytest.approx(best, abs=1e-3)
    for hit in found:
        assert cosine(known[hit.document_id], asked) == pytest.approx(hit.score, abs=1e-3)


def test_the_same_text_with_another_vector_is_another_document() -> None:
    index = filled()
    index.add_vectors([index.documents["a"]], array([0, -1]))
    assert index.search_vector(array(0, -1), 1)[0].document_id == "a"
    assert index.stats().documents == 3


def test_what_is_asked_for_is_left_as_it_was() -> None:
    asked, given_vectors = array(10, 0), array([5, 5])
    index = filled()
    index.search_vector(asked)
    index.add_vectors([Document("d", "d")], given_vectors)
    assert asked.tolist() == [10, 0]
    assert given_vectors.tolist() == [[5, 5]]


def test_wrong_vectors_are_refused_with_words() -> None:
    index = filled()
    one = [Document("x", "x")]
    for vectors in (array([1, 2, 3]), array([1, float("nan")]), array([1, 2], [3, 4]), array(1, 2)):
        with pytest.raises(ValueError, match="expected 1 vectors of 2 finite numbers"):
            index.add_vectors(one, vectors)
    with pytest.raises(ValueError, match="once"):
        index.add_vectors(one * 2, array([1, 2], [3, 4]))
    for vector in (array(1, 2, 3), array(1, float("inf")), array([1, 2])):
        with pytest.raises(ValueError, match="2 finite"):
            index.search_vector(vector)
    with pytest.raises(ValueError, match="negative"):
        index.search_vector(array(1, 2), -1)
    with pytest.raises(ValueError, match="search_vector"):
        index.search("words")
    with pytest.raises(ValueError, match="add_vectors"):
        index.add(["text"])
    assert index.matching() == ["a", "b", "c"]


def test_an_index_of_given_vectors_opens_with_its_size_or_none(tmp_path: Path) -> None:
    filled().save(tmp_path)
    again = CorpusIndex.open(tmp_path, GivenVectors(0))
    again.add_vectors([Document("d", "d")], array([1, 1]))
    again.save()
    assert CorpusIndex.open(tmp_path, GivenVectors(2)).matching() == ["a", "b", "c", "d"]
    for other in (GivenVectors(3), None):
        with pytest.raises(CorpusIndexError, match="'given'"):
            CorpusIndex.open(tmp_path, other)


def test_many_equal_vectors_are_found_beside_better_ones() -> None:
    index = CorpusIndex(GivenVectors(2))
    names = [f"n{number:04}" for number in range(900)]
    index.add_vectors(
        [Document(name, name) for name in names], array([1, 0], *[[1, 1]] * (len(names) - 1))
    )
    assert [hit.document_id for hit in index.search_vector(array(1, 0), 10)] == names[:10]
