"""An event loop in a thread of its own, so that any thread can wait for its work or cancel it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

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
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()
        self._stopping = threading.Lock()

    def run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Starts a coroutine; cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def stop(self) -> None:
        """Cancels all work, frees what belongs to it and ends the thread; safe to call twice."""
        with self._stopping:
            if self._loop.is_closed():
                return
            if not self._thread.is_alive():
                self._loop.close()
                return
            self.run(self._wind_up()).add_done_callback(lambda _: self._end())
            if threading.current_thread() is self._thread:  # dropped by a callback of its own
                return
            self._thread.join(self._patience)
            if not self._thread.is_alive():
                self._loop.close()

    async def _wind_up(self) -> None:
        own = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not own]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._last()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
