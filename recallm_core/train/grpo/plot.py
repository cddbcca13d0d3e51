"""The curves of a run as a picture: each part of the reward, by family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recallm_core.models.writing import whole_file
from recallm_core.train.sft.trainer import read_curve

_PARTS = ("total", "format", "answer", "overlap", "usage", "density", "retrieval", "overlong")


def plot(folder: Path) -> Path | None:
    """Draws ``curve.jsonl`` of a run folder as ``curve.png``; None where there are no points."""
    points = read_curve(folder / "curve.jsonl")
    families = sorted(
        {name.rpartition("/")[0] for point in points for name in point if _is_part(name)}
    )
    if not families:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 7), layout="constrained")
    FigureCanvasAgg(figure)
    for number, part in enumerate(_PARTS, start=1):
        axes = figure.add_subplot(2, 4, number)
        for family in families:
            _draw(axes, points, f"{family}/{part}", family)
        axes.set_title(part)
        axes.set_ylim(-0.02, 1.02)
    figure.axes[0].legend(fontsize="small")
    target = folder / "curve.png"
    with whole_file(target) as aside:
        figure.savefig(aside, format="png", dpi=100)
    return target


def _is_part(name: str) -> bool:
    return "/" in name and name.rpartition("/")[2] in _PARTS


def _draw(axes: Any, points: list[dict[str, Any]], name: str, label: str) -> None:
    seen = [(point["step"], point[name]) for point in points if name in point]
    if seen:
        axes.plot(*zip(*seen, strict=True), label=label)
