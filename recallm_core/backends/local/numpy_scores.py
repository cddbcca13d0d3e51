"""Logits as rows of numpy, reduced to what a choice needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recallm_core.backends.local.sampling import TOP, Best, Floats, Scores, log_sum
from recallm_core.decoding.constraint import Mask

Row = NDArray[np.float32]


class NumpyRow:
    """A row of logits in this process's memory."""

    def __init__(self, logits: Row) -> None:
        self.logits = logits

    def __len__(self) -> int:
        return len(self.logits)

    def log_sum(self, temperature: float) -> float:
        """The logarithm of the sum of all shares."""
        return log_sum(self.values() / temperature)

    def values(self) -> Floats:
        """All of them, copied."""
        return self.logits.astype(np.float64)


def legal_scores(
    rows: Sequence[Row], masks: Sequence[Mask], greedy: Sequence[bool]
) -> list[Scores | Best]:
    """Reduces rows of logits to what a choice under each mask needs.

    Args:
        rows: One row per mask; illegal logits are overwritten.
        masks: What is legal in each row.
        greedy: Whether each row needs its best legal token only.
    """
    return [_reduce_row(*part) for part in zip(rows, masks, greedy, strict=True)]


def _reduce_row(row: Row, mask: Mask, greedy: bool) -> Scores | Best:
    if mask.only is not None:
        values = row[mask.only].astype(np.float64)
        return Scores(mask.only, values if mask.bias is None else values + mask.bias)
    if mask.tilted is not None and mask.bias is not None:
        row[mask.tilted] += mask.bias.astype(row.dtype)
    if mask.forbid is not None and len(mask.forbid):
        row[mask.forbid] = -np.inf
    if greedy:
        best = int(row.argmax())
        return Best(best, float(row[best]))
    return _largest(row)


def _largest(row: Row) -> Scores:
    if len(row) <= TOP:
        ids = np.argsort(-row, kind="stable")
    else:
        some = np.argpartition(row, len(row) - TOP)[-TOP:]
        ids = some[np.argsort(-row[some], kind="stable")]
    return Scores(ids.astype(np.int64), row[ids].astype(np.float64), row=NumpyRow(row))
