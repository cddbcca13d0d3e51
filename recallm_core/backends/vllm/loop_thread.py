"""An event loop in a thread of its own, so that any thread can wait for its work or cancel it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from recallm_core.locks import ForkSafeLock

T = TypeVar("T")


class LoopThread:
    """A daemon thread that runs coroutines.

    Args:
        name: The thread's.
        last: Awaited once all other work was cancelled; frees what belongs to the loop.
        patience: Seconds that ``stop`` waits for that.
    """

    def __init__(self, name: str, last: Callable[[], Awaitable[None]], *, patience: float) -> None:
        self._last = last
        self._patience = patience
        self._loop = asyncio.new_event_loop()
        self._gate = ForkSafeLock()  # nothing is given to the loop once it winds up
        self._ending = False
        self._thread = threading.Thread(target=self._keep, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it runs; in a process forked off this one it doesn't."""
        return self._thread.is_alive()

    def run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Starts a coroutine; cancelling the future cancels it.

        Raises:
            RuntimeError: The loop was stopped.
        """
        with self._gate:
            if self._ending or not self.alive:
                work.close()
                raise RuntimeError(f"the loop {self._thread.name!r} was stopped")
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def stop(self) -> None:
        """Cancels all work, frees what belongs to it and ends the thread; safe to call twice."""
        with self._gate:
            if not self._ending and self.alive:
                end = asyncio.run_coroutine_threadsafe(self._wind_up(), self._loop)
                end.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._loop.stop))
            self._ending = True
        if threading.current_thread() is not self._thread:  # else dropped by a callback of its own
            self._thread.join(self._patience)

    def _keep(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    async def _wind_up(self) -> None:
        current = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not current]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._last()
