"""The matcher's short ways against its long ones; what it promises is in test_recall_index."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import recallm_core.decoding.live_copies as copies
import recallm_core.decoding.recall_matcher as matchers
from recallm_core.decoding.recall_index import RecallIndex

VOCAB = 30


@st.composite
def indexes(draw: st.DrawFn) -> RecallIndex:
    token = st.integers(0, draw(st.sampled_from([1, 2, 9])) - 1)
    runs = draw(st.lists(st.lists(token, max_size=20), max_size=4))
    size = sum(map(len, runs))
    bits = st.lists(st.booleans(), min_size=size, max_size=size)
    return RecallIndex(
        runs, vocab_size=VOCAB, can_start=draw(bits), can_end=draw(bits), can_end_hard=draw(bits)
    )


@pytest.fixture(params=["lists", "bits"], autouse=True)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs every test with lists of slots and with bits, which are counted now and then."""
    if request.param == "bits":
        monkeypatch.setattr(copies, "_DENSE_FLOOR", 1)
        monkeypatch.setattr(copies, "_DENSE_SHARE", 10_000)
        monkeypatch.setattr(copies, "_COUNTED", 3)
        monkeypatch.setattr(copies, "_SELECTIVE", 1)
        monkeypatch.setattr(copies, "_FEW", 2)
        monkeypatch.setattr(matchers, "_SNAPSHOTS", 2)


@given(indexes(), st.integers(1, 6), st.data())
def test_a_token_extends_the_copy_exactly_where_it_is_allowed(
    index: RecallIndex, limit: int, data: st.DataObject
) -> None:
    matcher = index.matcher(limit)
    for _ in range(12):
        allowed = matcher.allowed_tokens().tolist()
        sole = matcher.sole_choice()
        assert (sole is not None) == (len(allowed) == 1 and matcher.length > 0)
        if sole is not None:
            assert (allowed, matcher.can_close) == ([sole[0]], sole[1])
        for token in range(-1, 10):
            twin = matcher.copy()
            assert twin.extend(token) == (token in allowed)
            assert twin.length == matcher.length + (token in allowed)
        if not allowed:
            break
        token = data.draw(st.sampled_from(allowed))
        longer = matcher.copy()
        assert matcher.extend(token)
        longer.consume_token(token)
        assert matcher.occurrences == longer.occurrences
        assert matcher.first_occurrence == longer.occurrences[0]
        assert matcher.can_close == longer.can_close


@given(indexes(), st.data())
def test_starts_are_struck_out_where_copies_stand(index: RecallIndex, data: st.DataObject) -> None:
    matcher = index.matcher()
    while matcher.allowed_tokens().size and matcher.length < 4:
        matcher.consume_token(data.draw(st.sampled_from(matcher.allowed_tokens().tolist())))
    if not matcher.length:
        return
    for length in (1, matcher.length):
        expected = index.starts
        for run, at in matcher.occurrences:
            first = int(index.run_offsets[run]) + at
            expected[first : first + length] = False
        with pytest.MonkeyPatch.context() as patch:
            for listed in (0, 64):
                patch.setattr("recallm_core.decoding.recall_index._LISTED", listed)
                for places in (matcher.occurrences, list(matcher.occurrences)):
                    starts = index.starts_outside([(places, length)])
                    assert starts.tolist() == expected.tolist()


def test_odd_ids_make_no_table_as_wide_as_they_are() -> None:
    ids = [2**31 - 3, 5, 2**31 - 3, 7]
    matcher = RecallIndex([ids], vocab_size=2**31 - 1).matcher()
    for token in ids:
        assert token in matcher.allowed_tokens()
        assert matcher.extend(token)
    assert matcher.occurrences == [(0, 0)]


def test_more_letters_than_two_bytes_hold() -> None:
    ids = np.arange(70_000, dtype=np.int32)
    index = RecallIndex([ids], vocab_size=70_000)
    matcher = index.matcher()
    for token in (69_998, 69_999):
        matcher.consume_token(token)
    assert matcher.occurrences == [(0, 69_998)]
    assert index.letters.dtype == np.uint32


def test_an_index_takes_at_most_eight_bytes_a_token() -> None:
    ids = np.random.default_rng(0).integers(0, 5000, 100_000).astype(np.int32)
    index = RecallIndex([ids], vocab_size=200_000)
    arrays = {id(a): a for a in vars(index).values() if isinstance(a, np.ndarray)}
    owners = [array for array in arrays.values() if array.base is None]
    assert len(owners) >= 5
    assert sum(array.nbytes for array in owners) / len(ids) < 8
