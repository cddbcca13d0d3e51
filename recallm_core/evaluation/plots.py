"""Pictures of a run, drawn with matplotlib; only what the run has rows for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from recallm_core.evaluation.conditions import FREE, conditions
from recallm_core.evaluation.gates import Reader, verbatim
from recallm_core.evaluation.metrics import Interval, roc_points
from recallm_core.evaluation.runner import Results
from recallm_core.evaluation.tasks import SUITES

COLOURS = ("#2456c4", "#7aa2f0", "#b8453c", "#c7a23a", "#8a8f99", "#3d8f6e", "#9467bd")
_SWITCH = {"constraint on": "#2456c4", "constraint off": "#b8453c"}
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
}
_SCORED = ("easy", "paraphrased", "handbook-18f", "nq", "two-hop", "kv-75", "kv-140")
_SEPARATED = ("missing", "missing-nq", "missing-clapnq")
Drawing = tuple[str, Figure]


def draw(results: Results, folder: Path) -> list[str]:
    """Draws what the run has rows for; returns the files' names relative to the folder."""
    reader = Reader(results)
    makers: tuple[Callable[[Reader], Drawing | None], ...] = (
        _scores,
        _verbatim,
        _positions,
        _lengths,
        _separation,
        _thought,
    )
    with mpl.rc_context(STYLE):
        drawings = [drawing for make in makers if (drawing := make(reader)) is not None]
        for name, figure in drawings:
            figure.savefig(folder / name, dpi=130)
    return [name for name, _ in drawings]


def _conditions(reader: Reader, suites: Sequence[str]) -> list[str]:
    """The conditions that any of the suites was run under, in the plan's order."""
    plan = reader.results.plan
    named = [c.name for suite in suites for c in plan.conditions(SUITES[suite])]
    return [n for n in dict.fromkeys(named) if any(reader.rows(suite, n) for suite in suites)]


def _ran(reader: Reader, suites: Sequence[str]) -> list[str]:
    return [suite for suite in suites if reader.rows(suite)]


def _colours(reader: Reader) -> dict[str, str]:
    """A condition has one colour in all pictures."""
    plan = reader.results.plan
    names = [c.name for c in conditions(plan.priors, plan.constraint)]
    return {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}


def grouped_bars(
    axes: Any,
    groups: Sequence[str],
    series: dict[str, list[Interval | None]],
    colours: Mapping[str, str],
) -> None:
    """Grouped bars with intervals, and their values above them."""
    width = 0.84 / max(len(series), 1)
    for number, (name, values) in enumerate(series.items()):
        at = [place - 0.42 + width * (number + 0.5) for place in range(len(groups))]
        shown = [(x, value) for x, value in zip(at, values, strict=True) if value is not None]
        errors = [
            [max(0.0, value.mean - value.low) for _, value in shown],
            [max(0.0, value.high - value.mean) for _, value in shown],
        ]
        axes.bar(
            [x for x, _ in shown],
            [value.mean for _, value in shown],
            width * 0.92,
            yerr=errors,
            label=name,
            color=colours[name],
            error_kw={"elinewidth": 0.8, "ecolor": "#333333"},
        )
        for x, value in shown:
            label = f"{value.mean:.2f}".removeprefix("0") if value.mean else "0"
            axes.text(x, value.high + 0.015, label, ha="center", fontsize=6.5, color="#333333")
    axes.set_xticks(range(len(groups)), [group.replace(", ", ",\n") for group in groups])
    axes.set_ylim(0, 1.08)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.grid(axis="y", linewidth=0.4, color="#d8dbe0")
    axes.tick_params(length=0)


def _scores(reader: Reader) -> Drawing | None:
    suites = _ran(reader, _SCORED)
    if not suites:
        return None
    names = _conditions(reader, suites)
    figure = Figure(figsize=(max(6.0, 1.5 * len(suites) + 2), 6.2), layout="constrained")
    for axes, (measure, title) in zip(
        figure.subplots(2, 1, sharex=True),
        (("em", "Exact match"), ("hit", "Evidence hit")),
        strict=True,
    ):
        series = {name: [reader.mean(suite, measure, name) for suite in suites] for name in names}
        grouped_bars(axes, [SUITES[suite].title for suite in suites], series, _colours(reader))
        axes.set_title(title)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return "scores.png", figure


def _verbatim(reader: Reader) -> Drawing | None:
    suites = [suite for suite in _ran(reader, tuple(SUITES)) if reader.rows(suite, FREE)]
    if not suites:
        return None
    figure = Figure(figsize=(max(4.5, 1.3 * len(suites) + 1.5), 3.2), layout="constrained")
    axes = figure.subplots()
    series: dict[str, list[Interval | None]] = {}
    for name, label in ((reader.main, "constraint on"), (FREE, "constraint off")):
        counts = [verbatim(reader.rows(suite, name)) for suite in suites]
        shares = [exact / spans if spans else 0.0 for exact, spans in counts]
        series[label] = [Interval(share, share, share, 1) for share in shares]
    grouped_bars(axes, [SUITES[suite].title for suite in suites], series, _SWITCH)
    axes.set_title("Spans that stand in a document word for word")
    figure.legend(loc="outside lower center", ncols=2)
    return "verbatim.png", figure


def _by_group(
    reader: Reader, suite: str, names: Sequence[str], measure: str, title: str
) -> Figure | None:
    groups = list(dict.fromkeys(row["group"] for row in reader.rows(suite)))
    if not groups:
        return None
    figure = Figure(figsize=(max(4.5, 1.4 * len(groups) + 1.5), 3.2), layout="constrained")
    axes = figure.subplots()
    series = {
        name: [reader.mean(suite, measure, name, group) for group in groups] for name in names
    }
    grouped_bars(axes, groups, series, _colours(reader))
    axes.set_title(title)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _positions(reader: Reader) -> Drawing | None:
    suite = "positions" if reader.rows("positions") else "nq"
    title = "Natural Questions: evidence hit by place of the gold passage"
    figure = _by_group(reader, suite, _conditions(reader, (suite,)), "hit", title)
    return None if figure is None else ("positions.png", figure)


def _lengths(reader: Reader) -> Drawing | None:
    title = "Easy questions, exact match, by length of context over that of training"
    figure = _by_group(reader, "length", [reader.main], "em", title)
    return None if figure is None else ("length.png", figure)


def _thought(reader: Reader) -> Drawing | None:
    title = "Lost in thought: answers that hold the value"
    names = _conditions(reader, ("thought",))
    figure = _by_group(reader, "thought", names, "found", title)
    return None if figure is None else ("thought.png", figure)


def _separation(reader: Reader) -> Drawing | None:
    suites = [suite for suite in _ran(reader, _SEPARATED) if reader.auroc(suite)]
    if not suites:
        return None
    figure = Figure(figsize=(2.9 * len(suites) + 0.6, 4.4), layout="constrained")
    for axes, suite in zip(figure.subplots(1, len(suites), squeeze=False)[0], suites, strict=True):
        axes.plot([0, 1], [0, 1], color="#c9ccd2", linewidth=0.8)
        for name in _conditions(reader, (suite,)):
            kinds, area = reader.answerability(suite, name), reader.auroc(suite, name)
            if area is not None:
                label = f"{area.mean:.2f} {name}"
                axes.plot(*roc_points(*kinds), color=_colours(reader)[name], label=label)
        axes.set_title(SUITES[suite].title.removeprefix("not in the documents: "))
        axes.set_xlabel("no answer there, but kept")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=7)
    figure.axes[0].set_ylabel("answer there, and kept")
    figure.suptitle(
        "Telling answerable questions from others (area under the curve)",
        x=0.01,
        ha="left",
        fontsize=10,
    )
    return "separation.png", figure
