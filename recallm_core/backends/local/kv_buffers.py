"""Keys and values of several sequences in one set of buffers: a row each, column = position.

Rows are ragged: each holds its own number of valid columns from 0 on. A forward pass writes every
row's new tokens at that row's own positions, so a sequence joins, leaves or takes tokens back by
changing one number; there is no padding on the left and there are no holes to compact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

_GROWTH = 1.3
_CHEAP_BYTES = 256 << 20
_COLUMNS = 256  # buffers grow by whole multiples of this


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one layer keeps per token and where."""

    heads: int
    key_width: int
    value_width: int
    dtype: torch.dtype
    device: torch.device

    @property
    def token_bytes(self) -> int:
        """Bytes per token."""
        return self.heads * (self.key_width + self.value_width) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class _Write:
    """Where one forward pass writes: a block of rows, and per row the first new column."""

    first: int
    starts: tuple[int, ...]
    width: int

    @property
    def stop(self) -> int:
        return max(self.starts) + self.width

    @property
    def rows(self) -> slice:
        return slice(self.first, self.first + len(self.starts))


class _Layer(DynamicLayer):  # type: ignore[misc]  # transformers has no types
    """One layer of the buffers as transformers sees it during a forward pass."""

    def __init__(self, owner: KVRows, shape: LayerShape) -> None:
        super().__init__()
        self.owner = owner
        self.shape = shape
        self.keys = self._empty(0, 0, shape.key_width)
        self.values = self._empty(0, 0, shape.value_width)
        self.is_initialized = True

    def _empty(self, rows: int, columns: int, width: int) -> torch.Tensor:
        # Zeros, since a masked column still takes part as 0 * value, which mustn't be NaN.
        return torch.zeros(
            (rows, self.shape.heads, columns, width),
            dtype=self.shape.dtype,
            device=self.shape.device,
        )

    def resize(self, rows: int, columns: int, lengths: Sequence[int]) -> None:
        """Reallocates, keeping the first ``lengths[row]`` columns of each row."""
        for name, width in (("keys", self.shape.key_width), ("values", self.shape.value_width)):
            old, new = getattr(self, name), self._empty(rows, columns, width)
            for row, length in enumerate(lengths):
                new[row, :, :length] = old[row, :, :length]
            setattr(self, name, new)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        plan = self.owner.write_plan
        return self._put(self.keys, key_states, plan), self._put(self.values, value_states, plan)

    def _put(self, store: torch.Tensor, new: torch.Tensor, plan: _Write) -> torch.Tensor:
        view = store[plan.rows]
        if len(set(plan.starts)) == 1:
            start = plan.starts[0]
            view[:, :, start : start + plan.width] = new
        else:
            rows, columns = self.owner.write_indices(store.device)
            view.transpose(1, 2)[rows, columns] = new.transpose(1, 2)
        return view[:, :, : plan.stop]

    def get_seq_length(self) -> int:
        return max(self.owner.write_plan.starts)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def crop(self, tokens_to_remove: int) -> None:
        raise NotImplementedError("rows are cropped by their lengths")


class KVRows:
    """The buffers, and the only place that knows which columns of a row are valid.

    Args:
        shapes: One per layer.
    """

    def __init__(self, shapes: Sequence[LayerShape]) -> None:
        self.shapes = tuple(shapes)
        self.layers = [_Layer(self, shape) for shape in shapes]
        self.cache = Cache(layers=self.layers)
        self.lengths: list[int] = []
        self.token_bytes = sum(shape.token_bytes for shape in shapes)
        self.write_plan = _Write(0, (0,), 0)
        self._indices: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}
        self._rows = self._columns = 0

    @property
    def allocated_bytes(self) -> int:
        """Bytes of the buffers."""
        return self._rows * self._columns * self.token_bytes

    def add_row(self) -> int:
        """Appends an empty row and returns its number."""
        self.lengths.append(0)
        try:
            self.reserve(0)
        except BaseException:
            self.lengths.pop()
            raise
        return len(self.lengths) - 1

    def reserve(self, columns: int) -> None:
        """Makes room for this many columns in every row; contents stay."""
        if len(self.lengths) <= self._rows and columns <= self._columns:
            return
        rows = self._rows if len(self.lengths) <= self._rows else self._more_rows(columns)
        if columns > self._columns:
            columns = max(columns, min(int(self._columns * _GROWTH), columns + 4096))
            columns = -(-columns // _COLUMNS) * _COLUMNS
        columns = max(columns, self._columns, _COLUMNS)
        lengths = self.lengths[: self._rows]
        for layer in self.layers:
            layer.resize(rows, columns, lengths)
        self._rows, self._columns = rows, columns

    def _more_rows(self, columns: int) -> int:
        """A row more, or twice as many where that is cheap."""
        doubled = 2 * len(self.lengths) - 2
        cost = doubled * max(columns, self._columns) * self.token_bytes
        return max(len(self.lengths), doubled if cost < _CHEAP_BYTES else 0)

    def move_row(self, source: int, target: int) -> None:
        """Overwrites a row with another one."""
        length = self.lengths[source]
        for layer in self.layers:
            for store in (layer.keys, layer.values):
                store[target, :, :length] = store[source, :, :length]
        self.lengths[target] = length

    def drop_last_row(self) -> None:
        """Forgets the last row; its memory is kept for the next one."""
        self.lengths.pop()

    def release(self) -> None:
        """Frees the buffers."""
        self.lengths.clear()
        for layer in self.layers:
            layer.resize(0, 0, ())
        self._rows = self._columns = 0

    def read(self, row: int, start: int, stop: int) -> list[torch.Tensor]:
        """Returns copies of a row's columns: keys and values of each layer in turn."""
        return [
            store[row, :, start:stop].clone()
            for layer in self.layers
            for store in (layer.keys, layer.values)
        ]

    def append(self, row: int, blocks: Sequence[Sequence[torch.Tensor]]) -> None:
        """Appends what ``read`` returned, several pieces at once, to a row."""
        if not blocks:
            return
        start = self.lengths[row]
        stop = start + sum(int(block[0].shape[-2]) for block in blocks)
        self.reserve(stop)
        stores = [s for layer in self.layers for s in (layer.keys, layer.values)]
        for number, store in enumerate(stores):
            parts = [block[number] for block in blocks]
            at = start
            for part in parts:
                store[row, :, at : at + part.shape[-2]] = part
                at += int(part.shape[-2])
        self.lengths[row] = stop

    def begin(self, first: int, count: int, width: int) -> tuple[int, ...]:
        """Plans a forward pass over rows ``first`` to ``first + count``, ``width`` tokens each.

        Returns:
            Per row the column where its new tokens go. Valid lengths don't change: the caller
            sets them to what it keeps.
        """
        starts = tuple(self.lengths[first : first + count])
        self.write_plan = _Write(first, starts, width)
        self.reserve(self.write_plan.stop)
        self._indices.clear()
        return starts

    def write_indices(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Row and column of each new token, for a write whose rows differ in length."""
        if device not in self._indices:
            plan = self.write_plan
            starts = torch.tensor(plan.starts, device=device)
            columns = starts[:, None] + torch.arange(plan.width, device=device)
            rows = torch.arange(len(plan.starts), device=device)[:, None].expand_as(columns)
            self._indices[device] = (rows, columns)
        return self._indices[device]
