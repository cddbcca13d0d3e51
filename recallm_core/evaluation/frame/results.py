"""Rows of a run, read back and put into groups; every figure is computed from them alone."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from recallm_core.evaluation.frame.statistics import mean_of
from recallm_core.evaluation.metrics import Interval
from recallm_core.evaluation.rows import Row, RunError

_MOST = 2**30  # bytes of a file of rows, unpacked


def read_run(path: Path) -> list[Row]:
    """Returns the rows of a run that have an answer, in an order that no interruption changes.

    Args:
        path: A run's folder, its ``rows.jsonl``, or the same as ``.jsonl.gz``.

    Raises:
        RunError: There are no rows, or one of them can't be read.
    """
    return in_order(row for row in _latest(path) if "error" not in row)


def failed_rows(path: Path) -> list[Row]:
    """Returns the rows of a run that say why there is no answer."""
    return in_order(row for row in _latest(path) if "error" in row)


def _latest(path: Path) -> Iterable[Row]:
    """The rows of a run; of those with one place, the last that was written."""
    file = path / "rows.jsonl" if path.is_dir() else path
    if not file.is_file():
        raise RunError(f"there are no rows at {file}; give the folder of a run")
    rows: dict[tuple[str, str, str], Row] = {}
    for number, line in enumerate(_lines(file), start=1):
        row = _row(file, number, line)
        rows[row["suite"], row["condition"], row["id"]] = row
    return rows.values()


def _lines(file: Path) -> Iterator[bytes]:
    size = 0
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as lines:
            while line := lines.readline(_MOST):
                size += len(line)
                if size >= _MOST:
                    raise RunError(f"{file} holds more than {_MOST:,} bytes: not a run's rows")
                yield line
    except (OSError, EOFError, zlib.error) as error:
        raise RunError(f"{file} can't be read ({error}); give the folder of a run") from error


def _row(file: Path, number: int, line: bytes) -> Row:
    try:
        row: Row = json.loads(line)
        _ = row["suite"], row["condition"], row["id"], row["digest"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"line {number} of {file} isn't a row ({error})") from error
    return row


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Returns rows by suite and id: then intervals don't depend on the order of writing."""
    return sorted(rows, key=lambda row: (row["suite"], row["id"], row["condition"]))


def group_by(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    """Returns rows by what a function says of each."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def value(row: Row, measure: str) -> float | None:
    """Returns a figure of a row: one of its scores, or a number that it has itself."""
    number = row.get("scores", {}).get(measure, row.get(measure))
    return float(number) if isinstance(number, int | float) else None


def values(rows: Iterable[Row], measure: str) -> list[float]:
    """Returns a figure of all rows that have it."""
    return [number for row in rows if (number := value(row, measure)) is not None]


def mean(rows: Sequence[Row], measure: str) -> Interval | None:
    """Returns the mean of a figure with its interval; None where no row has it."""
    numbers = values(rows, measure)
    return mean_of(numbers) if numbers else None


def ways(rows: Iterable[Row]) -> list[str]:
    """Returns the ways that answered, in the order of first appearance."""
    return list(dict.fromkeys(row["condition"] for row in rows))


def of_way(rows: Iterable[Row], way: str) -> list[Row]:
    """Returns the rows of one way."""
    return [row for row in rows if row["condition"] == way]


def score_pairs(
    first: Iterable[Row], second: Iterable[Row], measure: str, key: Callable[[Row], Any]
) -> list[tuple[float, float]]:
    """Returns a figure of rows that have the same key, pair by pair."""
    others = {key(row): value(row, measure) for row in second}
    pairs = ((value(row, measure), others.get(key(row))) for row in first)
    return [(a, b) for a, b in pairs if a is not None and b is not None]
