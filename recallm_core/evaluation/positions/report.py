"""What a sweep of positions says: accuracy by position, the dip in the middle, and the slope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recallm_core.evaluation.frame.compare import shown_gap
from recallm_core.evaluation.frame.report import by_groups, cell, figures
from recallm_core.evaluation.frame.results import (
    group_by,
    in_order,
    mean,
    of_way,
    score_pairs,
    value,
    ways,
)
from recallm_core.evaluation.frame.statistics import difference_of, shown_p
from recallm_core.evaluation.metrics import Interval
from recallm_core.evaluation.positions.items import CLOSED, ORACLE
from recallm_core.evaluation.report import table
from recallm_core.evaluation.rows import Row

MEASURES: tuple[str, ...] = ("score", "text", "em", "cites_gold", "hit", "wrong_slices", "words")
MEASURES += ("abstained", "truncated", "output_tokens")
Floats = NDArray[np.float64]
_DRAWS = 2000
_HOW = """## How to read this

- *score*: the first line of the model's own words holds a gold answer, compared by whole words
  without case, articles and punctuation. *text*: what a user reads holds one, quotes included.
- *dip*: mean of the first and the last position, less the lowest in between; *slope*: least squares
  over the position from 0 (first) to 1 (last). Both over the questions that were asked at every
  position; intervals and p-values from 2,000 resamples of the questions. The lowest of several
  positions is low by chance alone: a dip is above 0 without any effect, so compare dips of ways.
- *gold alone* is the most that a way can do with these questions; *closed book* is what the model
  knows without documents.
- Distractors are BM25's from a small pool and keep their rank; BM25 puts the gold passage first for
  137 of the 200 questions, and its style differs from theirs. Figures aren't comparable with those
  published for lost-in-the-middle.
"""


@dataclass(frozen=True, slots=True)
class Curve:
    """Scores over positions.

    Attributes:
        positions: In order.
        scores: A line a question, a column a position.
    """

    positions: tuple[int, ...]
    scores: Floats

    def resample(self) -> list[Floats]:
        """The means by position of resampled questions."""
        rng = np.random.default_rng(0)
        picks = rng.integers(0, len(self.scores), (_DRAWS, len(self.scores)))
        return [self.scores[pick].mean(0) for pick in picks]


def curve(rows: Sequence[Row], measure: str = "score") -> Curve | None:
    """Returns the scores of one way and number of documents; None where no question is complete."""
    positions = tuple(sorted({row["facts"]["position"] for row in rows}))
    by_question = group_by(in_order(rows), lambda row: row["facts"]["question"])
    lines = []
    for some in by_question.values():
        at = {row["facts"]["position"]: value(row, measure) or 0.0 for row in some}
        if len(at) == len(positions):
            lines.append([at[position] for position in positions])
    return Curve(positions, np.array(lines)) if lines and len(positions) > 2 else None


def dip_of(means: Floats) -> float:
    """Returns how far the middle falls below the ends."""
    return float((means[0] + means[-1]) / 2 - means[1:-1].min())


def slope_of(means: Floats, positions: Sequence[int]) -> float:
    """Returns the change from the first to the last position on a straight line."""
    x = np.array(positions) / max(positions)
    return float(np.polyfit(x, means, 1)[0])


def with_interval(point: float, draws: Sequence[float], n: int) -> Interval:
    """Returns a figure with the middle 95 % of what resampling made of it."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return Interval(point, float(low), float(high), n)


def dip(line: Curve) -> Interval:
    """Returns the dip with its interval."""
    draws = [dip_of(means) for means in line.resample()]
    return with_interval(dip_of(line.scores.mean(0)), draws, len(line.scores))


def slope(line: Curve) -> Interval:
    """Returns the slope with its interval."""
    draws = [slope_of(means, line.positions) for means in line.resample()]
    return with_interval(slope_of(line.scores.mean(0), line.positions), draws, len(line.scores))


def dip_difference(first: Sequence[Row], second: Sequence[Row]) -> tuple[Interval, float] | None:
    """Returns how much deeper the first way's dip is, with its two-sided bootstrap p."""
    shared = {row["id"] for row in first} & {row["id"] for row in second}
    lines = [curve([row for row in rows if row["id"] in shared]) for rows in (first, second)]
    if lines[0] is None or lines[1] is None or lines[0].scores.shape != lines[1].scores.shape:
        return None
    a, b = lines[0], lines[1]
    draws = [
        dip_of(x) - dip_of(y) for x, y in zip(a.resample(), b.resample(), strict=True)
    ]  # the same questions are drawn in both
    point = dip_of(a.scores.mean(0)) - dip_of(b.scores.mean(0))
    above = sum(draw >= 0 for draw in draws) / len(draws)
    below = sum(draw <= 0 for draw in draws) / len(draws)
    return with_interval(point, draws, len(a.scores)), min(1.0, 2 * min(above, below))


def by_document_count(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Returns the rows that have a position, by their number of documents."""
    placed = [row for row in rows if "position" in row["facts"]]
    groups = group_by(placed, lambda row: row["task"])
    return dict(sorted(groups.items(), key=lambda pair: pair[1][0]["facts"]["documents"]))


def parts(rows: Sequence[Row], about: Mapping[str, Any]) -> list[str]:
    """Returns the parts of the report."""
    return [
        "In per cent, with 95 % intervals.\n",
        *(_positions(task, some) for task, some in by_document_count(rows).items()),
        _controls(rows),
        _all(rows),
        _HOW,
    ]


def _positions(task: str, rows: Sequence[Row]) -> str:
    shown = sorted({row["facts"]["position"] for row in rows})
    head = ["way", *(f"gold at {position}" for position in shown), "dip", "slope"]
    body = []
    for way in ways(rows):
        way_rows = of_way(rows, way)
        groups = group_by(way_rows, lambda row: row["facts"]["position"])
        line = curve(way_rows)
        shape = [cell(dip(line)), cell(slope(line))] if line else ["-", "-"]
        body.append([way, *(cell(mean(groups.get(p, []), "score")) for p in shown), *shape])
    return f"## {task}: score by position\n\n{table(head, body)}{_between(rows)}"


def _between(rows: Sequence[Row]) -> str:
    """Each way against the first: its answers, pair by pair, and its dip."""
    names = ways(rows)
    body = []
    for other in names[1:]:
        first, second = of_way(rows, names[0]), of_way(rows, other)
        difference = difference_of(score_pairs(first, second, "score", lambda row: row["id"]))
        deeper = dip_difference(second, first)
        if difference is not None:
            gap = [shown_gap(difference), shown_p(difference.p)]
            dips = [cell(deeper[0]), shown_p(deeper[1])] if deeper else ["-", "-"]
            body.append([f"{names[0]} - {other}", str(difference.gap.n), *gap, *dips])
    if not body:
        return ""
    head = ["ways", "n", "score, difference", "McNemar p", "dip that is less", "p"]
    return "\n" + table(head, body)


def _controls(rows: Sequence[Row]) -> str:
    groups = {
        f"{way}, {task}": some
        for task in (ORACLE, CLOSED)
        for way in ways(rows)
        if (some := [r for r in of_way(rows, way) if r["task"] == task])
    }
    if not groups:
        return ""
    shown = {"score": "score", "text": "text", "EM": "em", "hit": "hit"}
    return "## Controls\n\n" + by_groups(groups, shown, "way")


def _all(rows: Sequence[Row]) -> str:
    placed = [row for some in by_document_count(rows).values() for row in some]
    groups = {way: of_way(placed, way) for way in ways(placed)}
    shown = {"score": "score", "text": "text", "EM": "em", "quotes gold": "cites_gold"}
    shown |= {"quote holds answer": "hit", "abstained": "abstained", "cut off": "truncated"}
    counts = {"words": "words", "tokens": "output_tokens", "wrong slices": "wrong_slices"}
    return (
        "## All positions together\n\n"
        + by_groups(groups, shown, "way")
        + "\nPlain numbers, not per cent:\n\n"
        + by_groups(groups, counts, "way", scale=1)
    )


def data(rows: Sequence[Row]) -> dict[str, Any]:
    """Returns all figures as plain values."""
    result: dict[str, Any] = {}
    for (task, way), some in group_by(rows, lambda r: (r["task"], r["condition"])).items():
        entry = figures(some, MEASURES)
        if "position" in some[0]["facts"]:
            groups = group_by(some, lambda row: row["facts"]["position"])
            entry["positions"] = {str(p): figures(g, MEASURES) for p, g in sorted(groups.items())}
            line = curve(some)
            if line is not None:
                entry |= {"dip": asdict(dip(line)), "slope": asdict(slope(line))}
        result.setdefault(task, {})[way] = entry
    return {"tasks": result}
