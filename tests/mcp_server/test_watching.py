"""Work in a thread: its notes, its end, and how it is called off."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import pytest

from recallm_core.errors import DocumentError, GenerationCancelledError
from recallm_core.mcp_server.watching import Watch, run_watched


class Notes:
    """A client that takes down what it is told."""

    def __init__(self) -> None:
        self.notes: list[tuple[float, str]] = []
        self.heard = threading.Event()

    async def __call__(self, number: float, total: None, doing: str) -> None:
        self.notes.append((number, doing))
        if len(self.notes) >= 3:
            self.heard.set()


async def test_notes_count_up_also_while_nothing_is_new() -> None:
    notes = Notes()

    def work(watch: Watch) -> str:
        watch.now("thinking")
        assert notes.heard.wait(5)
        return "done"

    assert await run_watched(work, notes, "starting", every=0.01) == "done"
    numbers = [number for number, _ in notes.notes]
    assert numbers == sorted(set(numbers))
    assert notes.notes[-1][1] == "thinking"


async def test_a_quick_call_has_no_notes() -> None:
    notes = Notes()
    assert await run_watched(lambda _: 1, notes, "starting", every=30) == 1
    assert notes.notes == []


async def test_an_error_comes_as_it_is() -> None:
    def work(_: Watch) -> None:
        raise DocumentError("as it is")

    with pytest.raises(DocumentError, match="as it is"):
        await run_watched(work, Notes(), "starting")


async def test_a_client_that_has_gone_breaks_nothing() -> None:
    ended = threading.Event()

    async def gone(*_: Any) -> None:
        ended.set()
        raise anyio.BrokenResourceError

    assert await run_watched(lambda _: ended.wait(5), gone, "starting", every=0.01)


async def test_a_cancelled_call_is_called_off_and_not_waited_for() -> None:
    began, stopped, ended = threading.Event(), threading.Event(), threading.Event()

    def work(watch: Watch) -> None:
        watch.on_stop(stopped.set)
        began.set()
        assert stopped.wait(5)
        try:
            watch.now("going on")
        except GenerationCancelledError:
            ended.set()

    async with anyio.create_task_group() as group:
        group.start_soon(run_watched, work, Notes(), "starting")
        await anyio.to_thread.run_sync(began.wait, 5)
        group.cancel_scope.cancel()
    with anyio.CancelScope(shield=True):
        assert await anyio.to_thread.run_sync(ended.wait, 5)


def test_what_comes_after_the_stop_is_stopped_at_once() -> None:
    watch = Watch("")
    watch.stop()
    stopped = threading.Event()
    watch.on_stop(stopped.set)
    assert stopped.is_set()
    with pytest.raises(GenerationCancelledError):
        watch.count("reading")
