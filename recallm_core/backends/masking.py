"""Writes what is legal into rows of logits, wherever they lie, without waiting for the device.

On the host a row is an array: its legal logits are taken out, rows are emptied together, and the
logits are put back. On a device all rows are written at once: their indices go up as one array, and
a handful of operations follow that depend on no value that the host would have to see first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recallm_core.backends.device_copies import copy_to_device
from recallm_core.decoding.constraint import Ints, Mask

_WIDE = 256  # legal ids; such a row is written while the caches hold it
_LARGE = 4096  # legal ids; such a row, inside a grammar's string, gains nothing from company


@dataclass(slots=True)  # made anew for each row of each step: freezing it takes a microsecond
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
    rows = host_rows(logits)
    if rows is None:
        _write_on_device(logits, masks)
        return
    if logits.requires_grad or logits.is_inference():
        logits = _writable(logits, rows)
    if len(masks) == 1:
        _write_row(logits, rows, masks[0])
    else:
        _write_rows(logits, rows, masks)


def masked_copy(scores: torch.Tensor, masks: Sequence[Mask | None]) -> torch.Tensor:
    """Returns a fresh tensor of scores in which everything illegal is minus infinity.

    Args:
        scores: ``[rows, width]``, never changed.
        masks: One for each row; None: nothing is illegal.
    """
    before = host_rows(scores)
    if before is None:
        width = scores.shape[-1]
        listed = [RowMask(row, mask, width) for row, mask in enumerate(masks) if mask is not None]
        after = scores.clone()
        _write_on_device(after, listed)
        return after
    narrow = all(mask is not None and mask.only is not None for mask in masks)
    source = scores.detach()
    after = torch.full_like(source, -torch.inf) if narrow else source.clone()
    for number, (row, mask) in enumerate(zip(after.numpy(), masks, strict=True)):
        if mask is None:
            continue
        if mask.only is None:
            _tilt(row, mask)
            row[mask.forbid] = -np.inf
            continue
        if not narrow:
            row.fill(-np.inf)
        row[mask.only] = _legal_logits(before[number], mask)
    return after


def host_rows(logits: torch.Tensor) -> NDArray[Any] | None:
    """The same memory as an array; None on a device, or for a type of numbers arrays don't have."""
    if not logits.is_cpu:
        return None
    try:
        return logits.numpy()
    except TypeError:  # 16 bits of an accelerator's
        return None
    except RuntimeError:  # torch keeps its past
        return logits.detach().numpy()


def _legal_logits(row: NDArray[Any], mask: Mask) -> NDArray[Any]:
    """The logits of the legal ids, tilted; equal ones where others forbade all of them."""
    assert mask.only is not None
    legal: NDArray[Any] = row[mask.only]
    if mask.bias is not None:
        legal = legal + mask.bias.astype(legal.dtype)
    if legal.size and isfinite(legal.item(0)):  # nearly always
        return legal
    return legal if np.isfinite(legal).any() else np.zeros_like(legal)


def _tilt(row: NDArray[Any], mask: Mask) -> None:
    """Raises what is preferred where nearly everything is legal."""
    if mask.tilted is not None and mask.bias is not None:
        row[mask.tilted] += mask.bias.astype(row.dtype)


def _forbid(row: NDArray[Any], row_mask: RowMask) -> None:
    """A row where nearly everything is legal."""
    _tilt(row, row_mask.mask)
    row[row_mask.mask.forbid] = -np.inf
    if row_mask.vocab_size < len(row):
        row[row_mask.vocab_size :] = -np.inf


def _writable(logits: torch.Tensor, rows: NDArray[Any]) -> torch.Tensor:
    """The logits, or a tensor of the same memory whose past torch knows nothing of."""
    return logits if torch.is_inference_mode_enabled() else torch.from_numpy(rows)


def _write_row(logits: torch.Tensor, rows: NDArray[Any], row_mask: RowMask) -> None:
    """One row. Torch fills twice as quickly as numpy."""
    number, mask = row_mask.row, row_mask.mask
    row, only = rows[number], mask.only
    if only is None:
        _forbid(row, row_mask)
        return
    legal = row[only]
    if mask.bias is not None or not (legal.size and isfinite(legal.item(0))):  # hardly ever
        legal = _legal_logits(row, mask)
    (logits if len(rows) == 1 else logits[number]).fill_(-inf)
    row[only] = legal


def _write_rows(logits: torch.Tensor, rows: NDArray[Any], masks: Sequence[RowMask]) -> None:
    """Several: those where little is legal are emptied together."""
    narrow = []
    for row_mask in masks:
        only = row_mask.mask.only
        if only is None or len(only) > _WIDE:
            _write_row(logits, rows, row_mask)
        else:
            narrow.append(row_mask)
    places = [rows[row_mask.row] for row_mask in narrow]
    legal = [_legal_logits(place, m.mask) for place, m in zip(places, narrow, strict=True)]
    for first, last in _stretches([row_mask.row for row_mask in narrow]):
        logits[first:last].fill_(-inf)
    for place, row_mask, values in zip(places, narrow, legal, strict=True):
        place[row_mask.mask.only] = values


def _write_on_device(logits: torch.Tensor, masks: Sequence[RowMask]) -> None:
    shut = [row_mask for row_mask in masks if row_mask.mask.only is None]
    tilted = [row_mask for row_mask in shut if row_mask.mask.tilted is not None]
    if tilted:
        _tilt_on_device(logits, tilted)
    if shut:
        width = logits.shape[-1]
        places = _places(logits, shut, [_forbidden_ids(row_mask, width) for row_mask in shut])
        _flat(logits).index_fill_(0, copy_to_device(places, logits.device), -torch.inf)
    narrow: list[RowMask] = []
    for row_mask in masks:
        if row_mask.mask.only is None:
            continue
        if len(row_mask.mask.only) > _LARGE:
            _write_only(logits, [row_mask])
        else:
            narrow.append(row_mask)
    if narrow:
        _write_only(logits, narrow)


def _tilt_on_device(logits: torch.Tensor, masks: Sequence[RowMask]) -> None:
    """Raises what is preferred in rows where nearly everything is legal."""
    ids = [row_mask.mask.tilted for row_mask in masks if row_mask.mask.tilted is not None]
    places = copy_to_device(_places(logits, masks, ids), logits.device)
    biases = copy_to_device(_biases(masks, ids), logits.device).to(logits.dtype)
    _flat(logits).index_add_(0, places, biases)


def _flat(logits: torch.Tensor) -> torch.Tensor:
    """The same memory as one line: one number is a place, which is quicker than two."""
    assert logits.stride(-1) == 1
    size = (len(logits) - 1) * logits.stride(0) + logits.shape[-1]
    return logits.as_strided((size,), (1,))


def _places(logits: torch.Tensor, masks: Sequence[RowMask], ids: Sequence[Ints]) -> Ints:
    stride = logits.stride(0)
    rows = [row_mask.row * stride for row_mask in masks]
    return np.concatenate([i + row for row, i in zip(rows, ids, strict=True)])


def _forbidden_ids(row_mask: RowMask, width: int) -> Ints:
    forbid = row_mask.mask.forbid
    assert forbid is not None
    beyond = np.arange(row_mask.vocab_size, width, dtype=np.int64)
    return np.concatenate([forbid, beyond]) if beyond.size else forbid


def _write_only(logits: torch.Tensor, masks: Sequence[RowMask]) -> None:
    """Rows where little is legal: the legal logits are taken out, and put back into a desert."""
    ids = [row_mask.mask.only for row_mask in masks if row_mask.mask.only is not None]
    flat, places = _flat(logits), copy_to_device(_places(logits, masks, ids), logits.device)
    legal = flat.index_select(0, places)
    if any(row_mask.mask.bias is not None for row_mask in masks):
        legal = legal + copy_to_device(_biases(masks, ids), logits.device).to(legal.dtype)
    legal = torch.where(_alive(legal, [len(only) for only in ids]), legal, 0.0)
    for first, last in _stretches([row_mask.row for row_mask in masks]):
        logits[first:last].fill_(-torch.inf)
    flat.scatter_(0, places, legal)


def _alive(legal: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """For each legal logit whether its row has a finite one."""
    finite = torch.isfinite(legal)
    if len(counts) == 1:
        return finite.any()
    ends = np.cumsum(counts)
    numbers = np.repeat(np.arange(len(counts)), counts)
    before = torch.nn.functional.pad(finite.cumsum(0), (1, 0))
    edges = copy_to_device(np.stack([ends, ends - counts]), legal.device)
    alive: torch.Tensor = before[edges[0]] > before[edges[1]]
    return alive.index_select(0, copy_to_device(numbers, legal.device))


def _stretches(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Half-open ranges of rows that follow each other: a fill each."""
    stretches: list[tuple[int, int]] = []
    for row in rows:
        if stretches and stretches[-1][1] == row:
            stretches[-1] = (stretches[-1][0], row + 1)
        else:
            stretches.append((row, row + 1))
    return stretches


def _biases(masks: Sequence[RowMask], ids: Sequence[Ints]) -> NDArray[np.float64]:
    parts = [
        np.zeros(len(only)) if row_mask.mask.bias is None else row_mask.mask.bias
        for row_mask, only in zip(masks, ids, strict=True)
    ]
    return np.concatenate(parts)
