"""Which recalled evidence led to the answer: chains from the question, and what it names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.answers.answer import Citation
from recallm_core.answers.attribution import resolve
from recallm_core.answers.hops import hops, names
from recallm_core.answers.trace import AnswerText, Reasoning, RecallSpan, Trace
from recallm_core.documents.document import Document, Location, Passage

FILM = "Night Harbour is a film that Mira Kovalenko directed in 1931."
BIRTH = "She was born in Lisbon and moved north."
FERRY = "The ferry leaves the old pier at noon."
OTHER = "Winter Light is a film of 1938."
PASSAGES = (
    Passage("film", 0, len(FILM), FILM, title="Night Harbour"),
    Passage("person", 0, len(BIRTH), BIRTH, title="Mira Kovalenko"),
    Passage("ferry", 0, len(FERRY), FERRY, title="Timetable"),
    Passage("other", 0, len(OTHER), OTHER, title="Winter Light"),
)
DOCUMENTS = {p.document_id: Document(p.text, p.document_id) for p in PASSAGES}
ASKED = "Where was the director of the film Night Harbour born?"


def recalled(number: int, section: str = "thinking") -> RecallSpan:
    text, name = PASSAGES[number].text, PASSAGES[number].document_id
    place = Location(name, 0, len(text))
    return RecallSpan(text, name, 0, len(text), number, (place,), section, 0, 5)  # type: ignore[arg-type]


def cite(
    answer: str, *spans: RecallSpan, question: str = ASKED, fallback: bool = True
) -> dict[str, Citation]:
    trace = Trace((Reasoning("hm "), *spans, AnswerText(answer)))
    found = resolve(trace, PASSAGES, DOCUMENTS, question=question, fallback=fallback)
    return {c.document_id: c for c in found}


def test_a_hop_that_shares_no_word_with_the_answer_is_cited_for_the_same_range() -> None:
    found = cite("In Lisbon.", recalled(0), recalled(1))
    assert list(found) == ["film", "person"]
    ranges = {(c.answer_start, c.answer_end) for c in found.values()}
    assert ranges == {(0, 9)}  # In Lisbon


def test_what_leads_nowhere_is_not_cited() -> None:
    assert list(cite("In Lisbon.", recalled(2), recalled(0), recalled(3), recalled(1))) == [
        "film",
        "person",
    ]
    unnamed = "Where was the director of that film born?"
    assert set(cite("In Lisbon.", recalled(0), recalled(1), question=unnamed)) == {"film", "person"}
    assert set(cite("In Lisbon.", recalled(1), recalled(0), question=unnamed)) == {"person"}
    assert list(cite("In Lisbon.", recalled(0), recalled(1), question="")) == ["person"]


def test_a_chain_begins_at_the_question() -> None:
    assert list(cite("In Lisbon.", recalled(0), recalled(1), question="Whose port?")) == ["person"]


def test_both_things_that_a_question_names_are_cited() -> None:
    asked = "Which film is older, Night Harbour or Winter Light?"
    found = cite("Night Harbour.", recalled(0), recalled(2), recalled(3), question=asked)
    assert set(found) == {"film", "other"}
    assert found["other"].answer_start is None
    assert set(cite("Night Harbour.", recalled(0), recalled(3))) == {"film"}


def test_hops_of_what_stands_in_for_the_whole_answer_are_cited_too() -> None:
    found = cite("Nobody knows.", recalled(0), recalled(1))
    assert set(found) == {"film", "person"}
    assert all(c.answer_start is None for c in found.values())
    assert cite("Nobody knows.", recalled(0), recalled(1), fallback=False) == {}


def test_evidence_recalled_for_the_answer_is_always_cited() -> None:
    found = cite("Nobody knows.", recalled(2, "evidence"), recalled(1, "evidence"), fallback=False)
    assert set(found) == {"ferry", "person"}
    assert all(c.answer_start is None for c in found.values())
    found = cite("In Lisbon, at noon.", recalled(2, "evidence"), recalled(1, "evidence"))
    assert (found["person"].answer_start, found["person"].answer_end) == (0, 9)
    assert (found["ferry"].answer_start, found["ferry"].answer_end) == (11, 18)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Tickets cost 14 euros.", {"14"}),
        ("Mira Kovalenko sails. Then Lisbon.", {"mira", "kovalenko", "lisbon"}),
        ("the ferry", set()),
        ("At 9:30 the B12 leaves", {"9", "30", "b12", "b", "12"}),
        ("", set()),
    ],
)
def test_names_are_words_with_a_capital_or_a_digit(text: str, expected: set[str]) -> None:
    assert names(text) == expected


@given(st.lists(st.integers(0, 3), max_size=6), st.data())
def test_hops_are_new_and_come_with_a_range_that_is_cited(
    order: list[int], data: st.DataObject
) -> None:
    spans = [recalled(number) for number in order]
    numbers = st.sets(st.integers(0, len(spans) - 1)) if spans else st.just(set())
    ranges = {number: (0, number + 1) for number in data.draw(numbers)}
    found = hops(spans, ranges, ASKED, PASSAGES)
    assert not found.keys() & ranges.keys()
    assert set(found.values()) <= {*ranges.values(), (None, None)}
    assert all(0 <= number < len(spans) for number in found)
