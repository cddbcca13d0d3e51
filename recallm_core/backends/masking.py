"""Writes what is legal into rows of logits, wherever they lie, without waiting for the device.

All rows are written at once: their indices go up as one array, and a handful of operations follow
that depend on no value that the host would have to see first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from recallm_core.backends.device_copies import queued_up
from recallm_core.decoding.constraint import Ints, Mask

_LARGE = 4096  # legal ids; such a row, inside a grammar's string, gains nothing from company


@dataclass(frozen=True, slots=True)
class RowMask:
    """What is legal in one row.

    Attributes:
        row: Which row of the logits.
        mask: What is legal.
        vocab_size: Ids from here on are never legal; at most the width of the logits.
    """

    row: int
    mask: Mask
    vocab_size: int


def write_masks(logits: torch.Tensor, masks: Sequence[RowMask]) -> None:
    """Sets everything illegal in some rows to minus infinity; legal logits keep their bits.

    Where others forbade all that is legal, the legal ids get equal logits: a copy must go on.

    Args:
        logits: ``[rows, width]``, changed in place; may be wider than the vocabulary. Rows may lie
            apart, but each in one piece.
        masks: At most one for a row, in the order of the rows.
    """
    shut = [each for each in masks if each.mask.only is None]
    if shut:
        places = _places(logits, shut, [_forbidden(each, logits.shape[-1]) for each in shut])
        _flat(logits).index_fill_(0, queued_up(places, logits.device), -torch.inf)
    narrow: list[RowMask] = []
    for each in masks:
        if each.mask.only is None:
            continue
        if len(each.mask.only) > _LARGE:
            _write_only(logits, [each])
        else:
            narrow.append(each)
    if narrow:
        _write_only(logits, narrow)


def _flat(logits: torch.Tensor) -> torch.Tensor:
    """The same memory as one line: one number is a place, which is quicker than two."""
    assert logits.stride(-1) == 1
    size = (len(logits) - 1) * logits.stride(0) + logits.shape[-1]
    return logits.as_strided((size,), (1,))


def _places(logits: torch.Tensor, masks: Sequence[RowMask], ids: Sequence[Ints]) -> Ints:
    stride = logits.stride(0)
    return np.concatenate([i + each.row * stride for each, i in zip(masks, ids, strict=True)])


def _forbidden(each: RowMask, width: int) -> Ints:
    assert each.mask.forbid is not None
    beyond = np.arange(each.vocab_size, width, dtype=np.int64)
    return np.concatenate([each.mask.forbid, beyond]) if beyond.size else each.mask.forbid


def _write_only(logits: torch.Tensor, masks: Sequence[RowMask]) -> None:
    """Rows where little is legal: the legal logits are taken out, and put back into a desert."""
    ids = [each.mask.only for each in masks if each.mask.only is not None]
    flat, places = _flat(logits), queued_up(_places(logits, masks, ids), logits.device)
    kept = flat.index_select(0, places)
    if any(each.mask.bias is not None for each in masks):
        kept = kept + queued_up(_biases(masks, ids), logits.device).to(kept.dtype)
    kept = torch.where(_alive(kept, [len(each) for each in ids]), kept, 0.0)
    for first, last in _stretches([each.row for each in masks]):
        logits[first:last].fill_(-torch.inf)
    flat.scatter_(0, places, kept)


def _alive(kept: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """For each legal logit whether its row has a finite one."""
    finite = torch.isfinite(kept)
    if len(counts) == 1:
        return finite.any()
    ends = np.cumsum(counts)
    numbers = np.repeat(np.arange(len(counts)), counts)
    before = torch.nn.functional.pad(finite.cumsum(0), (1, 0))
    edges = queued_up(np.stack([ends, ends - counts]), kept.device)
    found: torch.Tensor = before[edges[0]] > before[edges[1]]
    return found.index_select(0, queued_up(numbers, kept.device))


def _stretches(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Half-open ranges of rows that follow each other: a fill each."""
    found: list[tuple[int, int]] = []
    for row in rows:
        if found and found[-1][1] == row:
            found[-1] = (found[-1][0], row + 1)
        else:
            found.append((row, row + 1))
    return found


def _biases(masks: Sequence[RowMask], ids: Sequence[Ints]) -> NDArray[np.float64]:
    parts = [
        np.zeros(len(only)) if each.mask.bias is None else each.mask.bias
        for each, only in zip(masks, ids, strict=True)
    ]
    return np.concatenate(parts)
