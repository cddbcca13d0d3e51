from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.evaluation.heuristic import heuristic_answer


@pytest.mark.parametrize(
    ("question", "text", "answer"),
    [
        ("Who runs the port?", "Ships come. The port is run by Ann Lee.", "Ann Lee"),
        ("How much is a ticket?", "A ticket is $12 for all.", "$12"),
        ("When did it open?", "It is red. The mill opened on 3 May 1901.", "3 May 1901"),
        ("How long is the trip?", "The trip takes 35 minutes.", "35 minutes"),
        ("Where does the cluster run?", "The cluster runs in Milan.", "Milan"),
    ],
)
def test_the_type_of_the_question_decides(question: str, text: str, answer: str) -> None:
    guess = heuristic_answer(question, [text])
    assert guess is not None
    assert guess.answer == answer


@given(st.text(max_size=40), st.lists(st.text(max_size=60), max_size=4))
def test_the_answer_is_a_piece_of_its_sentence(question: str, texts: list[str]) -> None:
    guess = heuristic_answer(question, texts)
    if guess is None:
        assert not any(text.strip() for text in texts)
    else:
        assert guess.answer in texts[guess.passage][guess.start : guess.end]
