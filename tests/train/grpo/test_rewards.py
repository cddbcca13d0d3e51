"""The reward by hand-computed table, and what must hold whatever a model writes."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.answers.trace import AnswerText, Reasoning, RecallSpan, Segment, Trace
from recallm_core.documents.document import Location
from recallm_core.train.grpo.response import Response
from recallm_core.train.grpo.rewards import (
    RewardRules,
    combine,
    density_score,
    overlap_score,
    range_f1,
    reward,
)
from recallm_core.train.tasks.families.problem import Gold, Key, Problem, Scoring
from recallm_core.train.tasks.training_example import Quote

TEXT = "alpha: 42\n" * 20  # lines of ten characters
RIGHT, WRONG = "Answer: 42", "Answer: 7"


def problem(*golds: tuple[int, int], **changes: Any) -> Problem:
    ranges = tuple(Gold(Quote(0, a, b)) for a, b in golds or ((0, 10),))
    key = Key("words", (("42",),))
    return replace(Problem("recall", "t", (("", TEXT),), "?", key, ranges), **changes)


def span(start: int, end: int, document: str = "d0", also: tuple[Location, ...] = ()) -> RecallSpan:
    text = TEXT[start:end]
    return RecallSpan(text, document, start, end, 0, also, "thinking", 0, 3)


def response(*spans: RecallSpan, answer: str = RIGHT, **changes: Any) -> Response:
    segments: tuple[Segment, ...] = (Reasoning("so"), *spans, AnswerText(answer))
    count = len(spans)
    base = Response(Trace(segments), tokens=100, opened=count, closed=count)
    return replace(base, **changes)


WHOLE, HALF = span(0, 10), span(0, 5)
LABELLED = problem()
LABELLED = replace(LABELLED, golds=(Gold(Quote(0, 0, 10), Quote(0, 0, 5)),))

# what was written, the problem, and (format, answer, overlap, usage, density, overlong, total)
TABLE = [
    (response(WHOLE), problem(), (1, 1, 1, 1, 1, 1, 1.0)),
    (response(), problem(), (1, 1, 0, 1, 1, 1, 0.4361995)),
    (response(HALF), problem(), (1, 1, 0.7407407, 1, 1, 1, 0.8924579)),
    (response(WHOLE, answer=WRONG), problem(), (1, 0, 1, 1, 1, 1, 0.4361995)),
    (response(WHOLE, answer="42"), problem(), (0, 0, 1, 1, 1, 1, 0.2361995)),
    (response(WHOLE, answer=f"{RIGHT}\n{RIGHT}"), problem(), (0, 1, 1, 1, 1, 1, 0.8)),
    (response(WHOLE, answer="Answer:"), problem(), (0, 0, 1, 1, 1, 1, 0.2361995)),
    (response(WHOLE, thinking_ends=0), problem(), (0, 1, 1, 1, 1, 1, 0.8)),
    (response(WHOLE, tokens=4608), problem(), (1, 1, 1, 1, 1, 0.5, 0.5)),
    (response(WHOLE, tokens=5120), problem(), (1, 1, 1, 1, 1, 0, 0.0)),
    (response(WHOLE, opened=2), problem(), (1, 1, 1, 0, 1, 1, 0.4361995)),
    (response(WHOLE, WHOLE, WHOLE, span(0, 4)), problem(), (1, 1, 1, 0.5, 0.0575117, 1, None)),
    (response(*[WHOLE] * 10, tokens=1024), problem(), (1, 1, 1, 1, 0.5, 1, None)),
    (response(WHOLE), problem((0, 10), (50, 60)), (1, 1, 0.5, 1, 1, 1, 0.7830819)),
    (response(span(0, 4)), LABELLED, (1, 1, 0.3174603, 0, 1, 1, 0.4361995)),
    (response(answer="Answer: the"), problem(), (1, 0, 0, 1, 1, 1, 0.2)),
]


@pytest.mark.parametrize(("written", "asked", "parts"), TABLE)
def test_the_reward_of_an_authored_trace_equals_the_table(
    written: Response, asked: Problem, parts: tuple[float | None, ...]
) -> None:
    got = reward(written, asked)
    names = ("format", "answer", "overlap", "usage", "density", "overlong", "total")
    for name, value in zip(names, parts, strict=True):
        if value is not None:
            assert getattr(got, name) == pytest.approx(value, abs=1e-6), name


def test_each_ablation_is_a_switch() -> None:
    bad = response(span(50, 53), opened=2)
    assert reward(bad, problem()).retrieval == 0
    assert reward(bad, problem(), RewardRules(overlap=False)).overlap == 1
    assert reward(bad, problem(), RewardRules(overlap=False, penalties=False)).retrieval == 1
    learning = problem(family="in_context_learning", scoring=Scoring("top", 0.95, top=2))
    assert reward(bad, learning).overlap == 0
    assert reward(bad, learning, RewardRules(label_overlap=False)).overlap == 1


def test_families_reward_overlap_in_their_own_ways() -> None:
    golds = ((0, 10), (50, 60), (100, 110))
    one = (span(0, 10), span(50, 55))
    assert overlap_score(one, problem(*golds, scoring=Scoring("top", 0.4, top=1))) == 1
    top_two = overlap_score(one, problem(*golds, scoring=Scoring("top", 0.9, top=2)))
    assert top_two == pytest.approx((1 + 2 / 3 / 0.9) / 2)
    assert overlap_score((), problem(scoring=Scoring("always"))) == 1
    assert overlap_score((), problem(golds=(), scoring=Scoring("any"))) == 0
    assert overlap_score((span(3, 9),), problem(golds=(), scoring=Scoring("any"))) == 1
    assert overlap_score((), problem(golds=())) == 1


def test_a_repeat_elsewhere_counts_and_other_documents_do_not() -> None:
    elsewhere = span(0, 10, "d7", (Location("d7", 0, 10), Location("d0", 0, 10)))
    assert overlap_score((elsewhere,), problem()) == 1
    assert overlap_score((span(0, 10, "d7"),), problem()) == 0


def test_a_span_that_does_not_show_the_label_counts_half() -> None:
    asked = replace(problem((0, 20)), golds=(Gold(Quote(0, 0, 20), Quote(0, 0, 5)),))
    assert overlap_score((span(0, 20),), asked) == 1
    assert overlap_score((span(1, 20),), asked) == 0.5


ranges = st.tuples(st.integers(0, 199), st.integers(1, 60)).map(
    lambda pair: (pair[0], min(200, pair[0] + pair[1]))
)
spans = st.lists(ranges.map(lambda r: span(*r)), max_size=8)
answers = st.sampled_from((RIGHT, WRONG, "", "Answer:", "42", "Answer: [3] 42 > 1 > 9", RIGHT * 3))
kinds = ("values", "solved", "boxed", "label", "choice", "words", "ranking", "cited")
scorings = st.builds(
    Scoring,
    st.sampled_from(("all", "top", "any", "always")),
    st.floats(0.1, 1),
    st.integers(1, 3),
    st.integers(0, 4),
    st.integers(0, 9),
)


@given(
    spans=spans,
    answer=answers,
    golds=st.lists(ranges, max_size=4),
    kind=st.sampled_from(kinds),
    scoring=scorings,
    tokens=st.integers(0, 6000),
    opened=st.integers(0, 2),
    rules=st.builds(RewardRules, st.booleans(), st.booleans(), st.booleans()),
)
def test_a_reward_and_its_parts_lie_between_nothing_and_one(
    spans: list[RecallSpan],
    answer: str,
    golds: list[tuple[int, int]],
    kind: Any,
    scoring: Scoring,
    tokens: int,
    opened: int,
    rules: RewardRules,
) -> None:
    key = Key(kind, (("42",), ("17", "one")), "9", (("1", 2.0), ("9", 1.0)), ("3",))
    asked = replace(problem(), key=key, scoring=scoring)
    asked = replace(asked, golds=tuple(Gold(Quote(0, a, b)) for a, b in golds))
    written = response(*spans, answer=answer, tokens=tokens, opened=len(spans) + opened)
    for name, value in reward(written, asked, rules).to_dict().items():
        assert 0 <= value <= 1 + 1e-12, name


unit = st.floats(0, 1)


@given(unit, unit, unit, unit)
def test_the_total_grows_with_answer_and_retrieval(
    form: float, one: float, other: float, fixed: float
) -> None:
    low, high = sorted((one, other))
    assert combine(form, low, fixed) <= combine(form, high, fixed) + 1e-12
    assert combine(form, fixed, low) <= combine(form, fixed, high) + 1e-12


@given(ranges, ranges)
def test_overlap_is_measured_both_ways_and_full_only_for_the_range_itself(
    one: tuple[int, int], other: tuple[int, int]
) -> None:
    forth = range_f1(Quote(0, *one), Location("d0", *other))
    back = range_f1(Quote(0, *other), Location("d0", *one))
    assert forth == back
    assert (forth == 1) == (one == other)


@given(spans, ranges)
def test_another_span_never_lowers_overlap(spans: list[RecallSpan], more: tuple[int, int]) -> None:
    asked = problem((0, 10), (40, 70))
    assert overlap_score(spans, asked) <= overlap_score([*spans, span(*more)], asked)


@given(st.integers(0, 40), st.integers(1, 5000))
def test_more_spans_never_raise_density(count: int, tokens: int) -> None:
    fewer = response(*[WHOLE] * count, tokens=tokens)
    more = response(*[WHOLE] * (count + 1), tokens=tokens)
    assert density_score(more, problem()) <= density_score(fewer, problem())


def test_the_order_of_spans_does_not_matter() -> None:
    several = [span(a, a + 8) for a in range(0, 120, 20)]
    shuffled = random.Random(1).sample(several, len(several))
    asked = problem((0, 10), (60, 75))
    assert reward(response(*several), asked) == reward(response(*shuffled), asked)
