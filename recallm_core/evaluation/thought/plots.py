"""Pictures of look-ups after thought: conditions side by side, the gap by length, the dose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from recallm_core.evaluation.frame.lengths import shown_length
from recallm_core.evaluation.frame.results import group_by, mean, of_way, ways
from recallm_core.evaluation.metrics import Interval
from recallm_core.evaluation.plots import COLOURS, STYLE, grouped_bars
from recallm_core.evaluation.rows import Row
from recallm_core.evaluation.thought.conditions import ABSENT, DIRECT, REPLAYED, is_dose
from recallm_core.evaluation.thought.report import dose_tokens, gaps, lengths, tasks


def draw(rows: Sequence[Row], folder: Path) -> list[str]:
    """Draws what there are rows for; returns the names of the files."""
    with mpl.rc_context(STYLE):
        pictures = [("conditions.png", _conditions(rows))]
        if len(lengths(rows)) > 1:
            pictures.append(("gap.png", _gap(rows)))
        if any(is_dose(row["task"]) for row in rows):
            pictures.append(("dose.png", _dose(rows)))
        for name, figure in pictures:
            figure.savefig(folder / name, dpi=130)
    return [name for name, _ in pictures]


def _colours(rows: Sequence[Row]) -> dict[str, str]:
    return {way: COLOURS[n % len(COLOURS)] for n, way in enumerate(ways(rows))}


def _conditions(rows: Sequence[Row]) -> Figure:
    shown = [task for task in tasks(rows) if task != ABSENT and not is_dose(task)]
    at = lengths(rows)
    figure = Figure(figsize=(1.25 * len(shown) + 1.5, 2.9 * len(at) + 0.6), layout="constrained")
    for axes, length in zip(figure.subplots(len(at), 1, squeeze=False)[:, 0], at, strict=True):
        groups = group_by(
            (row for row in rows if row["length"] == length),
            lambda row: (row["condition"], row["task"]),
        )
        series: dict[str, list[Interval | None]] = {
            way: [mean(groups.get((way, task), []), "score") for task in shown]
            for way in ways(rows)
        }
        grouped_bars(axes, shown, series, _colours(rows))
        axes.set_title(f"Right values at {shown_length(length)}")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _gap(rows: Sequence[Row]) -> Figure:
    figure = Figure(figsize=(6.0, 3.4), layout="constrained")
    axes = figure.subplots()
    replayed = [gap for gap in gaps(rows) if (gap.first, gap.second) == (DIRECT, REPLAYED)]
    for way, colour in _colours(rows).items():
        line = [gap for gap in replayed if gap.way == way]
        at = [gap.length for gap in line]
        bounds = [gap.difference.gap for gap in line]
        axes.plot(at, [gap.mean for gap in bounds], "o-", color=colour, label=way)
        low, high = [gap.low for gap in bounds], [gap.high for gap in bounds]
        axes.fill_between(at, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.axhline(0, color="#9aa3b2", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths(rows), [shown_length(length) for length in lengths(rows)])
    axes.set_title("Lost by the model's own trace before the answer")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _dose(rows: Sequence[Row]) -> Figure:
    figure = Figure(figsize=(6.0, 3.4), layout="constrained")
    axes = figure.subplots()
    doses = [task for task in tasks(rows) if is_dose(task)]
    for way, colour in _colours(rows).items():
        groups = group_by(of_way(rows, way), lambda row: row["task"])
        points = [(0, mean(groups.get(DIRECT, []), "score"))]
        points += [(dose_tokens(task), mean(groups.get(task, []), "score")) for task in doses]
        known = [(x, score) for x, score in points if score is not None]
        at = [x for x, _ in known]
        axes.plot(at, [score.mean for _, score in known], "o-", color=colour, label=way)
        low, high = [score.low for _, score in known], [score.high for _, score in known]
        axes.fill_between(at, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("tokens of trace before the answer")
    axes.set_title("Right values by dose")
    figure.legend(loc="outside lower center", ncols=3)
    return figure
