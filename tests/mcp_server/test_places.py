"""Slices by place: exact, whatever is asked for, and refused with a reason elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.documents.document import Document
from recallm_core.errors import DocumentError
from recallm_core.mcp_server.places import MOST_PLACES, MOST_QUOTED, exact_quote

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(text=texts, other=texts, edges=st.tuples(st.integers(-3, 45), st.integers(-3, 45)))
def test_a_place_is_its_slice_or_an_error(text: str, other: str, edges: tuple[int, int]) -> None:
    document, second = Document(text, "one"), Document(other, "two")
    start, end = edges
    if not 0 <= start < end <= len(text):
        with pytest.raises(DocumentError, match="is no range of 'one'"):
            exact_quote(document, start, end, [document, second])
        return
    citation = exact_quote(document, start, end, [document, second])["citation"]
    assert citation["text"] == text[start:end]
    assert citation["basis"] == "pointed"
    places = [(o["document_id"], o["start"], o["end"]) for o in citation["occurrences"]]
    assert places[0] == ("one", start, end)
    sources = {"one": text, "two": other}
    assert all(sources[name][a:b] == text[start:end] for name, a, b in places)
    every = [
        (name, at, at + end - start)
        for name, source in sources.items()
        for at in range(len(source))
        if source.startswith(text[start:end], at)
    ]
    assert sorted(places) == sorted(every)


def test_a_very_long_place_is_refused() -> None:
    document = Document("x" * (MOST_QUOTED + 1), "one")
    with pytest.raises(DocumentError, match="quote at most 100,000 at once"):
        exact_quote(document, 0, MOST_QUOTED + 1, [document])


def test_of_very_many_places_the_first_are_listed_and_all_are_counted() -> None:
    data = exact_quote(Document("x" * 1_000, "one"), 5, 6, [Document("xx", "two")])
    assert len(data["citation"]["occurrences"]) == MOST_PLACES
    assert data["places"] == 1_002
    assert data["citation"]["occurrences"][0] == {"document_id": "one", "start": 5, "end": 6}
    assert data["citation"]["ambiguous"] is True
