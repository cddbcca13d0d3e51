from __future__ import annotations

import random

import pytest

from recallm_core.train.tasks.cloze import ask_in_place, make_cloze
from recallm_core.train.tasks.datasets import Fact, Pool
from recallm_core.train.tasks.tasks import SIZES, Mixture, answer_shape
from recallm_core.train.tasks.templates import make_page, relations

FACT = Fact("Ferry", "Boats are red. The ferry leaves at nine. It rains.", "When?", "nine", 35)
POOL = Pool(
    (FACT,), (Fact("x", "Boats are red.", "Why?", "", -1),), (), (("a", "Sun. Rain."),), (), 0
)


@pytest.mark.parametrize("size", sorted(SIZES))
@pytest.mark.parametrize(
    "task", ["fact", "page", "missing", "absent", "lookup", "two_hop", "chains"]
)
def test_answers_lie_inside_the_last_evidence(task: str, size: str) -> None:
    mixture = Mixture(POOL, {task: 1.0})
    for seed in range(8):
        example = mixture.draw(random.Random(seed), SIZES[size])
        for passage, start, end in example.evidence:
            assert example.passages[passage][1][start:end].strip()
        if example.answer is None:
            assert task in ("missing", "absent")
            continue
        passage, start, end = example.answer
        assert example.evidence[-1][0] == passage
        assert example.evidence[-1][1] <= start < end <= example.evidence[-1][2]


def test_a_fact_keeps_its_answer_in_every_layout() -> None:
    mixture = Mixture(POOL, {"fact": 1.0})
    for seed in range(40):
        example = mixture.draw(random.Random(seed), SIZES["paragraph"])
        assert example.answer is not None
        passage, start, end = example.answer
        assert example.passages[passage][1][start:end] == "nine"


def test_missing_means_that_the_evidence_is_gone() -> None:
    mixture = Mixture(None, {"missing": 1.0})
    example = mixture.draw(random.Random(3), SIZES["short"])
    assert example.answer is None


def test_the_seed_decides() -> None:
    mixture = Mixture(POOL, {"fact": 0.5, "page": 0.5})
    first, second = (mixture.draw(random.Random(5), SIZES["several"]) for _ in range(2))
    assert first == second


def test_unknown_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown tasks"):
        Mixture(None, {"magic": 1.0})


def test_every_relation_has_a_value_and_a_question() -> None:
    for relation in relations():
        assert all(said.count("{V}") == 1 for said in relation.statements)
        assert all("{E}" in asked or "{e}" in asked for asked in relation.questions)


@pytest.mark.parametrize("seed", range(30))
def test_pages_say_their_facts(seed: int) -> None:
    page = make_page(random.Random(seed), 5)
    for question, start, end, answer_start, answer_end in page.facts:
        assert question
        assert start <= answer_start < answer_end <= end <= len(page.text)


def test_a_cloze_asks_for_what_it_cut_out() -> None:
    sentence = "The bridge over the Tay was opened in 1887 by Queen Victoria."
    found = {make_cloze(sentence, random.Random(seed)) for seed in range(20)} - {None}
    assert found
    for cloze in found:
        assert cloze is not None
        answer = sentence[cloze.start : cloze.end]
        assert answer not in cloze.question


def test_a_question_in_place_is_the_sentence_around_its_answer() -> None:
    sentence = "The bridge over the Tay was opened in 1887 by Queen Victoria."
    found = {ask_in_place(sentence, random.Random(seed)) for seed in range(60)} - {None}
    assert len({(c.start, c.end) for c in found if c is not None}) > 1
    for cloze in found:
        assert cloze is not None
        answer = sentence[cloze.start : cloze.end]
        assert answer not in cloze.question
        kept = cloze.question.rstrip("?").split()
        words = sentence.rstrip(".").split()
        assert len(set(kept) - set(words)) <= 2  # the question word, of one or two words


@pytest.mark.parametrize(
    ("sentence", "answer", "word"),
    [
        ("Send the signed form to desk-2@example.org for your supervisor", "desk-2@example.org",
         "address"),
        ("If you get lost on the way, ask a human in #harbour-help about it", "#harbour-help",
         "channel"),
        ("The tests need at least version 3.11.2 to run on such a machine", "3.11.2", "version"),
        ("the slow ones are left out unless you call ``make slow`` by hand", "make slow", "wh"),
        ("the rules are on https://example.org/rules, and nowhere else", "https://example.org/rules",
         "wh"),
        ("it is looked after by all of the Harbour Works team since then", "Harbour Works", "wh"),
    ],
)  # fmt: skip
def test_what_documentation_holds_is_asked_for(sentence: str, answer: str, word: str) -> None:
    found = {ask_in_place(sentence, random.Random(seed)) for seed in range(60)} - {None}
    asked = [c for c in found if c is not None and sentence[c.start : c.end] == answer]
    assert asked
    assert any(word in cloze.question for cloze in asked)
    assert all(answer not in cloze.question for cloze in asked)


def test_nothing_is_asked_of_a_sentence_too_short_or_without_names() -> None:
    assert ask_in_place("Opened in 1887.", random.Random(0)) is None
    assert ask_in_place("all of it is as it was before they came here", random.Random(0)) is None


def test_shapes() -> None:
    assert answer_shape("18 May 2018") == answer_shape("1 June 20")
    assert answer_shape("the old town") == answer_shape("a")
    assert answer_shape("Ann Lee") != answer_shape("ann")
