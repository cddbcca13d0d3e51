"""How right answers are, by each kind of key."""

from __future__ import annotations

import pytest

from recallm_core.train.grpo.answers import answer_score, final_answer, ndcg
from recallm_core.train.tasks.families.problem import Key

VALUES = Key("values", (("4711",), ("0815",)))
RANKING = Key("ranking", grades=(("1", 0.0), ("2", 2.0), ("3", 1.0)))
CITED = Key("cited", (("Ann",), ("Bob", "Robert")), references=("2", "5"))

CASES = [
    (VALUES, "4711, 0815", 1.0),
    (VALUES, "4711 and 9999", 0.0),
    (VALUES, "0815", 0.5),
    (VALUES, "14711, 0815", 0.0),
    (Key("solved", (("kx9",),), "12"), "kx9", 1.0),
    (Key("solved", (("kx9",),), "12"), "the key is 12", 0.25),
    (Key("solved", (("kx9",),), "12"), "the key is 120", 0.0),
    (Key("boxed", (("7",),)), r"so \boxed{7}", 1.0),
    (Key("boxed", (("7",),)), r"\boxed{7} or \boxed{8}", 0.0),
    (Key("boxed", (("7",),)), "7.", 1.0),
    (Key("label", (("card_arrival",),)), "Card arrival", 1.0),
    (Key("label", (("card_arrival",),)), "card", 0.0),
    (Key("choice", (("B",),)), "B. the second", 1.0),
    (Key("choice", (("B",),)), "A, or B", 0.0),
    (Key("words", (("the Hague", "Den Haag"),)), "It is Den Haag.", 1.0),
    (Key("words", (("the Hague",),)), "Hague", 1.0),
    (Key("words", (("the Hague",),)), "the", 0.0),
    (Key("words", (("the Hague",),)), ".", 0.0),
    (Key("words", (("art",),)), "a party", 0.0),
    (RANKING, "2 > 3 > 1", 1.0),
    (RANKING, "2 > 2 > 3", 1.0),
    (RANKING, "3 > 2", 0.8597187),
    (RANKING, "8 > 9", 0.0),
    (CITED, "Ann [2], Robert [5]", 1.0),
    (CITED, "Ann [2]", 0.8 * 2 / 3 + 0.1),
    (CITED, "Carol [1]", 0.0),
    (CITED, "[2] [5]", 0.8),
]


@pytest.mark.parametrize(("key", "answer", "score"), CASES)
def test_an_answer_is_as_right_as_its_key_says(key: Key, answer: str, score: float) -> None:
    assert answer_score(answer, key) == pytest.approx(score, abs=1e-6)


def test_only_the_last_answer_line_counts() -> None:
    assert final_answer("Answer: 1\nno:\nAnswer: 2\n") == "2"
    assert final_answer("My answer: 2") is None
    assert final_answer("It is 2") is None
    assert answer_score(None, VALUES) == 0


def test_the_gain_of_a_ranking_is_linear_and_cut_at_ten() -> None:
    assert ndcg([0] * 10 + [3], [3]) == 0
    assert ndcg([1, 2], [2, 1]) == pytest.approx((1 + 2 / 1.5849625) / (2 + 1 / 1.5849625))
    assert ndcg([], []) == 0
