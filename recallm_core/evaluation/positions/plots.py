"""The picture of a sweep: accuracy over the position of the gold passage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from recallm_core.evaluation.frame.results import group_by, mean, of_way, ways
from recallm_core.evaluation.plots import COLOURS, STYLE
from recallm_core.evaluation.positions.items import ORACLE
from recallm_core.evaluation.positions.report import by_document_count
from recallm_core.evaluation.rows import Row


def draw(rows: Sequence[Row], folder: Path) -> list[str]:
    """Draws what there are rows for; returns the names of the files."""
    panels = by_document_count(rows)
    if not panels:
        return []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * len(panels) + 0.8, 3.6), layout="constrained")
        for axes, (task, some) in zip(
            figure.subplots(1, len(panels), squeeze=False, sharey=True)[0],
            panels.items(),
            strict=True,
        ):
            _panel(axes, task, some, [row for row in rows if row["task"] == ORACLE])
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        figure.savefig(folder / "positions.png", dpi=130)
    return ["positions.png"]


def _panel(axes: Any, task: str, rows: Sequence[Row], oracle: Sequence[Row]) -> None:
    for number, way in enumerate(ways(rows)):
        colour = COLOURS[number % len(COLOURS)]
        groups = group_by(of_way(rows, way), lambda row: row["facts"]["position"])
        points = [(position, mean(some, "score")) for position, some in sorted(groups.items())]
        known = [(position, score) for position, score in points if score is not None]
        at = [position for position, _ in known]
        axes.plot(at, [score.mean for _, score in known], "o-", color=colour, label=way)
        low, high = [score.low for _, score in known], [score.high for _, score in known]
        axes.fill_between(at, low, high, color=colour, alpha=0.1, linewidth=0)
        ceiling = mean(of_way(oracle, way), "score")
        if ceiling is not None:
            axes.axhline(ceiling.mean, color=colour, linewidth=0.8, linestyle=":")
    axes.set_title(f"{task} (dotted: gold alone)")
    axes.set_xlabel("position of the gold passage")
    axes.set_ylim(0, 1.03)
