from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.evaluation.metrics import (
    auroc,
    auroc_interval,
    exact_match,
    holds,
    interval,
    roc_points,
    word_f1,
    words,
)

SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("answer", "golds", "em", "f1"),
    [
        ("The Old Mill.", ["old mill"], 1.0, 1.0),
        ("42 desks", ["42", "42 desks"], 1.0, 1.0),
        ("at least five days", ["five days"], 0.0, 2 * 2 / (4 + 2)),
        ("in March 2016", ["March 2016"], 0.0, 2 * 2 / (3 + 2)),
        ("$1,500", ["1,500"], 0.0, 0.0),
        ("", ["Ghent"], 0.0, 0.0),
        ("Ghent", [], 0.0, 0.0),
    ],
)
def test_exact_match_and_f1_by_hand(answer: str, golds: list[str], em: float, f1: float) -> None:
    assert exact_match(answer, golds) == em
    assert word_f1(answer, golds) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("text", "golds", "found"),
    [
        ("The Porto office has 42 desks.", ["42"], 1.0),
        ("Room 1420 is closed.", ["42"], 0.0),
        ("A Las Vegas-based band.", ["las  vegas"], 1.0),
        ("It costs $15.", ["$15"], 1.0),
        ("It costs $150.", ["$15"], 0.0),
        ("anything", [""], 0.0),
    ],
)
def test_a_gold_answer_is_found_as_words_not_as_parts(
    text: str, golds: list[str], found: float
) -> None:
    assert holds(text, golds) == found


@given(st.text(max_size=30), st.text(min_size=1, max_size=10))
def test_scores_agree_about_equal_answers(text: str, gold: str) -> None:
    assert 0 <= word_f1(text, [gold]) <= 1
    assert exact_match(text, [gold]) <= word_f1(text, [gold]) or not words(text)
    assert not exact_match("", [gold]) or not gold.strip()
    assert word_f1(text, [gold]) == pytest.approx(word_f1(gold, [text]))


def naive_auroc(high: list[float], low: list[float]) -> float:
    wins = sum((h > g) + (h == g) / 2 for h in high for g in low)
    return wins / (len(high) * len(low))


@given(SCORES, SCORES)
def test_auroc_counts_pairs(high: list[float], low: list[float]) -> None:
    assert auroc(high, low) == pytest.approx(naive_auroc(high, low))
    assert auroc(high, low) + auroc(low, high) == pytest.approx(1)


@given(SCORES, SCORES)
def test_the_area_under_the_roc_points_is_the_auroc(high: list[float], low: list[float]) -> None:
    false, true = roc_points(high, low)
    area = sum(
        (b - a) * (s + t) / 2 for a, b, s, t in zip(false, false[1:], true, true[1:], strict=False)
    )
    assert (false[-1], true[-1]) == (1.0, 1.0)
    assert area == pytest.approx(auroc(high, low))


@given(SCORES)
def test_an_interval_holds_its_mean_and_stays_within_the_values(values: list[float]) -> None:
    found = interval(values)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    assert found.n == len(values)
    assert interval(values) == found  # the same draws every time


def test_more_rows_make_the_interval_narrower() -> None:
    few, many = interval([0, 1] * 10), interval([0, 1] * 1000)
    assert many.high - many.low < (few.high - few.low) / 5
    # 20 coin flips: 1.96 standard errors of sqrt(.25 / 20) are .22
    assert few.high - few.mean == pytest.approx(0.22, abs=0.05)


def test_an_auroc_interval_covers_perfect_and_no_separation() -> None:
    assert auroc_interval([2.0, 3.0], [0.0, 1.0]).low == 1.0
    even = auroc_interval([0.0, 1.0] * 20, [0.0, 1.0] * 20)
    assert even.low < even.mean == 0.5 < even.high


def test_nothing_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        interval([])
    with pytest.raises(ValueError, match="both kinds"):
        auroc([1.0], [])
