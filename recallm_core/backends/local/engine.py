"""One thread that owns a model and serves many callers: prompts are read, batches are stepped."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from recallm_core.backends import FinishReason, GenerationRequest
from recallm_core.backends.checks import FORKED
from recallm_core.backends.local.prefix_cache import PrefixCache
from recallm_core.backends.local.protocol import Runner
from recallm_core.backends.local.rescoring import Rescoring
from recallm_core.backends.local.sampling import Best, Chooser, Scores
from recallm_core.backends.local.sequences import Plan, Reading, Running
from recallm_core.backends.stream import Job
from recallm_core.decoding.constraint import Constraint
from recallm_core.errors import GenerationCancelledError, GenerationError

OnPrefill = Callable[[int, int], None]

_STOP_SECONDS = 10.0  # how long an interpreter that exits waits for the running forward pass

_LEAST_CHUNK = 64  # smaller pieces of a prompt aren't worth a forward pass
_IDLE_BYTES = 1 << 30  # buffers up to this size are kept while nothing runs
_FADE = 0.98


class Engine:
    """Runs requests on one worker thread until ``stop``.

    Where the next mask of a sequence needs the evidence scored again, that is done on a second
    thread, and the sequence is left out of the batches until then.

    Args:
        runner: The model.
        cache: Keys and values of prompts seen before.
        max_batch: Sequences generated at once.
        max_bytes: Bytes of keys and values that running sequences may need together; one always
            runs.
        prefill_chunk: Prompt tokens read between two looks at everything else.
        draft_tokens: Tokens proposed at once inside a copy; 0 turns drafting off.
    """

    def __init__(
        self,
        runner: Runner,
        cache: PrefixCache,
        *,
        max_batch: int,
        max_bytes: int,
        prefill_chunk: int,
        draft_tokens: int,
    ) -> None:
        self.on_prefill: OnPrefill | None = None
        self._runner = runner
        self._cache = cache
        self._max_batch = max_batch
        self._max_bytes = max_bytes
        self._chunk = prefill_chunk
        self._draft_tokens = draft_tokens if runner.can_rollback else 0
        self._cost = CostModel()
        self._running: list[Running] = []
        self._reading: Reading | None = None
        self._inbox: deque[Job] = deque()
        self._wake = threading.Condition()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._scoring: ThreadPoolExecutor | None = None
        self._process = os.getpid()

    def submit(self, job: Job) -> None:
        """Queues a request.

        Raises:
            GenerationError: The engine was stopped.
        """
        if os.getpid() != self._process:  # the lock may be held by a thread that stayed behind
            raise GenerationError(FORKED)
        with self._wake:
            if self._stopped:
                raise GenerationError("the backend is closed; load the model again")
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="recallm-engine", daemon=True
                )
                self._thread.start()
            self._inbox.append(job)
            self._wake.notify_all()

    def stop(self) -> None:
        """Ends all streams and waits for the forward pass under way; nothing in a forked child."""
        if os.getpid() != self._process:
            return
        with self._wake:
            self._stopped = True
            self._wake.notify_all()
            thread = self._thread
        if thread is None:
            self._runner.clear()  # otherwise the worker does, when it ends
        elif thread is not threading.current_thread():
            thread.join(_STOP_SECONDS)

    def _work(self) -> None:
        error: BaseException = GenerationCancelledError(
            "the backend was closed before the answer was complete"
        )
        try:
            with self._runner.session():
                while self._wait():
                    self._round()
        except BaseException as failure:  # a fault of this library: nobody must wait for ever
            error = failure
        finally:
            self._abandon(error)

    def _wait(self) -> bool:
        """Sleeps until there is something to do; False: the engine stops."""
        with self._wake:
            while not (self._stopped or self._has_work()):
                if not self._running:
                    self._runner.release(_IDLE_BYTES)
                self._wake.wait()
            return not self._stopped

    def _has_work(self) -> bool:
        """Whether a prompt can be read, or a sequence goes on, without waiting for a score."""
        if self._reading is not None or any(not running.waits for running in self._running):
            return True
        return bool(self._inbox) and self._fits(self._inbox[0])

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify_all()

    def _abandon(self, error: BaseException) -> None:
        """Ends every stream, and takes no more requests."""
        with self._wake:
            self._stopped = True
            jobs, self._inbox = list(self._inbox), deque()
        jobs += [running.job for running in self._running]
        jobs += [self._reading.job] if self._reading else []
        for job in jobs:
            job.end(None, error)
        self._running.clear()
        self._reading = None
        self._runner.clear()
        if self._scoring is not None:
            self._scoring.shutdown(wait=False, cancel_futures=True)

    def _round(self) -> None:
        for running in [r for r in self._running if r.job.over]:
            self._finish(running, "cancelled")
        self._admit()
        if self._running:
            self._step()

    def _admit(self) -> None:
        """Reads the prompts of waiting requests, as many tokens as one chunk has."""
        budget, smallest = self._chunk, min(_LEAST_CHUNK, self._chunk)
        while budget > 0:
            if self._reading is not None:
                budget -= max(self._read(max(budget, smallest)), 1)
            elif not self._next_job():
                return

    def _next_job(self) -> bool:
        """Takes the next request that fits beside those that run; False: there is none."""
        with self._wake:
            while self._inbox and self._inbox[0].over:
                self._inbox.popleft()
            if not self._inbox or not self._fits(self._inbox[0]):
                return False
            job = self._inbox.popleft()
        try:
            ids = job.request.token_ids
            constraint = self._constraint(job.request)
            slot = self._runner.open(ids[:-1], self._cache)
            job.cached_tokens = slot.length
            self._reading = Reading(job, slot, constraint)
        except BaseException as error:  # a callback's own, whatever it is: that request ends
            job.end(None, error)
        return True

    def _constraint(self, request: GenerationRequest) -> Constraint:
        if request.prior is None:
            return request.rules.start()
        if self._scoring is None:
            self._scoring = ThreadPoolExecutor(1, "recallm-evidence")
        return request.rules.start(Rescoring(request.prior, self._scoring, self._notify))

    def _fits(self, job: Job) -> bool:
        rows = len(self._running) + 1
        need = [r.slot.length + r.left for r in self._running] + [_need(job.request)]
        cost = rows * max(need) * self._runner.token_bytes
        return rows == 1 or (rows <= self._max_batch and cost <= self._max_bytes)

    def _read(self, chunk: int) -> int:
        """Reads a piece of the prompt at hand; returns the number of tokens."""
        reading = self._reading
        assert reading is not None
        job, slot = reading.job, reading.slot
        if job.over:
            return self._stop_reading(None)
        ids = job.request.token_ids[:-1]
        try:
            part = ids[slot.length :]
            count = self._runner.prefill(slot, part, chunk) if len(part) else 0
            if self.on_prefill is not None:
                self.on_prefill(min(slot.length + 1, len(ids) + 1), len(ids) + 1)
            if slot.length == len(ids):
                self._start(reading)
        except BaseException as error:
            return self._stop_reading(error)
        return count

    def _stop_reading(self, error: BaseException | None) -> int:
        reading, self._reading = self._reading, None
        assert reading is not None
        self._runner.close(reading.slot)
        reading.job.end("cancelled" if error is None else None, error)
        return 0

    def _start(self, reading: Reading) -> None:
        """Turns a prompt that was read into a running sequence; its last token is still to come."""
        request = reading.job.request
        shared = request.prefix_length or len(request.token_ids)
        self._runner.remember(reading.slot, request.token_ids[:shared], self._cache)
        self._runner.activate(reading.slot)
        self._reading = None
        self._running.append(
            Running(
                job=reading.job,
                slot=reading.slot,
                constraint=reading.constraint,
                chooser=Chooser(request.sampling, request.log_probs),
                newest=int(request.token_ids[-1]),
                left=request.sampling.max_new_tokens,
            )
        )

    def _finish(
        self, running: Running, reason: FinishReason | None, error: BaseException | None = None
    ) -> None:
        self._running.remove(running)
        self._runner.close(running.slot)
        running.job.end(reason, error)

    def _step(self) -> None:
        """One forward pass for all running sequences, and what each of them makes of it."""
        plans = self._plans()
        if not plans:
            return
        self._fit_width(plans)
        try:
            began = time.perf_counter()
            scores = self._forward(plans)
            tokens = len(plans) * max(len(plan.masks) for plan in plans.values())
            self._cost.observe(tokens, time.perf_counter() - began)
        except BaseException as error:
            for running in plans:
                self._finish(running, None, error)
            return
        ended: list[tuple[Running, FinishReason | None, BaseException | None]] = []
        for (running, plan), row in zip(plans.items(), scores, strict=True):
            try:
                self._commit(running, plan, row)
                if running.reason:
                    ended.append((running, running.reason, None))
            except BaseException as error:
                ended.append((running, None, error))
        for running, reason, failure in ended:  # rows move: only once all of them are settled
            self._finish(running, reason, failure)

    def _plans(self) -> dict[Running, Plan]:
        """A plan per running sequence; one whose constraint fails ends alone, one may wait."""
        plans = {}
        for running in list(self._running):
            try:
                if (plan := running.plan(self._draft_tokens)) is not None:
                    plans[running] = plan
            except BaseException as error:
                self._finish(running, None, error)
        return plans

    def _fit_width(self, plans: Mapping[Running, Plan]) -> None:
        """Shortens drafts where the rows beside them would pay more than the drafts save."""
        if len(plans) > 1 and not self._runner.ragged:
            width = self._cost.best_width([len(plan.masks) for plan in plans.values()])
            for running, plan in plans.items():
                plan.cut(running.constraint, width - 1)

    def _forward(self, plans: Mapping[Running, Plan]) -> list[list[Scores | Best]]:
        open_places = [plan.open_places for plan in plans.values()]
        logits = self._runner.step(
            [running.slot for running in plans],
            [[running.newest, *plan.draft] for running, plan in plans.items()],
            open_places,
        )
        masks = [
            plan.masks[place]
            for plan, places in zip(plans.values(), open_places, strict=True)
            for place in places
        ]
        greedy = [
            r.chooser.greedy for r, places in zip(plans, open_places, strict=True) for _ in places
        ]
        scores = iter(self._runner.score(logits, masks, greedy) if masks else ())
        return [[next(scores) for _ in places] for places in open_places]

    def _commit(self, running: Running, plan: Plan, scores: list[Scores | Best]) -> None:
        tokens = running.choose(plan, scores)
        self._runner.keep(running.slot, len(tokens))
        running.job.push(tokens)


def _need(request: GenerationRequest) -> int:
    return len(request.token_ids) + request.sampling.max_new_tokens


class CostModel:
    """What a forward pass costs by its number of tokens: a fixed part and a part per token."""

    def __init__(self) -> None:
        # Until passes were measured: a pass costs as much as reading this many tokens.
        self._fixed, self._each = 16.0, 1.0
        self._sums = np.zeros(5)

    def observe(self, tokens: int, seconds: float) -> None:
        """Takes note of one pass; old ones fade."""
        now = np.array([1.0, tokens, seconds, tokens * tokens, tokens * seconds])
        self._sums = _FADE * self._sums + now
        count, x, y, xx, xy = self._sums
        spread = count * xx - x * x
        if spread > 1e-6 * count * xx:
            token_seconds = max((count * xy - x * y) / spread, 1e-9)
            self._fixed, self._each = max((y - token_seconds * x) / count, 0.0), token_seconds

    def best_width(self, offers: Sequence[int]) -> int:
        """Returns the tokens per row that promise most per second.

        Args:
            offers: Per row the tokens that it could use.
        """

        def speed(width: int) -> float:
            gain = sum(min(offer, width) for offer in offers)
            return gain / (self._fixed + self._each * len(offers) * width)

        return max(sorted(set(offers)), key=speed)
