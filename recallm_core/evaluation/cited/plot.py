"""One picture of a run: what each policy does on each suite, beside the same model without us."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from recallm_core.evaluation.cited.baseline import BASELINE
from recallm_core.evaluation.cited.report import Group, groups, title
from recallm_core.evaluation.cited.run import Answers
from recallm_core.evaluation.metrics import Interval
from recallm_core.evaluation.plots import COLOURS, STYLE, grouped_bars

_PANELS = (
    ("cited", "answerable", "Answers with a citation"),
    ("hit", "answerable", "Citations that hold the answer"),
    ("right", "answerable", "Text that holds the answer"),
    ("f1", "answerable", "F1 of the model's own words"),
    ("abstained", "unanswerable", "Unanswerable: abstained"),
    ("seconds", "answerable", "Seconds an answer"),
)
_GREY = "#8a8f99"
FILES = ("cited.png", "cited.svg")


def draw(answers: Answers, folder: Path) -> list[str]:
    """Draws the picture; returns the names of its files, the one for a report first."""
    all_groups = groups(answers)
    panels = [panel for panel in _PANELS if any(_fits(group, panel) for group in all_groups)]
    if not panels:
        return []
    with mpl.rc_context(STYLE | {"svg.hashsalt": "cited"}):
        figure = _figure(all_groups, panels)
        for name in FILES:
            metadata = {"Date": None} if name.endswith("svg") else None
            figure.savefig(folder / name, dpi=130, metadata=metadata)
    return [FILES[0]]


def _fits(group: Group, panel: tuple[str, str, str]) -> bool:
    measure, kind, _ = panel
    return group.kind == kind and measure in group.figures


def _figure(all_groups: Sequence[Group], panels: Sequence[tuple[str, str, str]]) -> Figure:
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(max(3.6 * across, 7.2), 2.9 * down + 0.8), layout="constrained")
    places = figure.subplots(down, across, squeeze=False).flat
    for axes, panel in zip(places, panels, strict=False):
        _panel(axes, all_groups, panel)
    for axes in list(figure.axes)[len(panels) :]:
        axes.set_visible(False)
    handles = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return figure


def _panel(axes: Any, all_groups: Sequence[Group], panel: tuple[str, str, str]) -> None:
    measure, _, head = panel
    fitting = [group for group in all_groups if _fits(group, panel)]
    suites = list(dict.fromkeys(group.suite for group in fitting))
    values = {(group.suite, group.way): group.figures[measure] for group in fitting}
    ways = list(dict.fromkeys(group.way for group in fitting))
    series: dict[str, list[Interval | None]] = {
        way: [values.get((suite, way)) for suite in suites] for way in ways
    }
    grouped_bars(axes, [title(suite) for suite in suites], series, _colours(all_groups))
    axes.set_title(head)
    if measure == "seconds":
        _own_scale(axes, values.values())


def _own_scale(axes: Any, values: Any) -> None:
    """An axis of times, from nothing to a little above the longest; it has room for its labels."""
    axes.set_ylim(0, max(1.0, 1.15 * max(value.high for value in values)))
    axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4))


def _colours(all_groups: Sequence[Group]) -> dict[str, str]:
    """A way has one colour in all panels, and the baseline is grey."""
    ways = [way for way in dict.fromkeys(group.way for group in all_groups) if way != BASELINE]
    palette = [colour for colour in COLOURS if colour != _GREY]
    return {way: palette[n % len(palette)] for n, way in enumerate(ways)} | {BASELINE: _GREY}
