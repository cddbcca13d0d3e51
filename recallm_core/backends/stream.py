"""One request between its caller and the worker that generates it."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Iterator

from recallm_core.backends import FinishReason, GenerationRequest
from recallm_core.backends.checks import FORKED
from recallm_core.errors import GenerationError, RecallmError


class Job:
    """One request between its caller and the worker; everything in it is guarded by ``changed``."""

    def __init__(self, request: GenerationRequest) -> None:
        self.request = request
        self.cached_tokens = 0
        self.finish_reason: FinishReason | None = None
        self.error: BaseException | None = None
        self.cancelled = False
        self.changed = threading.Condition()
        self._tokens: deque[int] = deque()  # bounded by max_new_tokens
        self._process = os.getpid()

    @property
    def is_forked(self) -> bool:
        """Whether this process was forked since: nobody here works on it, or frees its lock."""
        return os.getpid() != self._process

    def push(self, tokens: list[int]) -> None:
        """Hands tokens to the caller, if there still is one."""
        with self.changed:
            if self.over:
                return
            self._tokens.extend(tokens)
            self.changed.notify_all()

    def end(self, reason: FinishReason | None, error: BaseException | None = None) -> None:
        """Ends the stream; the first call wins."""
        with self.changed:
            if self.finish_reason is None and self.error is None:
                self.finish_reason, self.error = reason, error
            self.changed.notify_all()

    def cancel(self) -> None:
        """Asks the worker to stop; what was produced and not read is dropped."""
        if self.is_forked:
            return
        with self.changed:
            self.cancelled = True
            self._tokens.clear()
        self.end("cancelled")

    @property
    def over(self) -> bool:
        """Whether nothing more is to be produced."""
        return self.cancelled or self.finish_reason is not None or self.error is not None

    def take(self) -> tuple[int, ...]:
        """Waits for tokens and returns all there are; none: it is over."""
        with self.changed:
            while not self._tokens and not self.over:
                self.changed.wait()
            taken = tuple(self._tokens)
            self._tokens.clear()
            return taken


class EngineStream:
    """The output of one request; closing or dropping it stops the generation."""

    def __init__(self, job: Job, owner: object) -> None:
        self._job = job
        self._owner = owner  # keeps the model alive while somebody reads
        self._drop = weakref.finalize(self, job.cancel)

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that the prefix cache spared."""
        return self._job.cached_tokens

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why it ended; None while it runs, or when it failed."""
        return self._job.finish_reason

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        return self

    def __next__(self) -> tuple[int, ...]:
        if self._job.is_forked:
            raise GenerationError(FORKED)
        tokens = self._job.take()
        if tokens:
            return tokens
        error = self._job.error
        if isinstance(error, RecallmError):
            raise error
        if error is not None:
            raise GenerationError(
                f"the model failed while it generated: {type(error).__name__}: {error}"
            ) from error
        raise StopIteration

    def close(self) -> None:
        """Stops the generation and frees what it held."""
        self._drop()
