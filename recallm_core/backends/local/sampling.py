"""Choosing the next token from logits under a mask: greedy, or temperature and nucleus."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recallm_core.backends import Sampling
from recallm_core.errors import GenerationError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TOP = 256  # logits looked at before the whole row is sorted


class Chooser:
    """One sequence's choices; its random numbers depend on its seed and its choices alone."""

    def __init__(
        self, sampling: Sampling, log_probs: Callable[[float], None] | None = None
    ) -> None:
        self.greedy = sampling.temperature == 0
        self._log_probs = log_probs
        self.temperature = sampling.temperature
        self.top_p = sampling.top_p
        seed = None if sampling.seed is None else sampling.seed % 2**64
        self._random = np.random.default_rng(seed)

    def pick(self, scores: Scores | Best) -> int:
        """Returns one token id."""
        if isinstance(scores, Best):
            _check(scores.value)
            return scores.token
        best = int(scores.values.argmax())
        _check(float(scores.values[best]))
        if self.greedy:
            return int(scores.ids[best])
        nucleus = scores.nucleus(self.temperature, self.top_p)
        draw = self._random.random() * nucleus.sums[-1]
        place = min(int(np.searchsorted(nucleus.sums, draw, "right")), len(nucleus.ids) - 1)
        if self._log_probs is not None:
            self._log_probs(float(nucleus.log_probs[place]) - math.log(nucleus.sums[-1]))
        return int(nucleus.ids[place])

    def take_forced(self, token: int) -> int:
        """Returns the only legal token; nothing is drawn for it."""
        if self._log_probs is not None:
            self._log_probs(0.0)
        return token


@dataclass(slots=True)
class Best:
    """The best legal token of one position, and its logit: all that greedy decoding asks for."""

    token: int
    value: float


@dataclass(frozen=True, slots=True)
class _Nucleus:
    ids: Ints
    log_probs: Floats
    sums: Floats


class Row(Protocol):
    """The logits of a whole vocabulary, wherever they are."""

    def __len__(self) -> int: ...

    def log_sum(self, temperature: float) -> float:
        """The logarithm of the sum of all shares."""

    def values(self) -> Floats:
        """All of them, copied here."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The logits of one position that matter for a choice.

    Attributes:
        ids: Token ids.
        values: Their logits, the tilt of a prior included.
        row: The whole row where ``ids`` are only its largest; None: they are all.
    """

    ids: Ints
    values: Floats
    row: Row | None = None

    def nucleus(self, temperature: float, top_p: float) -> _Nucleus:
        """Returns the most likely ids that together reach ``top_p``, likeliest first."""
        if self.row is None:
            order = np.argsort(-self.values, kind="stable")
            ids, scaled = self.ids[order], self.values[order] / temperature
            total = log_sum(scaled)
        else:
            ids, scaled = self.ids, self.values / temperature
            total = self.row.log_sum(temperature)
        log_probs = scaled - total
        sums = np.cumsum(np.exp(log_probs))
        if self.row is not None and (sums[-1] < top_p or top_p >= 1) and len(ids) < len(self.row):
            return self._whole().nucleus(temperature, top_p)
        count = int(np.searchsorted(sums, top_p, "left")) + 1 if top_p < 1 else len(ids)
        return _Nucleus(ids[:count], log_probs[:count], sums[:count])

    def _whole(self) -> Scores:
        assert self.row is not None
        return Scores(np.arange(len(self.row), dtype=np.int64), self.row.values())


def log_sum(values: Floats) -> float:
    """The logarithm of the sum of the exponentials of some values."""
    top = float(values.max())
    return top + math.log(float(np.exp(values - top).sum()))


def _check(total: float) -> None:
    if not math.isfinite(total):
        raise GenerationError(
            "the model's logits aren't finite; it overflowed, as float16 models do: load it with "
            "dtype='bfloat16' or dtype='float32'"
        )
