"""The ragged buffers against a list of columns per row."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core.backends.local.kv_buffers import KVRows, LayerShape

SHAPES = [
    LayerShape(2, 3, 5, torch.float32, torch.device("cpu")),
    LayerShape(1, 2, 2, torch.float32, torch.device("cpu")),
]


class Naive:
    """Per row the numbers that were written; a number stands for a token's keys and values."""

    def __init__(self) -> None:
        self.rows: list[list[float]] = []


def fill(numbers: torch.Tensor, heads: int, width: int) -> torch.Tensor:
    """(rows, tokens) numbers as (rows, heads, tokens, width)."""
    return numbers[:, None, :, None].expand(-1, heads, -1, width).contiguous()


def write(rows: KVRows, first: int, numbers: torch.Tensor) -> None:
    """One forward pass: every layer gets the new tokens and returns all it knows."""
    starts = rows.begin(first, *numbers.shape)
    for number, shape in enumerate(SHAPES):
        keys, values = rows.cache.update(
            fill(numbers, shape.heads, shape.key_width),
            fill(-numbers, shape.heads, shape.value_width),
            number,
        )
        assert keys.shape[2] == max(starts) + numbers.shape[1]
        for row, start in enumerate(starts):
            part = keys[row, 0, start : start + numbers.shape[1], 0]
            assert torch.equal(part, numbers[row])
        assert torch.isfinite(keys).all()
        assert torch.isfinite(values).all()


def contents(rows: KVRows, row: int) -> list[float]:
    tensors = rows.read(row, 0, rows.lengths[row])
    keys = tensors[0][0, :, 0]
    for number in range(len(SHAPES)):
        assert torch.equal(tensors[2 * number], keys[:, None].expand_as(tensors[2 * number]))
        values = tensors[2 * number + 1]
        assert torch.equal(values, -keys[:, None].expand_as(values))
    return [float(x) for x in keys]


@settings(max_examples=40)
@given(data=st.data())
def test_rows_hold_what_a_list_would(data: st.DataObject) -> None:
    rows, naive, fresh = KVRows(SHAPES), Naive(), 0
    for _ in range(data.draw(st.integers(1, 14))):
        count = len(naive.rows)
        act = data.draw(st.sampled_from(["add", "write", "drop", "move", "copy", "release"]))
        if act == "add" or not count:
            assert rows.add_row() == count
            naive.rows.append([])
        elif act == "write":
            first = data.draw(st.integers(0, count - 1))
            height = data.draw(st.integers(1, count - first))
            width = data.draw(st.sampled_from([1, 2, 7, 300]))
            numbers = torch.arange(fresh + 1, fresh + 1 + height * width).float()
            numbers = numbers.reshape(height, width)
            fresh += height * width
            write(rows, first, numbers)
            for row in range(height):
                kept = data.draw(st.integers(0, width))
                rows.lengths[first + row] += kept
                naive.rows[first + row] += numbers[row, :kept].tolist()
        elif act == "drop":
            rows.drop_last_row()
            naive.rows.pop()
        elif act == "move":
            source, target = data.draw(st.tuples(*[st.integers(0, count - 1)] * 2))
            rows.move_row(source, target)
            naive.rows[target] = list(naive.rows[source])
        elif act == "copy":
            source, target = data.draw(st.tuples(*[st.integers(0, count - 1)] * 2))
            length = len(naive.rows[source])
            cut = data.draw(st.integers(0, length))
            rows.append(target, [rows.read(source, 0, cut), rows.read(source, cut, length)])
            naive.rows[target] = naive.rows[target] + naive.rows[source]
        else:
            rows.release()
            naive.rows.clear()
            assert rows.allocated_bytes == 0
        assert [contents(rows, row) for row in range(len(naive.rows))] == naive.rows
        assert rows.allocated_bytes >= sum(map(len, naive.rows)) * rows.token_bytes
