from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.evidence.answer_types import answer_starts, typed_candidates


@pytest.mark.parametrize(
    ("question", "sentence", "first"),
    [
        ("Who runs the port?", "The port is run by Ann Lee.", "Ann Lee"),
        ("How much is a ticket?", "A ticket is $12 for all 3 days.", "$12"),
        ("When did it open?", "The mill opened on 3 May 1901.", "3 May 1901"),
        ("How long is the trip?", "Each of 4 trips takes 35 minutes.", "35 minutes"),
    ],
)
def test_the_type_asked_for_comes_first(question: str, sentence: str, first: str) -> None:
    start, end = next(typed_candidates(question, sentence))
    assert sentence[start:end] == first
    starts = answer_starts(question, sentence)
    assert starts[start] == max(starts.values()) == 1.0


def test_what_the_question_says_is_left_out() -> None:
    found = [(a, b) for a, b in typed_candidates("Who met Ann Lee?", "Ann Lee met Bo Ek.")]
    assert (0, 7) not in found


def test_no_known_type_gives_no_preference() -> None:
    assert answer_starts("Name the colours.", "Red and blue.") == {}


@given(st.text(max_size=40), st.text(max_size=80))
def test_ranges_lie_inside_the_sentence(question: str, sentence: str) -> None:
    for start, end in typed_candidates(question, sentence):
        assert 0 <= start < end <= len(sentence)
    assert all(0 < weight <= 1 for weight in answer_starts(question, sentence).values())
