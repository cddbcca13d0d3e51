from __future__ import annotations

from typing import Any

import pytest

from recallm_core.evaluation.conditions import FREE, HEURISTIC
from recallm_core.evaluation.gates import Bar, Reader, bars, rates
from recallm_core.evaluation.rows import Row
from recallm_core.evaluation.runner import Plan, Results
from recallm_core.evaluation.thought.pairs import DIRECT, OPENED

MAIN, ALONE = "constraint, prior sentences", "prior sentences alone"


def a_row(number: int, score: float, **changes: Any) -> Row:
    scores = dict.fromkeys(("em", "f1", "hit", "found"), score)
    row = {"id": f"{number}-x", "group": "", "answerable": True, "answerability": score}
    timing = {"output_tokens": 11, "cached_tokens": 0, "first_token_seconds": 1.0, "seconds": 1.1}
    quotes = {"spans": 2, "verbatim": 2, "evidence": [], "abstained": False}
    return row | scores | timing | quotes | changes


def results(**suites: dict[str, list[Row]]) -> Results:
    found = Results(Plan(priors=("sentences", "none")))
    for suite, by in suites.items():
        for condition, rows in by.items():
            found.rows[suite.replace("_", "-"), condition] = rows
    return found


def rows(right: int, wrong: int, **changes: Any) -> list[Row]:
    return [a_row(n, float(n < right), **changes) for n in range(right + wrong)]


def bar(found: Results, name: str) -> Bar:
    return next(bar for bar in bars(found) if bar.name.startswith(name))


@pytest.mark.parametrize(
    ("right", "base", "floor", "goal"),
    [(15, 14, True, True), (14, 14, False, False), (14, 13, True, False)],
)
def test_easy_questions_have_to_beat_the_heuristic(
    right: int, base: int, floor: bool, goal: bool
) -> None:
    found = bar(
        results(easy={MAIN: rows(right, 20 - right), HEURISTIC: rows(base, 20 - base)}), "easy"
    )
    assert (found.floor_met, found.goal_met, found.n) == (floor, goal, 20)
    assert found.floor == f"above the heuristic's {base / 20:.2f}"


def test_evidence_is_compared_with_the_prior_alone() -> None:
    by = {MAIN: rows(9, 1), ALONE: rows(9, 1), HEURISTIC: rows(4, 6)}
    hit = bar(results(nq=by), "Natural Questions, evidence hit")
    assert (hit.floor_met, hit.goal_met) == (True, True)
    by[ALONE] = rows(10, 0)
    assert bar(results(nq=by), "Natural Questions, evidence hit").floor_met is False
    assert bar(results(nq=by), "Natural Questions, F1").floor_met is True


def test_two_hops_need_their_lower_bound_above_any_single_sentence() -> None:
    by = {MAIN: rows(14, 6), HEURISTIC: rows(2, 18), ALONE: rows(13, 7)}
    assert bar(results(two_hop=by), "two hops").floor_met is False  # .70, but not surely above .65
    by[ALONE] = rows(5, 15)
    assert bar(results(two_hop=by), "two hops").floor_met is True


def test_length_and_thought_compare_the_same_items_in_pairs() -> None:
    short, long = rows(9, 1, group="1x"), rows(7, 3, group="4x")
    extra = [a_row(99, 0.0, group="4x")]  # has no partner
    found = bar(results(length={MAIN: short + long + extra}), "context 4x")
    assert found.value.startswith("20 points lost")
    assert (found.floor_met, found.goal_met, found.n) == (False, False, 10)


@pytest.mark.parametrize(
    ("after_on", "after_off", "met"),
    [(10, 3, True), (9, 3, True), (8, 3, False), (10, 9, None)],
)
def test_the_constraint_may_keep_a_fifth_of_the_loss(
    after_on: int, after_off: int, met: bool | None
) -> None:
    by = {
        MAIN: rows(10, 0, group=DIRECT) + rows(after_on, 10 - after_on, group=OPENED),
        FREE: rows(9, 1, group=DIRECT) + rows(after_off, 10 - after_off, group=OPENED),
    }
    found = bar(results(thought=by), "lost in thought, once")
    assert found.goal_met is met
    lost = (10 - after_on) * 10, (9 - after_off) * 10
    assert found.value == f"{lost[0]} of 100 points lost with, {lost[1]} of 90 points lost without"


def test_answerability_separates_a_group_from_all_unanswerable_rows() -> None:
    kinds = [
        *(a_row(n, 0.0, answerable=False, answerability=0.5) for n in range(4)),
        *(a_row(n, 1.0, group="easy", answerability=0.9) for n in range(4)),
        *(a_row(n, 1.0, group="hard", answerability=0.5) for n in range(4)),
    ]
    found = results(missing={MAIN: kinds})
    areas = [Reader(found).auroc("missing", "", group) for group in ("easy", "hard", "")]
    assert [area and area.mean for area in areas] == [1.0, 0.5, 0.75]
    assert bar(found, "not in the documents").floor_met is True


def test_speed_counts_fresh_prompts_from_the_first_token_on() -> None:
    timed = [a_row(0, 1.0), a_row(1, 1.0, cached_tokens=5), a_row(2, 1.0, output_tokens=1)]
    after, whole = rates(timed)
    assert after == [pytest.approx(100)]
    assert whole == [pytest.approx(10)]


def test_a_quote_that_is_no_slice_breaks_the_bar() -> None:
    fine = rows(3, 0)
    assert bars(results(easy={MAIN: fine}))[0].floor_met is True
    fine[1]["evidence"] = [{"text": "x", "document": "d", "exact": False}]
    assert bars(results(easy={MAIN: fine}))[0].floor_met is False


def test_a_run_without_rows_has_no_bars() -> None:
    assert bars(results()) == []
