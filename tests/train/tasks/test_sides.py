"""Sentences with two things of one kind, and answers of many words: what is asked stands there."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recallm_core.train.tasks.sides import sided, sides, state_sides, state_whole, whole, wholes
from recallm_core.train.tasks.templates import relations

SEEDS = st.integers(0, 2**32)


@given(SEEDS, st.integers(0, 6), st.sampled_from([sides, wholes]))
def test_the_answer_stands_in_the_evidence_and_the_question_does_not_hold_it(
    seed: int, sentences: int, make: object
) -> None:
    assert callable(make)
    drawn = make(random.Random(seed), sentences)
    (_, low, high), (_, start, end) = drawn.evidence[0], drawn.answer
    text = drawn.passages[0][1]
    assert low <= start < end <= high <= len(text)
    answer = text[start:end]
    assert answer.strip() == answer
    assert "{" not in text + drawn.question
    assert answer not in drawn.question or len(answer) < 3  # a small count may stand elsewhere
    assert drawn == make(random.Random(seed), sentences)


@pytest.mark.parametrize("relation", sided(), ids=lambda relation: relation.statements[0])
def test_every_statement_has_both_sides_and_no_question_its_answer(relation: object) -> None:
    for statement in relation.statements:  # type: ignore[attr-defined]
        assert statement.count("{A}") == statement.count("{B}") == 1
    for question in relation.asks_first:  # type: ignore[attr-defined]
        assert "{A}" not in question
    for question in relation.asks_second:  # type: ignore[attr-defined]
        assert "{B}" not in question


@given(SEEDS)
@example(2427297)  # a list of the same thing twice
def test_a_whole_answer_has_several_words(seed: int) -> None:
    stated = state_whole(random.Random(seed))
    assert len(stated.text[stated.start : stated.end].split()) > 1
    assert stated.question.endswith("?")


def test_both_sides_of_every_relation_are_asked_for() -> None:
    asked = {state_sides(random.Random(seed)).question.split()[0] for seed in range(400)}
    assert {"Who", "Whom", "When", "Where", "What"} <= asked
    assert len(sided()) > 30
    assert all(statements and questions for _, statements, questions in whole())


def test_nothing_is_said_as_evaluation_says_it() -> None:
    held_out = {s for relation in relations("held-out") for s in relation.statements}
    said = {s for relation in sided() for s in relation.statements}
    assert not held_out & (said | {s for _, statements, _ in whole() for s in statements})
