"""The index against a naive scan of the runs, and the promises of DESIGN section 3."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import recallm_core.decoding.live_copies as copies
import recallm_core.decoding.recall_matcher as matchers
from recallm_core.decoding.recall_index import RecallIndex
from recallm_core.decoding.recall_matcher import RecallMatcher
from recallm_core.errors import ConstraintError

VOCAB = 50


@dataclass(frozen=True)
class Case:
    runs: list[list[int]]
    starts: list[list[bool]]
    ends: list[list[bool]]
    hard: list[list[bool]]

    def index(self) -> RecallIndex:
        return RecallIndex(
            self.runs,
            vocab_size=VOCAB,
            can_start=[b for run in self.starts for b in run],
            can_end=[b for run in self.ends for b in run],
            can_end_hard=[b for run in self.hard for b in run],
        )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Random, repetitive, binary and all-identical runs; empty and one-token runs among them."""
    alphabet = draw(st.sampled_from([1, 2, 3, 12]))
    token = st.integers(0, alphabet - 1)
    runs = draw(st.lists(st.lists(token, max_size=14), max_size=6))
    if draw(st.booleans()) and runs:
        runs.append(list(draw(st.sampled_from(runs))))
    bits = [draw(st.lists(st.booleans(), min_size=len(r), max_size=len(r))) for r in runs]
    ends = [draw(st.lists(st.booleans(), min_size=len(r), max_size=len(r))) for r in runs]
    if draw(st.booleans()):
        bits = [[True] * len(r) for r in runs]
        ends = [[True] * len(r) for r in runs]
    hard = [[True] * len(r) for r in runs] if draw(st.booleans()) else ends
    return Case(runs, bits, ends, hard)


def naive_live(case: Case, copied: list[int]) -> list[tuple[int, int]]:
    """Every (run, start) where the copy stands, starts legally, and can still be closed."""
    found = []
    for number, run in enumerate(case.runs):
        ends = [i for i, legal in enumerate(case.ends[number]) if legal]
        last = max(ends, default=-1)
        for at in range(len(run) - len(copied) + 1):
            legal = not copied or (
                run[at : at + len(copied)] == copied
                and case.starts[number][at]
                and at + len(copied) - 1 <= last
            )
            if legal:
                found.append((number, at))
    return found


def naive_allowed(case: Case, copied: list[int]) -> list[int]:
    allowed = set()
    for token in range(VOCAB):
        if naive_live(case, [*copied, token]):
            allowed.add(token)
    return sorted(allowed)


def naive_can_close(case: Case, copied: list[int]) -> bool:
    size = len(copied)
    return size > 0 and any(case.ends[r][at + size - 1] for r, at in naive_live(case, copied))


def walk(matcher: RecallMatcher, choices: st.DataObject, limit: int = 12) -> list[int]:
    copied: list[int] = []
    while matcher.allowed_tokens().size and len(copied) < limit:
        token = choices.draw(st.sampled_from(matcher.allowed_tokens().tolist()))
        matcher.consume_token(token)
        copied.append(token)
    return copied


@pytest.fixture(params=["sparse", "dense"], autouse=True)
def representation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs every test with lists of positions and with bitmaps."""
    if request.param == "dense":
        monkeypatch.setattr(copies, "_DENSE_FLOOR", 0)
        monkeypatch.setattr(copies, "_DENSE_SHARE", 10_000)
        monkeypatch.setattr(matchers, "_SNAPSHOTS", 2)


@given(cases(), st.data())
def test_allowed_and_closing_equal_a_naive_scan(case: Case, data: st.DataObject) -> None:
    matcher = case.index().matcher()
    copied: list[int] = []
    while True:
        allowed = matcher.allowed_tokens().tolist()
        assert allowed == naive_allowed(case, copied)
        assert matcher.can_close == naive_can_close(case, copied)
        if copied:
            assert matcher.occurrences == naive_live(case, copied)
        if not allowed:
            break
        copied.append(data.draw(st.sampled_from(allowed)))
        matcher.consume_token(copied[-1])


@given(cases(), st.data())
def test_a_span_can_always_be_closed_later(case: Case, data: st.DataObject) -> None:
    matcher = case.index().matcher()
    walk(matcher, data)
    while matcher.length and not matcher.can_close:
        matcher.consume_token(int(matcher.allowed_tokens()[0]))
    if matcher.length:
        assert matcher.closing_occurrences()
        assert set(matcher.closing_occurrences()) <= set(matcher.occurrences)


@given(cases(), st.data())
def test_rollback_and_copy_equal_a_fresh_walk(case: Case, data: st.DataObject) -> None:
    index = case.index()
    matcher = index.matcher()
    copied = walk(matcher, data)
    keep = data.draw(st.integers(0, len(copied)))
    twin = matcher.copy()
    matcher.rollback(len(copied) - keep)
    fresh = index.matcher()
    for token in copied[:keep]:
        fresh.consume_token(token)
    assert matcher.tokens == fresh.tokens
    assert matcher.allowed_tokens().tolist() == fresh.allowed_tokens().tolist()
    assert matcher.occurrences == fresh.occurrences
    assert twin.tokens == tuple(copied)
    assert twin.can_close == naive_can_close(case, copied)


@given(cases(), st.data(), st.integers(1, 10))
def test_draft_is_the_forced_continuation(case: Case, data: st.DataObject, count: int) -> None:
    matcher = case.index().matcher()
    copied = walk(matcher, data, limit=4)
    draft = matcher.draft(count).tolist()
    assert len(draft) <= count
    for token in draft:
        assert copied
        assert naive_allowed(case, copied) == [token]
        copied.append(token)
    complete = matcher.length > 0 and len(draft) < count
    if complete and not isinstance(
        matcher._state(), copies.Dense
    ):  # a bitmap drafts one token at a time
        assert len(naive_allowed(case, copied)) != 1


@given(cases(), st.data())
def test_prior_shares_add_up_and_change_no_allowed_set(case: Case, data: st.DataObject) -> None:
    index = case.index()
    scores = data.draw(
        st.lists(st.floats(-40, 5), min_size=index.size, max_size=index.size).map(np.array)
    )
    tilted, plain = index.matcher(start_log_prior=scores), index.matcher()
    flat = [s for run in np.split(scores, np.cumsum(index.run_lengths)[:-1]) for s in [run]]
    while True:
        allowed = tilted.allowed_tokens()
        assert allowed.tolist() == plain.allowed_tokens().tolist()
        if not allowed.size:
            break
        shares = tilted.log_prior(allowed)
        assert np.isfinite(shares).all()
        assert (shares < 1e-9).all()
        copied = list(tilted.tokens)
        live = naive_live(case, copied) if copied else naive_starts(case)
        total = sum(np.exp(flat[r][a]) for r, a in live)
        for token, share in zip(allowed.tolist(), shares, strict=True):
            kept = sum(np.exp(flat[r][a]) for r, a in naive_live(case, [*copied, token]))
            assert np.exp(share) == pytest.approx(kept / total, rel=1e-6, abs=1e-12)
        token = data.draw(st.sampled_from(allowed.tolist()))
        tilted.consume_token(token)
        plain.consume_token(token)


def naive_starts(case: Case) -> list[tuple[int, int]]:
    return [
        (r, a)
        for r, starts in enumerate(case.starts)
        for a, legal in enumerate(starts)
        if legal and any(case.ends[r][a:])
    ]


@given(cases(), st.data(), st.booleans())
def test_closing_weighs_what_could_close_against_all_that_is_alive(
    case: Case, data: st.DataObject, has_prior: bool
) -> None:
    scores = st.floats(-20, 20)
    many = [len(run) for run in case.runs]
    drawn = [data.draw(st.lists(scores, min_size=n, max_size=n)) for n in many]
    odds = [data.draw(st.lists(scores, min_size=n, max_size=n)) for n in many]
    prior = np.concatenate([np.empty(0), *drawn]) if has_prior else None
    matcher = case.index().matcher(128, prior, np.concatenate([np.empty(0), *odds]))
    copied = walk(matcher, data, limit=4)
    if not copied or not matcher.can_close:
        assert matcher.close_tilt() == 0.0
        return
    closing, staying = 0.0, 0.0
    for run, at in naive_live(case, copied):
        share = math.exp(drawn[run][at]) if has_prior else 1.0
        last = at + len(copied) - 1
        chance = 1 / (1 + math.exp(-odds[run][last])) if case.ends[run][last] else 0.0
        closing, staying = closing + share * chance, staying + share * (1 - chance)
    if staying > 1e-12:
        assert matcher.close_tilt() == pytest.approx(math.log(closing / staying), abs=1e-3)


@given(cases(), st.data())
def test_a_wrong_token_raises_and_changes_nothing(case: Case, data: st.DataObject) -> None:
    matcher = case.index().matcher()
    copied = walk(matcher, data, limit=3)
    before = matcher.allowed_tokens().tolist()
    wrong = next(t for t in range(VOCAB) if t not in before)
    with pytest.raises(ConstraintError, match="continues no copy"):
        matcher.consume_token(wrong)
    with pytest.raises(ConstraintError, match="continues no copy"):
        matcher.consume_token(-1)
    assert matcher.tokens == tuple(copied)
    assert matcher.allowed_tokens().tolist() == before


def test_span_limit_is_soft_then_hard() -> None:
    run = list(range(20))
    ends = [i in (7, 19) for i in range(20)]
    hard = [i in (7, 11, 19) for i in range(20)]
    index = RecallIndex([run], vocab_size=VOCAB, can_end=ends, can_end_hard=hard)
    matcher = index.matcher(max_span_tokens=5)
    for token in run[:8]:
        matcher.consume_token(token)
    assert matcher.can_close
    assert not matcher.allowed_tokens().size
    matcher = index.matcher(max_span_tokens=2)
    for token in run[8:12]:
        matcher.consume_token(token)
    assert matcher.can_close  # 4 tokens are twice the limit: a character boundary is enough
    assert matcher.closing_occurrences() == [(0, 8)]
    assert not matcher.allowed_tokens().size


def test_bad_input_is_refused() -> None:
    with pytest.raises(ConstraintError, match=r"must be in \[0, 50\)"):
        RecallIndex([[3, 50]], vocab_size=VOCAB)
    with pytest.raises(ConstraintError, match="can_start needs one bool per run position"):
        RecallIndex([[3, 4]], vocab_size=VOCAB, can_start=[True])
    with pytest.raises(ConstraintError, match="must be finite"):
        RecallIndex([[3]], vocab_size=VOCAB).matcher(start_log_prior=[-np.inf])
    with pytest.raises(ConstraintError, match="at least 1"):
        RecallIndex([[3]], vocab_size=VOCAB).matcher(max_span_tokens=0)
    with pytest.raises(ConstraintError, match="can't take back 1"):
        RecallIndex([[3]], vocab_size=VOCAB).matcher().rollback(1)
    empty = RecallIndex([], vocab_size=VOCAB)
    assert not empty.copyable
    assert empty.matcher().allowed_tokens().tolist() == []
