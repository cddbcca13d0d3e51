"""The event loop in a thread: its work can be waited for, cancelled, and ended from anywhere."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError

import pytest

from recallm_core.backends.vllm.loop_thread import LoopThread


class Kept:
    """What belongs to a loop: says what happened to it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.begun = threading.Event()
        self.freed = threading.Event()

    async def work(self) -> None:
        self.begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            self.said.append("cancelled")

    async def last(self) -> None:
        self.said.append("freed")
        self.freed.set()


def names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_work_is_done_and_its_errors_come_out() -> None:
    kept = Kept()
    thread = LoopThread("loop-of-a-test", kept.last, patience=10)

    async def double(number: int) -> int:
        if number < 0:
            raise ValueError("below zero")
        return 2 * number

    assert thread.run(double(4)).result(10) == 8
    with pytest.raises(ValueError, match="below zero"):
        thread.run(double(-1)).result(10)
    thread.stop()


def test_stopping_cancels_the_work_before_it_frees_what_belongs_to_the_loop() -> None:
    kept = Kept()
    thread = LoopThread("loop-of-a-test", kept.last, patience=10)
    future = thread.run(kept.work())
    assert kept.begun.wait(10)
    thread.stop()
    thread.stop()
    assert kept.said == ["cancelled", "freed"]
    assert "loop-of-a-test" not in names()
    with pytest.raises(CancelledError):
        future.result(10)


def test_work_of_its_own_may_stop_it() -> None:
    kept = Kept()
    thread = LoopThread("loop-of-a-test", kept.last, patience=10)

    async def end() -> None:
        thread.stop()

    thread.run(end())
    assert kept.freed.wait(10)
    thread.stop()
    assert "loop-of-a-test" not in names()
    assert kept.said == ["freed"]


def test_many_may_stop_it_at_once_and_the_loop_too() -> None:
    """While it winds up, each further call waits for that and starts nothing of its own."""
    for _ in range(50):
        kept = Kept()
        thread = LoopThread("loop-of-a-test", kept.last, patience=10)

        async def end(thread: LoopThread = thread) -> None:
            thread.stop()

        others = [threading.Thread(target=thread.stop) for _ in range(3)]
        thread.run(end())
        for other in others:
            other.start()
        thread.stop()
        for other in others:
            other.join(10)
        assert "loop-of-a-test" not in names()
        assert kept.said == ["freed"]


def test_a_stopped_loop_takes_no_work() -> None:
    """Work that nobody runs would be waited for without end."""
    kept = Kept()
    thread = LoopThread("loop-of-a-test", kept.last, patience=10)

    async def held() -> None:
        kept.begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            with pytest.raises(RuntimeError, match="was stopped"):
                thread.run(kept.work())  # the loop still winds up
            kept.said.append("refused")

    thread.run(held())
    assert kept.begun.wait(10)
    thread.stop()
    assert kept.said == ["refused", "freed"]
    with pytest.raises(RuntimeError, match="'loop-of-a-test' was stopped"):
        thread.run(kept.work())
