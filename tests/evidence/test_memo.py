"""A value is worked out once, by one thread, and nobody else has to wait for it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.evidence.memo import Memo

WAIT = 30.0


@given(st.lists(st.integers(0, 6)), st.integers(1, 4))
def test_values_are_those_of_their_keys_and_the_last_ones_stay(keys: list[int], size: int) -> None:
    memo: Memo[int, list[int]] = Memo(size)
    made: list[int] = []
    for at, key in enumerate(keys):
        recent = list(dict.fromkeys(reversed(keys[:at])))[:size]
        known = len(made)
        assert memo.get(key, lambda key=key: made.append(key) or [key]) == [key]
        assert (len(made) == known) == (key in recent)


def test_equal_keys_wait_for_one_and_others_for_nobody() -> None:
    memo: Memo[str, int] = Memo(4)
    begun, go_on = threading.Event(), threading.Event()
    made: list[str] = []

    def slow() -> int:
        made.append("slow")
        begun.set()
        assert go_on.wait(WAIT)
        return 1

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(memo.get, "a", slow)
        assert begun.wait(WAIT)
        second = threads.submit(memo.get, "a", slow)
        assert memo.get("b", lambda: 2) == 2
        assert not second.done()
        go_on.set()
        assert (first.result(WAIT), second.result(WAIT), made) == (1, 1, ["slow"])


def test_what_failed_is_tried_again() -> None:
    memo: Memo[str, int] = Memo(1)
    with pytest.raises(ZeroDivisionError):
        memo.get("a", lambda: 1 // 0)
    assert memo.get("a", lambda: 3) == 3
