"""The picture of a HELMET-style run: tasks side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from recallm_core.evaluation.frame.results import group_by, mean, ways
from recallm_core.evaluation.helmet.tasks import TASKS
from recallm_core.evaluation.metrics import Interval
from recallm_core.evaluation.plots import COLOURS, STYLE, grouped_bars
from recallm_core.evaluation.rows import Row


def draw(rows: Sequence[Row], folder: Path) -> list[str]:
    """Draws what there are rows for; returns the names of the files."""
    shown = [name for name in TASKS if any(row["task"] == name for row in rows)]
    groups = group_by(rows, lambda row: (row["condition"], row["task"]))
    series: dict[str, list[Interval | None]] = {
        way: [mean(groups.get((way, name), []), "score") for name in shown] for way in ways(rows)
    }
    colours = {way: COLOURS[n % len(COLOURS)] for n, way in enumerate(series)}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.1 * len(shown) + 2, 3.6), layout="constrained")
        axes = figure.subplots()
        grouped_bars(axes, [name.replace("_", "\n") for name in shown], series, colours)
        axes.set_title("HELMET-style (rebuilt): scores by task, all lengths together")
        figure.legend(loc="outside lower center", ncols=3)
        figure.savefig(folder / "helmet.png", dpi=130)
    return ["helmet.png"]
