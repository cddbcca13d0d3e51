"""Rows without their texts: small enough to stand beside a report, and enough for its figures."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

from recallm_core.evaluation.frame.results import read_run
from recallm_core.evaluation.rows import Row

_FIELDS = (
    "suite",
    "condition",
    "id",
    "digest",
    "group",
    "task",
    "length",
    "answerable",
    "scores",
    "abstained",
    "prompt_tokens",
    "output_tokens",
    "cpu_seconds",
    "finish_reason",
)
_SCORES = ("em", "f1", "hit", "found")  # of rows that have them beside the other fields
_LONG = ("others", "grades", "quotes")
_DIGITS = 4


def compact(row: Row) -> Row:
    """Returns a row without question, answers and quotes."""
    small = {name: row[name] for name in _FIELDS if name in row}
    if "facts" in row:
        small["facts"] = {name: fact for name, fact in row["facts"].items() if name not in _LONG}
    scores = row.get("scores") or {name: row[name] for name in _SCORES if name in row}
    rounded = {name: round(float(score), _DIGITS) for name, score in scores.items()}
    return small | {"scores": rounded} | _counts(row)


def _counts(row: Row) -> Row:
    """Its spans, how many of them are verbatim, and its time."""
    counts: Row = {}
    if row.get("quoted"):
        counts = {"spans": len(row["quoted"]), "verbatim": row["verbatim"]}
    if "cpu_seconds" in row:
        counts["cpu_seconds"] = round(row["cpu_seconds"], 2)
    return counts


def pack(runs: Iterable[Path], file: Path) -> int:
    """Writes the rows of runs as one ``.jsonl.gz``, the same bytes for the same rows.

    Returns:
        How many rows there are.

    Raises:
        RunError: A run can't be read.
    """
    rows = [compact(row) for run in runs for row in read_run(run)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_bytes(gzip.compress(lines.encode("utf-8"), 9, mtime=0))
    return len(rows)
