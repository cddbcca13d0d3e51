"""How sure a difference is: the same samples in two ways, or two runs, compared pair by pair."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from recallm_core.evaluation.cited.scores import wilson
from recallm_core.evaluation.metrics import Interval, interval


@dataclass(frozen=True, slots=True)
class Difference:
    """Two sets of answers to the same samples.

    Attributes:
        first, second: Their means.
        gap: First minus second, with its 95 % interval (paired bootstrap, 2,000 draws).
        p: Of McNemar's exact test, over pairs that are right once and wrong once; None where
            scores aren't right or wrong.
    """

    first: float
    second: float
    gap: Interval
    p: float | None


def mean_of(values: Sequence[float]) -> Interval:
    """Returns a mean with its 95 % interval: Wilson's for what is right or wrong, else bootstrap.

    Raises:
        ValueError: There are no values.
    """
    if values and _is_binary(values):
        return wilson(sum(values), len(values))
    return interval(values)


def difference_of(pairs: Iterable[tuple[float, float]]) -> Difference | None:
    """Returns how paired scores differ; None where there are no pairs."""
    listed = list(pairs)
    if not listed:
        return None
    first, second = ([pair[side] for pair in listed] for side in (0, 1))
    gap = interval([a - b for a, b in listed])
    p = mcnemar(listed) if _is_binary([*first, *second]) else None
    return Difference(sum(first) / len(first), sum(second) / len(second), gap, p)


def _is_binary(values: Sequence[float]) -> bool:
    return all(value in (0, 1) for value in values)


def mcnemar(pairs: Iterable[tuple[float, float]]) -> float:
    """Returns the two-sided p-value of McNemar's exact test; 1 where no pair differs."""
    wins = losses = 0
    for first, second in pairs:
        wins += first > second
        losses += second > first
    return sign_test(wins, losses)


def sign_test(wins: int, losses: int) -> float:
    """Returns how likely so uneven a split of fair coins is, both sides counted."""
    n, fewer = wins + losses, min(wins, losses)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / (1 << n))


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Returns the least-squares slope of y over x; 0 where all x are equal."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    moment = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return moment / spread if spread else 0.0


def shown_p(p: float | None) -> str:
    """Returns a p-value as it reads."""
    if p is None:
        return "-"
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"
