"""Logits as torch has them, reduced to what a choice needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from recallm_core.backends.local.sampling import TOP, Floats, Scores
from recallm_core.decoding.constraint import Mask


class TorchRow:
    """A row of logits on its device."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits

    def __len__(self) -> int:
        return len(self.logits)

    def log_sum(self, temperature: float) -> float:
        """The logarithm of the sum of all shares."""
        return float(torch.logsumexp(self.logits.float() / temperature, dim=-1))

    def values(self) -> Floats:
        """All of them, copied here."""
        return _host(self.logits)


def _host(values: torch.Tensor) -> Floats:
    """Copies logits here; by way of float32, since some accelerators know no float64."""
    return values.float().cpu().numpy().astype(np.float64)


def legal_scores(
    logits: torch.Tensor, masks: Sequence[Mask], greedy: Sequence[bool]
) -> list[Scores]:
    """Reduces rows of logits to what a choice under each mask needs, in one transfer per kind.

    Args:
        logits: One row per mask, the width of the vocabulary; never changed.
        masks: What is legal in each row.
        greedy: Whether each row needs its best legal token only.
    """
    inside = [i for i, mask in enumerate(masks) if mask.only is not None]
    outside = [i for i, mask in enumerate(masks) if mask.only is None]
    found: dict[int, Scores] = {}
    if inside:
        found |= zip(inside, _candidates(logits, [masks[i] for i in inside], inside), strict=True)
    if outside:
        rows = logits[outside] if len(outside) < len(masks) else logits.clone()
        _forbid(rows, [masks[i] for i in outside])
        best = all(greedy[i] for i in outside)
        found |= zip(outside, _best(rows) if best else _largest(rows), strict=True)
    return [found[i] for i in range(len(masks))]


def _candidates(logits: torch.Tensor, masks: Sequence[Mask], rows: Sequence[int]) -> list[Scores]:
    """Inside a span: the logits of the few legal ids, and nothing else."""
    ids = [mask.only for mask in masks if mask.only is not None]
    sizes = [len(i) for i in ids]
    flat = torch.from_numpy(np.concatenate(ids)).to(logits.device)
    places = torch.from_numpy(np.repeat(np.asarray(rows), sizes)).to(logits.device)
    values = _host(logits[places, flat])
    scores = []
    for mask, only, part in zip(masks, ids, np.split(values, np.cumsum(sizes)[:-1]), strict=True):
        scores.append(Scores(only, part if mask.bias is None else part + mask.bias))
    return scores


def _forbid(rows: torch.Tensor, masks: Sequence[Mask]) -> None:
    """Puts the illegal ids of each row at minus infinity; the others keep their bits."""
    ids = [mask.forbid for mask in masks if mask.forbid is not None]
    sizes = [len(i) for i in ids]
    if sum(sizes):
        flat = torch.from_numpy(np.concatenate(ids)).to(rows.device)
        places = torch.from_numpy(np.repeat(np.arange(len(ids)), sizes)).to(rows.device)
        rows[places, flat] = -torch.inf


def _best(rows: torch.Tensor) -> list[Scores]:
    values, ids = rows.max(dim=-1)
    return [
        Scores(np.array([i], dtype=np.int64), np.array([v], dtype=np.float64))
        for i, v in zip(ids.tolist(), values.tolist(), strict=True)
    ]


def _largest(rows: torch.Tensor) -> list[Scores]:
    values, ids = rows.topk(min(TOP, rows.shape[-1]), dim=-1)
    ids_host = ids.cpu().numpy()
    values_host = _host(values)
    return [
        Scores(ids_host[i], values_host[i], row=TorchRow(rows[i])) for i in range(len(ids_host))
    ]
