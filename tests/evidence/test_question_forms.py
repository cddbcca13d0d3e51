"""Forms of questions: what is read off their words, and what is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.evidence.question_forms import (
    asks_for_a_date,
    asks_for_a_list,
    asks_for_a_measure,
    asks_for_an_account,
    asks_for_one_end,
    asks_for_several,
    asks_yes_or_no,
)

FORMS = (
    asks_yes_or_no,
    asks_for_several,
    asks_for_a_measure,
    asks_for_a_date,
    asks_for_one_end,
    asks_for_a_list,
    asks_for_an_account,
)


@pytest.mark.parametrize(
    "question",
    [
        "Is the library open on Mondays?",
        "does the ferry run in winter",
        "Wasn't Ann Lee the first captain?",
        "I read the page. And can dogs come along?",
    ],
)
def test_yes_or_no_is_asked(question: str) -> None:
    assert asks_yes_or_no(question)


@pytest.mark.parametrize(
    "question",
    [
        "",
        "When does the ferry leave?",
        "Is it red or blue?",
        "Can you tell me when it opens?",
        "Do you know who runs the harbour?",
        "Is this the right page? What does the ferry cost?",
        "Island of the ferry?",
        "The ferry is late?",
    ],
)
def test_something_else_is_asked(question: str) -> None:
    assert not asks_yes_or_no(question)


def test_several_things_are_asked_for() -> None:
    assert asks_for_several("Which three colours are on the flag?")
    assert asks_for_several("name the 2 largest towns")
    assert not asks_for_several("How many of the three colours are dark?")
    assert not asks_for_several("Which three hundred people came?")
    assert not asks_for_several("What year did Seven Sisters open?")
    assert not asks_for_several("Which colour is on the flag?")


def test_a_year_is_no_date() -> None:
    assert asks_for_a_date("When did it open?")
    assert asks_for_a_date("On which date did it open?")
    assert not asks_for_a_date("When, in what year, did it open?")
    assert not asks_for_a_date("In what month did it open?")


def test_a_measure_is_no_number_of_things() -> None:
    assert asks_for_a_measure("How deep is the lake?")
    assert not asks_for_a_measure("How many lakes are there, and how did they come about?")


def test_one_end_of_a_range_may_be_asked_for() -> None:
    assert asks_for_one_end("When was Ann Lee born?")
    assert not asks_for_one_end("How long does it take?")


@given(st.text(max_size=80))
def test_any_text_may_be_asked(question: str) -> None:
    for form in FORMS:
        assert form(question) in (True, False)


@pytest.mark.parametrize(
    "question",
    [
        "Why is it closed?",
        "How does the pump start?",
        "Tell me: how can I reach it?",
        "Explain the fee.",
        "What are the differences between them?",
    ],
)
def test_questions_for_an_account(question: str) -> None:
    assert asks_for_an_account(question)


@pytest.mark.parametrize(
    "question", ["How many rooms has it?", "How deep is the lake?", "Who knows?", "When?", ""]
)
def test_questions_for_a_phrase(question: str) -> None:
    assert not asks_for_an_account(question)
    assert not asks_for_a_list(question)


@pytest.mark.parametrize(
    "question",
    [
        "What are all the magic numbers for Ann mentioned here?",
        "Please list the tools.",
        "Find all variables that are 5.",
        "Who were the 12 apostles?",
        "Which three colours are on it?",
        "Who built the pier and when?",
        "How long does it take, and from where does it leave?",
    ],
)
def test_questions_for_a_list(question: str) -> None:
    assert asks_for_a_list(question)


@pytest.mark.parametrize(
    "question", ["Who leads the list of all time?", "What is it all about?", "Who was the 3rd?"]
)
def test_words_of_lists_that_ask_for_none(question: str) -> None:
    assert not asks_for_a_list(question)
