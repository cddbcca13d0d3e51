"""Likely answers as a value: there and back as plain JSON, and what makes no sense is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.decoding.likely_tokens import MOST_LIKELY, LikelyAnswerTokens, LikelyTokens
from recallm_core.errors import ConstraintError

IDS = st.integers(0, 99)
ANSWERS = st.builds(
    LikelyAnswerTokens,
    st.lists(IDS, min_size=1, max_size=4).map(tuple),
    st.floats(0, 1, exclude_min=True),
)
LIKELY = st.builds(
    LikelyTokens,
    st.lists(ANSWERS, max_size=4).map(tuple),
    closers=st.frozensets(IDS, max_size=3),
    skipped=st.frozensets(IDS, max_size=3),
    strength=st.floats(0, 100),
    lead=st.lists(IDS, max_size=3).map(tuple),
)


@given(LIKELY)
def test_they_come_back_from_json(likely: LikelyTokens) -> None:
    assert LikelyTokens.from_dict(json.loads(json.dumps(likely.to_dict()))) == likely
    named = {*likely.closers, *likely.skipped, *likely.lead}
    assert likely.ids == named.union(*(answer.ids for answer in likely.answers))


@pytest.mark.parametrize("name", ["answers", "closers", "skipped", "strength", "lead"])
@pytest.mark.parametrize("junk", [None, "x", [None], [[1]], {"a": 1}, [-1], True, [[[1], "x"]]])
def test_junk_in_a_field_raises(name: str, junk: object) -> None:
    plain = LikelyTokens((), frozenset(), frozenset(), 1.0).to_dict()
    with pytest.raises((ConstraintError, TypeError, ValueError)):
        LikelyTokens.from_dict(plain | {name: junk})


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: LikelyAnswerTokens((), 0.5),
        lambda: LikelyAnswerTokens((1,), 0.0),
        lambda: LikelyAnswerTokens((1,), 1.5),
        lambda: LikelyAnswerTokens((1,), float("nan")),
        lambda: LikelyTokens((), frozenset(), frozenset(), float("inf")),
        lambda: LikelyTokens((), frozenset(), frozenset(), -1.0),
        lambda: LikelyTokens(
            (LikelyAnswerTokens((1,), 0.5),) * (MOST_LIKELY + 1), frozenset(), frozenset(), 1.0
        ),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: Any) -> None:
    with pytest.raises(ConstraintError):
        wrong()
