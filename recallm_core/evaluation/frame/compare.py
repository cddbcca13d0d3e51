"""Two runs side by side: what both were asked, pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recallm_core.evaluation.frame.lengths import shown_length
from recallm_core.evaluation.frame.results import of_way, read_run, score_pairs, values, ways
from recallm_core.evaluation.frame.statistics import Difference, difference_of, shown_p
from recallm_core.evaluation.report import table
from recallm_core.evaluation.rows import Row, RunError

MEASURES = ("score", "precision", "right", "hit", "em", "f1", "found", "value", "cited")


@dataclass(frozen=True, slots=True)
class Line:
    """One comparison.

    Attributes:
        suite, task, length, way, measure: What is compared.
        n: Pairs.
        difference: The first run against the second.
    """

    suite: str
    task: str
    length: int
    way: str
    measure: str
    n: int
    difference: Difference


def compare(first: Path, second: Path, pair: tuple[str, str] | None = None) -> list[Line]:
    """Compares two runs on the samples that both have.

    Args:
        first: A run.
        second: Another one, or the same where two ways are given.
        pair: A way of the first run and one of the second; None: those that both have.

    Raises:
        RunError: A run can't be read, or they have nothing in common.
    """
    runs = read_run(first), read_run(second)
    names = [ways(rows) for rows in runs]
    pairs = [pair] if pair else [(way, way) for way in names[0] if way in names[1]]
    lines = [
        line
        for a, b in pairs
        for line in _lines(of_way(runs[0], a), of_way(runs[1], b), a if a == b else f"{a} / {b}")
    ]
    if not lines:
        raise RunError(
            f"nothing to compare: no sample was asked in both (ways: {names[0]} and {names[1]}); "
            "choose two with --ways A B"
        )
    return lines


def _lines(first: Sequence[Row], second: Sequence[Row], way: str) -> list[Line]:
    kinds = list(dict.fromkeys(_kind(row) for row in first))
    return [
        Line(*kind, way, measure, len(pairs), difference)
        for kind in kinds
        for measure in _measures(first)
        for pairs in [score_pairs(_only(first, kind), _only(second, kind), measure, _sample)]
        for difference in [difference_of(pairs)]
        if difference is not None
    ]


def _measures(rows: Sequence[Row]) -> list[str]:
    return [measure for measure in MEASURES if values(rows, measure)]


def _kind(row: Row) -> tuple[str, str, int]:
    return row["suite"], row.get("task") or row.get("group", ""), row.get("length", 0)


def _only(rows: Sequence[Row], kind: tuple[str, str, int]) -> list[Row]:
    return [row for row in rows if _kind(row) == kind]


def _sample(row: Row) -> Any:
    """What makes two rows answers to one question: documents and all."""
    return row["suite"], row["id"], row["digest"]


def comparison_table(lines: Sequence[Line]) -> str:
    """Returns the comparisons as a table."""
    head = ["suite", "task", "length", "way", "measure", "n", "first", "second"]
    head += ["difference (95 %)", "McNemar p"]
    body = [
        [
            line.suite,
            line.task or "-",
            shown_length(line.length) if line.length else "-",
            line.way,
            line.measure,
            str(line.n),
            f"{line.difference.first:.3f}",
            f"{line.difference.second:.3f}",
            shown_gap(line.difference),
            shown_p(line.difference.p),
        ]
        for line in lines
    ]
    return table(head, body)


def shown_gap(difference: Difference) -> str:
    """Returns a difference with its interval, as it reads."""
    gap = difference.gap
    return f"{gap.mean:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})"
