"""Questions for clauses of plain sentences: what is asked for stands there, and reads well."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recallm_core.train.tasks.clauses import make_clause

SENTENCES = {
    "Trik Turner is a rap rock band founded in Phoenix.": (
        "What is Trik Turner?",
        "a rap rock band founded in Phoenix",
    ),
    "Iain Banks (born 1954) was a Scottish author of novels.": (
        "Who was Iain Banks?",
        "a Scottish author of novels",
    ),
    "The symbol consists of three dots, which form a triangle.": (
        "What does the symbol consist of?",
        "three dots",
    ),
    "Backported APIs allow older code to stay as it is.": (
        "What do Backported APIs allow?",
        "older code to stay as it is",
    ),
    "Early treatment reduces the risk of relapse.": (
        "What reduces the risk of relapse?",
        "Early treatment",
    ),
    "The flag can be used to turn checks off.": (
        "What can the flag be used for?",
        "to turn checks off",
    ),
    "The bridge was closed for a year because of heavy rain.": (
        "Why the bridge was closed for a year?",
        "because of heavy rain",
    ),
    "Users leave the prompt and its menus by pressing escape twice.": (
        "How Users leave the prompt and its menus?",
        "by pressing escape twice",
    ),
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_clause_is_asked_for(sentence: str) -> None:
    made = [make_clause(sentence, random.Random(seed)) for seed in range(60)]
    asked = {(c.question, sentence[c.start : c.end]) for c in made if c is not None}
    assert SENTENCES[sentence] in asked


@pytest.mark.parametrize(
    "sentence",
    [
        "It is a house with a garden and a wall.",
        "These include many of the older streets.",
        "Nothing of that kind was ever seen here.",
        "She is best known for the television shows of her youth.",
        "Short: is a b.",
    ],
)
def test_what_points_back_or_has_no_clause_is_not_asked_about(sentence: str) -> None:
    assert all(make_clause(sentence, random.Random(seed)) is None for seed in range(20))


@given(st.integers(0, 2**32), st.text(max_size=80), st.sampled_from([*SENTENCES]))
@example(59163, "\t", "The symbol consists of three dots, which form a triangle.")
def test_the_answer_is_a_trimmed_piece_of_the_sentence(seed: int, more: str, known: str) -> None:
    for sentence in (more, known + " " + more, more + known):
        clause = make_clause(sentence, random.Random(seed))
        if clause is not None:
            answer = sentence[clause.start : clause.end]
            assert answer
            assert answer == answer.strip(" ,\n\t")
            assert answer not in clause.question


@pytest.mark.timeout(20)
def test_long_lines_are_asked_about_in_no_time() -> None:
    """Nothing is searched in a line that is no sentence, and what is searched is short."""
    for text in ("a " * 100_000, "A" + " b" * 200, "x" * 419, "By by " * 70, "T is " * 84):
        make_clause(text, random.Random(0))
