"""What a run says about look-ups after thought: rates, gaps, doses, errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from recallm_core.evaluation.frame.compare import shown_gap
from recallm_core.evaluation.frame.lengths import shown_length
from recallm_core.evaluation.frame.report import cell, figures
from recallm_core.evaluation.frame.results import group_by, mean, of_way, value, values, ways
from recallm_core.evaluation.frame.statistics import Difference, difference_of, shown_p
from recallm_core.evaluation.metrics import Interval
from recallm_core.evaluation.report import table
from recallm_core.evaluation.rows import Row
from recallm_core.evaluation.thought.conditions import (
    ABSENT,
    ANOTHER,
    CONDITIONS,
    DIRECT,
    FILLER,
    LITERAL,
    OPENED,
    PLAIN_LITERAL,
    REPLAYED,
    SOLVE,
    is_dose,
)
from recallm_core.evaluation.thought.scores import KINDS

MEASURES: tuple[str, ...] = (
    "score",
    "quoted",
    "key",
    "declined",
    "wrong_quotes",
    "truncated",
    "output_tokens",
)
MEASURES += tuple(f"is {name}" for name in KINDS)
GAPS = (
    (DIRECT, REPLAYED),
    (DIRECT, ANOTHER),
    (DIRECT, FILLER),
    (PLAIN_LITERAL, LITERAL),
    (DIRECT + OPENED, REPLAYED + OPENED),
)
_DRAWS = 2000
_HOW = """## How to read this

- *direct*: the question names the key. *own trace*: the same question, the output made to begin
  with the working that solves the equation; *another's trace*: with that of another equation, about
  this key; *filler*: with as many tokens about something else. *literal prefix*: the output begins
  with what stands right before the value. *span opened*: the mark of a span stands after it.
  *solve*: the question is the equation, nothing is put into the output; *absent key*: the same, and
  the dictionary has no such entry.
- Right: the first code that a user reads is the value. *another entry's*: a wrong line; *cut*: a
  part of a value; *garbled*: one or two edits from a value; *invented*: none of these.
- With the mask, a span can't hold a garbled or invented code; the last column counts those of
  spans. Words beside a span are free, so a user may read a wrong code there.
- The gap *direct* less *own trace* is the effect named lost in thought; *another's trace* and
  *filler* say whether it is the content of the reasoning or mere distance.
"""


@dataclass(frozen=True, slots=True)
class Gap:
    """How much is lost between two conditions, for one way and length."""

    way: str
    length: int
    first: str
    second: str
    difference: Difference


def lengths(rows: Sequence[Row]) -> list[int]:
    """Returns the lengths of a run."""
    return sorted({row["length"] for row in rows})


def tasks(rows: Sequence[Row]) -> list[str]:
    """Returns the conditions of a run, in the order of the protocol; doses last."""
    there = {row["task"] for row in rows}
    doses = sorted(filter(is_dose, there), key=dose_tokens)
    return [*(task for task in CONDITIONS if task in there), *doses]


def dose_tokens(task: str) -> int:
    """Returns the tokens of a dose."""
    return int(task.split()[2].replace(",", ""))


def pairs_of(rows: Sequence[Row], first: str, second: str) -> list[tuple[float, float]]:
    """Returns the scores of dictionaries that were asked under both conditions."""
    by_task = group_by(rows, lambda row: row["task"])
    others = {row["facts"]["dictionary"]: value(row, "score") for row in by_task.get(second, [])}
    pairs = (
        (value(row, "score"), others.get(row["facts"]["dictionary"]))
        for row in by_task.get(first, [])
    )
    return [(a, b) for a, b in pairs if a is not None and b is not None]


def gaps(rows: Sequence[Row]) -> list[Gap]:
    """Returns every gap that there are rows for."""
    return [
        Gap(way, length, first, second, difference)
        for first, second in GAPS
        for length in lengths(rows)
        for way in ways(rows)
        for some in [[r for r in of_way(rows, way) if r["length"] == length]]
        for difference in [difference_of(pairs_of(some, first, second))]
        if difference is not None
    ]


def closing(
    plain: Sequence[Row], recall: Sequence[Row], first: str, second: str
) -> tuple[Interval, float] | None:
    """Returns how much smaller a gap is with recall, with its two-sided bootstrap p.

    Both ways' rows are of one length; dictionaries are resampled, the same ones for both.
    """
    lines = [_by_dictionary(rows, first, second) for rows in (plain, recall)]
    shared = sorted(lines[0].keys() & lines[1].keys())
    if not shared:
        return None
    loss = np.array([lines[0][n] - lines[1][n] for n in shared])
    picks = np.random.default_rng(0).integers(0, len(loss), (_DRAWS, len(loss)))
    draws = loss[picks].mean(1)
    low, high = np.percentile(draws, [2.5, 97.5])
    p = min(1.0, 2 * min(float((draws <= 0).mean()), float((draws >= 0).mean())))
    return Interval(float(loss.mean()), float(low), float(high), len(loss)), p


def _by_dictionary(rows: Sequence[Row], first: str, second: str) -> dict[int, float]:
    """What each dictionary loses between two conditions."""
    scores = {(row["task"], row["facts"]["dictionary"]): value(row, "score") for row in rows}
    numbers = {number for _, number in scores}
    at = {number: (scores.get((first, number)), scores.get((second, number))) for number in numbers}
    return {n: a - b for n, (a, b) in at.items() if a is not None and b is not None}


def parts(rows: Sequence[Row], about: Mapping[str, Any]) -> list[str]:
    """Returns the parts of the report."""
    return [
        f"Traces: {about.get('traces_used')}. In per cent, with 95 % intervals; one dictionary "
        "under every condition, so that differences are paired.\n",
        *(_rates(rows, length) for length in lengths(rows)),
        _gaps(rows),
        _closing(rows),
        _doses(rows),
        _errors(rows),
        _solving(rows),
        _HOW,
    ]


def _rates(rows: Sequence[Row], length: int) -> str:
    here = [row for row in rows if row["length"] == length and row["task"] != ABSENT]
    names = ways(here)
    groups = group_by(here, lambda row: (row["task"], row["condition"]))
    body = []
    for task in tasks(here):
        cells = [groups.get((task, way), []) for way in names]
        n = "/".join(map(str, sorted({len(some) for some in cells if some})))
        body.append([task, n, *(cell(mean(some, "score")) for some in cells)])
    return (
        f"## Right values at {shown_length(length)}\n\n{table(['begins with', 'n', *names], body)}"
    )


def _gaps(rows: Sequence[Row]) -> str:
    body = [
        [
            gap.way,
            shown_length(gap.length),
            f"{gap.first} - {gap.second}",
            str(gap.difference.gap.n),
            shown_gap(gap.difference),
            shown_p(gap.difference.p),
        ]
        for gap in gaps(rows)
    ]
    head = ["way", "length", "loss", "n", "difference (95 %)", "McNemar p"]
    return "## What is lost\n\n" + table(head, body) if body else ""


def _closing(rows: Sequence[Row]) -> str:
    """Whether the gap of the ways without us is smaller with recall."""
    names = ways(rows)
    plain = [way for way in names if "without us" in way]
    recall = [way for way in names if way not in plain]
    body = []
    for length in lengths(rows):
        here = [row for row in rows if row["length"] == length]
        for without in plain:
            for way in recall:
                result = closing(of_way(here, without), of_way(here, way), DIRECT, REPLAYED)
                if result is not None:
                    shown = [cell(result[0]), shown_p(result[1])]
                    body.append([way, without, shown_length(length), str(result[0].n), *shown])
    head = ["way", "against", "length", "n", "gap that is less", "p"]
    return "## Does recall close the gap?\n\n" + table(head, body) if body else ""


def _doses(rows: Sequence[Row]) -> str:
    dosed = [row for row in rows if is_dose(row["task"]) or row["task"] == DIRECT]
    if not any(is_dose(row["task"]) for row in dosed):
        return ""
    names = [DIRECT, *filter(is_dose, tasks(dosed))]
    groups = group_by(dosed, lambda row: (row["condition"], row["length"], row["task"]))
    body = []
    for way in ways(dosed):
        for length in lengths(dosed):
            cells = [mean(groups.get((way, length, name), []), "score") for name in names]
            body.append([way, shown_length(length), *map(cell, cells)])
    return "## Dose: tokens of trace before the answer\n\n" + table(["way", "length", *names], body)


def _errors(rows: Sequence[Row]) -> str:
    """What is there in place of the value, by way, over the conditions that have one."""
    answerable = [row for row in rows if row["task"] != ABSENT]
    groups = group_by(answerable, lambda row: (row["condition"], row["task"]))
    body = []
    for (way, task), some in groups.items():
        shares = [_share(some, f"is {name}") for name in KINDS]
        body.append([way, task, str(len(some)), *shares, _share(some, "wrong_quotes")])
    body.sort(key=lambda line: (ways(answerable).index(line[0]), tasks(answerable).index(line[1])))
    head = ["way", "begins with", "n", *KINDS, "garbled or invented in a span"]
    return "## What stands in place of the value\n\n" + table(head, body)


def _share(rows: Sequence[Row], measure: str) -> str:
    numbers = values(rows, measure)
    return f"{100 * sum(numbers) / len(numbers):.0f}" if numbers else "-"


def _solving(rows: Sequence[Row]) -> str:
    """The equation asked as such, and the key that isn't there."""
    body = []
    for task in (SOLVE, ABSENT):
        for way in ways(rows):
            some = [row for row in of_way(rows, way) if row["task"] == task]
            if some:
                shown = ("key", "score", "declined", "is invented", "is garbled", "wrong_quotes")
                body.append([task, way, str(len(some)), *(_share(some, name) for name in shown)])
    head = ["question", "way", "n", "key stated", "value right", "declined", "invented", "garbled"]
    return "## Solving\n\n" + table([*head, "in a span"], body) if body else ""


def data(rows: Sequence[Row]) -> dict[str, Any]:
    """Returns all figures as plain values."""
    cells: dict[str, Any] = {}
    for (length, task, way), some in group_by(
        rows, lambda r: (r["length"], r["task"], r["condition"])
    ).items():
        by_task = cells.setdefault(str(length), {}).setdefault(task, {})
        by_task[way] = figures(some, MEASURES)
    return {"lengths": cells, "gaps": [asdict(gap) for gap in gaps(rows)]}
