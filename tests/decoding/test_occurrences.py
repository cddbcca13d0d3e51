"""Occurrences are the list of places that they stand for, whatever they were made from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.decoding.occurrences import Occurrences

OFFSETS = np.array([0, 5, 6, 20])


@given(st.sets(st.integers(0, 40)), st.integers(1, 4), st.booleans())
def test_they_are_the_list_of_their_places(firsts: set[int], length: int, dense: bool) -> None:
    slots = sorted(firsts)
    live = np.array(slots, dtype=np.int64) + length
    bits = sum(1 << slot for slot in live.tolist())
    places = Occurrences(OFFSETS, bits if dense else live, length)
    runs = [max(run for run in range(4) if OFFSETS[run] <= slot) for slot in slots]
    expected = [(run, slot - int(OFFSETS[run])) for run, slot in zip(runs, slots, strict=True)]
    assert len(places) == len(expected)
    assert places[:1] == expected[:1]
    if expected:
        assert (places[0], places[-1]) == (expected[0], expected[-1])
    assert list(places) == expected
    assert places == expected
    assert places == tuple(expected)
    assert places == Occurrences(OFFSETS, live, length)
    assert hash(places) == hash(tuple(expected))
    assert places != [*expected, (9, 9)]
    assert places.slots.tolist() == slots


def test_what_isnt_there_raises() -> None:
    places = Occurrences(OFFSETS, 0, 1)
    assert not places
    with pytest.raises(IndexError):
        places[0]
    assert places != 7
    assert repr(Occurrences(OFFSETS, 0b111100, 1)) == "Occurrences([(0, 1), (0, 2), (0, 3)], ...)"
