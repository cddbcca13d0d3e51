"""Work in a thread that its client can watch and call off."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

import anyio
import anyio.to_thread

from recallm_core.errors import GenerationCancelledError

Result = TypeVar("Result")
Tell = Callable[[float, None, str], Awaitable[None]]
EVERY = 2.0  # seconds between two notes


class Watch:
    """What one call is doing now; the thread writes it, the client reads it and may call it off.

    Args:
        doing: What it does first, for people.
    """

    def __init__(self, doing: str) -> None:
        self.doing = doing
        self._off = False
        self._lock = Lock()
        self._stops: list[Callable[[], None]] = []

    def now(self, doing: str) -> None:
        """Says what the work does from here on.

        Raises:
            GenerationCancelledError: It was called off.
        """
        if self._off:
            raise GenerationCancelledError("the client called this off")
        self.doing = doing

    def count(self, doing: str) -> Callable[[int, int], None]:
        """Returns what wants to be told how many of how many are done; it raises as ``now``."""
        self.now(doing)
        return lambda done, total: self.now(f"{doing}: {done:,} of {total:,}")

    def on_stop(self, stop: Callable[[], None]) -> None:
        """Has something stopped when the work is called off; at once if it was already."""
        with self._lock:
            self._stops.append(stop)
            if not self._off:
                return
        stop()

    def stop(self) -> None:
        """Calls the work off; it ends at its next step."""
        with self._lock:
            self._off = True
            stops = list(self._stops)
        for stop in stops:
            stop()


async def run_watched(
    work: Callable[[Watch], Result], tell: Tell, doing: str, every: float = EVERY
) -> Result:
    """Runs work in a thread, and tells every few seconds what it is doing.

    The notes count up, as the protocol wants it, and come also while nothing is new: a client
    that waits for a sign of life gets one. Where the call is cancelled, the work is called off and
    not waited for.
    """
    watch = Watch(doing)
    async with anyio.create_task_group() as group:
        group.start_soon(_notes, watch, tell, every)
        try:
            result = await anyio.to_thread.run_sync(
                _result_or_failure, work, watch, abandon_on_cancel=True
            )
        finally:
            watch.stop()
            group.cancel_scope.cancel()
    if isinstance(result, Failure):
        raise result.error
    return result


@dataclass(frozen=True, slots=True)
class Failure:
    """Work that failed; handed on as a value, since a group of tasks would wrap an error."""

    error: Exception


def _result_or_failure(work: Callable[[Watch], Result], watch: Watch) -> Result | Failure:
    try:
        return work(watch)
    except Exception as error:
        return Failure(error)


async def _notes(watch: Watch, tell: Tell, every: float) -> None:
    number = 0
    while True:
        await anyio.sleep(every)
        number += 1
        with suppress(Exception):  # a client that has gone loses nothing
            await tell(number, None, watch.doing)
