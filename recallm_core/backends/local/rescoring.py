"""Evidence scored beside the decoding: on a thread of its own, while other sequences go on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from recallm_core.decoding.constraint import ClosedSpan, Prior, Section, SpanBias

Bias = SpanBias | NDArray[np.float64] | None


class NotScoredError(Exception):
    """What a constraint was asked needs a score that isn't there yet; it stands where it stood.

    Args:
        score: Done when it is worth asking again.
    """

    def __init__(self, score: Future[Bias]) -> None:
        super().__init__("the evidence is still being scored")
        self.score = score


class Rescoring:
    """A prior that is worked out on another thread; who asks too early gets ``NotScoredError``.

    Before the first quote nothing has to be read (``Evidence``), so that is asked for in place.

    Args:
        prior: What is asked; it may take an encoder a second.
        worker: Works it out.
        wake: Called, on any thread, whenever a score is there.
    """

    def __init__(self, prior: Prior, worker: ThreadPoolExecutor, wake: Callable[[], None]) -> None:
        self._prior = prior
        self._worker = worker
        self._wake = wake
        self._scores: dict[tuple[Section, tuple[ClosedSpan, ...]], Future[Bias]] = {}

    def __call__(self, section: Section, spans: tuple[ClosedSpan, ...]) -> Bias:
        """Returns the bias of the span that opens now.

        Raises:
            NotScoredError: It is being worked out.
        """
        if not spans:
            return self._prior(section, spans)
        score = self._scores.get((section, spans))
        if score is None:
            score = self._scores[section, spans] = self._worker.submit(self._prior, section, spans)
            score.add_done_callback(lambda _: self._wake())
        if not score.done():
            raise NotScoredError(score)
        return score.result()
