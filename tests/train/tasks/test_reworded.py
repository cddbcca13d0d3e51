"""Questions in other words keep their sense, and those about other things have no answer."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.text.lexical import terms
from recallm_core.train.tasks.datasets import Fact
from recallm_core.train.tasks.reworded import Thesaurus, names_in, rename, shorten

TEXTS = [
    "The doctor began her work. The physician must start before the children come, and the kids "
    "leave when movies begin. The film was founded by employees; workers established it.",
    "Its cost is high: the price of a ticket and what is expensive.",
]
TEXT = "In 1904 the harbour of Skerry was built by Ann Lee. Later Oslo bought it."
FACT = Fact("Harbours", TEXT, "Who built the harbour of Skerry?", "Ann Lee", TEXT.index("Ann Lee"))
NAMES = ["Rome", "Port Hallow", "Skerry", "Bergen", "Bo Ek"]


@pytest.fixture(scope="module")
def thesaurus() -> Thesaurus:
    return Thesaurus(TEXTS)


def test_words_that_mean_the_same_are_found(thesaurus: Thesaurus) -> None:
    assert "physician" in thesaurus.like("doctor")
    assert "kids" in thesaurus.like("children")
    assert "established" in thesaurus.like("founded")
    assert not thesaurus.like("harbour")


def test_forms_of_a_word_are_not_another(thesaurus: Thesaurus) -> None:
    for word in re.findall(r"[a-z]{4,}", " ".join(TEXTS)):
        for other in thesaurus.like(word):
            assert terms(word) != terms(other)
            assert word not in other


@given(st.integers(0, 2**32), st.text(max_size=60))
def test_only_plain_words_change(thesaurus: Thesaurus, seed: int, rest: str) -> None:
    question = f"When does the doctor of {rest} start?"
    found = thesaurus.reword(question, random.Random(seed))
    known = {w: thesaurus.like(w) for w in re.findall(r"[a-z]+", question)}
    pattern = "".join(
        f"(?:{'|'.join(map(re.escape, (part, *known.get(part, ()))))})"
        for part in re.split(r"([a-z]+)", question)
    )
    assert re.fullmatch(pattern, found)
    assert found.startswith("When does the ")


def test_a_question_is_reworded_at_times(thesaurus: Thesaurus) -> None:
    question = "When did the doctor begin?"
    found = {thesaurus.reword(question, random.Random(seed)) for seed in range(40)}
    assert question in found
    assert "When did the physician start?" in found


def test_without_texts_nothing_changes() -> None:
    assert Thesaurus(()).reword("When did the doctor begin?", random.Random(0)).endswith("begin?")


@pytest.mark.parametrize("question", [FACT.question, FACT.question.lower()])
def test_another_name_takes_a_names_place(question: str) -> None:
    fact = Fact(FACT.title, FACT.text, question, FACT.answer, FACT.start)
    found = {rename(fact, NAMES, random.Random(seed)) for seed in range(40)}
    before, after = question[: question.lower().index("skerry")], "?"
    names = {made.question[len(before) : -1] for made in found if made is not None}
    assert names == ({"Rome", "Bergen"} if question == FACT.question else {"rome", "bergen"})
    for made in found:
        assert made is not None
        assert made.question.endswith(after)
        assert (made.answer, made.start, made.text) == ("", -1, TEXT)


def test_what_names_nothing_of_its_passage_stays() -> None:
    fact = Fact("", TEXT, "When was Tor built?", "1904", TEXT.index("1904"))
    assert rename(fact, NAMES, random.Random(0)) is None
    assert rename(FACT, ["Skerry", "Oslo"], random.Random(0)) is None  # its passage has them all


def test_names_stand_within_sentences() -> None:
    assert names_in([TEXT]) == ["Ann Lee", "Oslo", "Skerry"]


@given(
    st.lists(st.sampled_from(["the", "of", "Who", "built", "is", "harbour"])), st.integers(0, 99)
)
def test_a_shorter_question_lacks_only_small_words(words: list[str], seed: int) -> None:
    shorter = shorten(" ".join(words), random.Random(seed)).split()
    rest = iter(words)
    assert all(word in rest for word in shorter)  # in their order
    assert [w for w in shorter if len(w) > 3 or w == "Who"] == [
        w for w in words if len(w) > 3 or w == "Who"
    ]
    assert len(shorter) > 2 or shorter == words


def test_small_words_go_about_half_of_the_time() -> None:
    question = "Who is the head of the harbour in the north?"
    lengths = {len(shorten(question, random.Random(seed)).split()) for seed in range(60)}
    assert min(lengths) <= 6
    assert max(lengths) >= 9
