"""Logits as torch has them, reduced to what a choice needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recallm_core.backends.local.sampling import TOP, Best, Floats, Ints, Scores
from recallm_core.backends.masking import host_rows
from recallm_core.decoding.constraint import Mask

_ONE_BY_ONE = 4  # rows up to which no arrays are made of them together
_FEW = 8  # legal ids that are compared one by one
_LARGE = 1024  # legal ids, as at the beginning of a span


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
) -> list[Scores | Best]:
    """Reduces rows of logits to what a choice under each mask needs, in one transfer per kind.

    Args:
        logits: One row per mask, the width of the vocabulary; never changed.
        masks: What is legal in each row.
        greedy: Whether each row needs its best legal token only.
    """
    outside = [i for i, mask in enumerate(masks) if mask.only is None]
    if not outside:
        return _candidates(logits, masks, range(len(masks)), greedy)
    inside = [i for i, mask in enumerate(masks) if mask.only is not None]
    scores: dict[int, Scores | Best] = {}
    if inside:
        few = _candidates(logits, [masks[i] for i in inside], inside, [greedy[i] for i in inside])
        scores |= zip(inside, few, strict=True)
    rows = logits[outside] if inside else logits.clone()
    _tilt(rows, [masks[i] for i in outside])
    _forbid(rows, [masks[i] for i in outside])
    best = all(greedy[i] for i in outside)
    scores |= zip(outside, _best(rows) if best else _largest(rows), strict=True)
    return [scores[i] for i in range(len(masks))]


def _candidates(
    logits: torch.Tensor, masks: Sequence[Mask], rows: Sequence[int], greedy: Sequence[bool]
) -> list[Scores | Best]:
    """Inside a span: the logits of the few legal ids, and nothing else."""
    array = host_rows(logits) if all(greedy) else None
    if array is not None and (len(masks) <= _ONE_BY_ONE or any(map(_is_large, masks))):
        return [_best_of_row(array[row], mask) for row, mask in zip(rows, masks, strict=True)]
    several = [mask.only for mask in masks if mask.only is not None]
    sizes = np.array([len(only) for only in several])
    ids = np.concatenate(several)
    values = _pick_logits(logits, np.repeat(np.asarray(rows), sizes), ids)
    if any(mask.bias is not None for mask in masks):
        zeros = (np.zeros(size) for size in sizes.tolist())
        parts = (z if m.bias is None else m.bias for z, m in zip(zeros, masks, strict=True))
        values = values + np.concatenate(list(parts))
    if all(greedy) and sizes.all():
        return _best_of_each(ids, values, sizes)
    parts_of_rows = zip(several, np.split(values, np.cumsum(sizes)[:-1]), strict=True)
    return [Scores(only, part) for only, part in parts_of_rows]


def _is_large(mask: Mask) -> bool:
    """Whether a mask leaves so much that arrays of all rows' ids cost more than they save."""
    return mask.only is not None and len(mask.only) > _LARGE


def _best_of_row(row: NDArray[Any], mask: Mask) -> Scores | Best:
    """The first of the best of one row's legal ids, or one that isn't a number."""
    only = mask.only
    assert only is not None
    values: NDArray[Any] = row[only]
    if mask.bias is not None or not len(values):
        values = values.astype(np.float64)
        return Scores(only, values if mask.bias is None else values + mask.bias)
    at = int(values.argmax()) if len(values) > _FEW else _place_of_best(values.tolist())
    return Best(only.item(at), values.item(at))


def _place_of_best(values: list[float]) -> int:
    """The same as ``argmax``, sooner for a few."""
    place, best = 0, values[0]
    for at in range(1, len(values)):
        if not best >= values[at] and best == best:
            place, best = at, values[at]
    return place


def _pick_logits(logits: torch.Tensor, rows: Ints, ids: Ints) -> Floats:
    """Some logits, as numbers of 64 bits."""
    array = host_rows(logits)
    if array is not None:
        return array[rows, ids].astype(np.float64)
    device = logits.device
    return _host(logits[torch.from_numpy(rows).to(device), torch.from_numpy(ids).to(device)])


def _best_of_each(ids: Ints, values: Floats, sizes: Ints) -> list[Scores | Best]:
    """The first of the best of each row's candidates, which stand one row after the other."""
    firsts = np.cumsum(sizes) - sizes
    best = np.maximum.reduceat(values, firsts)
    places = np.flatnonzero((values == np.repeat(best, sizes)) | np.isnan(values))
    tokens = ids[places[np.searchsorted(places, firsts)]]
    return [Best(t, v) for t, v in zip(tokens.tolist(), best.tolist(), strict=True)]


def _forbid(rows: torch.Tensor, masks: Sequence[Mask]) -> None:
    """Puts the illegal ids of each row at minus infinity; the others keep their bits."""
    ids = [mask.forbid for mask in masks if mask.forbid is not None]
    sizes = [len(i) for i in ids]
    if sum(sizes):
        flat = torch.from_numpy(np.concatenate(ids)).to(rows.device)
        places = torch.from_numpy(np.repeat(np.arange(len(ids)), sizes)).to(rows.device)
        rows[places, flat] = -torch.inf


def _tilt(rows: torch.Tensor, masks: Sequence[Mask]) -> None:
    """Raises what is preferred in each row."""
    for row, mask in enumerate(masks):
        if mask.tilted is not None and mask.bias is not None:
            ids = torch.from_numpy(mask.tilted).to(rows.device)
            rows[row, ids] += torch.from_numpy(mask.bias).to(rows.dtype).to(rows.device)


def _best(rows: torch.Tensor) -> list[Scores | Best]:
    values, ids = rows.max(dim=-1)
    return [Best(i, v) for i, v in zip(ids.tolist(), values.tolist(), strict=True)]


def _largest(rows: torch.Tensor) -> list[Scores | Best]:
    values, ids = rows.topk(min(TOP, rows.shape[-1]), dim=-1)
    ids_host = ids.cpu().numpy()
    values_host = _host(values)
    return [
        Scores(ids_host[i], values_host[i], row=TorchRow(rows[i])) for i in range(len(ids_host))
    ]
