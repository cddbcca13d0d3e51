"""Pictures of a run of RULER: means over lengths, and needles by depth and length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from recallm_core.evaluation.frame.lengths import shown_length
from recallm_core.evaluation.frame.results import group_by, of_way, values, ways
from recallm_core.evaluation.metrics import interval
from recallm_core.evaluation.plots import COLOURS, STYLE
from recallm_core.evaluation.rows import Row
from recallm_core.evaluation.ruler.report import (
    BANDS,
    EFFECTIVE,
    band,
    lengths,
    task_means,
    with_depth,
)


def draw(rows: Sequence[Row], folder: Path) -> list[str]:
    """Draws what there are rows for; returns the names of the files."""
    with mpl.rc_context(STYLE):
        pictures = [("lengths.png", _lengths(rows))]
        if with_depth(rows):
            pictures.append(("depth.png", _depth(rows)))
        for name, figure in pictures:
            figure.savefig(folder / name, dpi=130)
    return [name for name, _ in pictures]


def _lengths(rows: Sequence[Row]) -> Figure:
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    shown = lengths(rows)
    for number, way in enumerate(ways(rows)):
        way_rows = of_way(rows, way)
        colour = COLOURS[number % len(COLOURS)]
        cells = [[row for row in way_rows if row["length"] == length] for length in shown]
        axes.plot(shown, [task_means(some) or 0.0 for some in cells], "o-", color=colour, label=way)
        bounds = [interval(values(some, "score") or [0.0]) for some in cells]
        low, high = [bound.low for bound in bounds], [bound.high for bound in bounds]
        axes.fill_between(shown, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.axhline(EFFECTIVE, color="#9aa3b2", linewidth=0.8, linestyle="--")
    _length_axis(axes, shown)
    axes.set_ylim(0, 1.03)
    axes.set_title("Mean over tasks, by length; dashed: RULER's bar")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _length_axis(axes: Any, shown: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(shown, [shown_length(length) for length in shown])
    axes.minorticks_off()


def _depth(rows: Sequence[Row]) -> Figure:
    placed, names = with_depth(rows), ways(rows)
    shown = lengths(placed)
    figure = Figure(figsize=(2.6 * len(names) + 1.2, 2.8), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    image: Any = None
    for axes, way in zip(panels, names, strict=True):
        groups = group_by(of_way(placed, way), lambda row: (band(row), row["length"]))
        grid = [[_share(groups.get((n, length), [])) for length in shown] for n in range(BANDS)]
        image = axes.imshow(grid, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
        axes.set_xticks(range(len(shown)), [shown_length(length) for length in shown])
        axes.set_title(way)
        axes.tick_params(length=0)
    panels[0].set_yticks(range(BANDS), [f"{100 * n // BANDS} %" for n in range(BANDS)])
    panels[0].set_ylabel("depth of the needle")
    figure.colorbar(image, ax=panels, shrink=0.9)
    return figure


def _share(rows: Sequence[Row]) -> float:
    numbers = values(rows, "score")
    return sum(numbers) / len(numbers) if numbers else float("nan")
