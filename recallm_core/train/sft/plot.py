"""The curves of a run as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recallm_core.models.writing import whole_file
from recallm_core.train.sft.trainer import read_curve

_SHOWN = (("loss", "training"), ("recall_loss", "inside spans"), ("eval_loss", "validation"))


def plot(folder: Path) -> Path | None:
    """Draws ``curve.jsonl`` of a run folder as ``curve.png``; None where there are no points."""
    points = read_curve(folder / "curve.jsonl")
    stages = list(dict.fromkeys(point["stage"] for point in points))
    if not stages:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(stages), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for number, stage in enumerate(stages, start=1):
        axes = figure.add_subplot(1, len(stages), number)
        _draw(axes, [point for point in points if point["stage"] == stage])
        axes.set_title(stage)
    target = folder / "curve.png"
    with whole_file(target) as aside:
        figure.savefig(aside, format="png", dpi=120)
    return target


def _draw(axes: Any, points: list[dict[str, Any]]) -> None:
    for name, label in _SHOWN:
        seen = [(point["step"], point[name]) for point in points if name in point]
        if seen:
            axes.plot(*zip(*seen, strict=True), label=label)
    axes.set_xlabel("step")
    axes.set_ylabel("loss per token, nats")
    axes.legend()
