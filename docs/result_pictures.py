"""Draws the pictures of docs/results from the rows that are stored there.

Run as `python docs/result_pictures.py` when rows were added.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from recallm_core.evaluation.frame.results import mean, read_run
from recallm_core.evaluation.metrics import Interval
from recallm_core.evaluation.plots import COLOURS, STYLE, grouped_bars
from recallm_core.evaluation.positions import plots as positions
from recallm_core.evaluation.rows import Row
from recallm_core.evaluation.ruler import plots as ruler
from recallm_core.evaluation.thought import plots as thought

RESULTS = Path(__file__).parent / "results"
MODELS = {
    "Qwen2.5-Coder\n0.5B": "qwen2.5-coder-0.5b-instruct",
    "SmolLM2\n135M": "smollm2-135m-instruct",
}
SUITES = {"nq": "Natural Questions", "squad2": "SQuAD 2.0"}
PANELS = {
    "cited": "Answers with a citation",
    "hit": "A quote holds the answer",
    "right": "The words hold the answer",
}
WAYS = {"first": "evidence first", "without us": "without us"}
DRAWN: dict[str, tuple[str, str, Callable[[Sequence[Row], Path], list[str]]]] = {
    "ruler-depth.png": ("ruler.recallm-mini", "depth.png", ruler.draw),
    "ruler-smollm2.png": ("ruler.smollm2-135m-q4_1.gguf", "depth.png", ruler.draw),
    "positions.png": ("positions.smollm2-135m-q4_1.gguf", "positions.png", positions.draw),
    "thought.png": ("thought.qwen2.5-coder-0.5b-q4_k_m.gguf", "conditions.png", thought.draw),
}


def rows_of(name: str) -> list[Row]:
    """The stored rows of a run."""
    return read_run(RESULTS / "rows" / f"{name}.jsonl.gz")


def main() -> None:
    """Writes every picture."""
    with tempfile.TemporaryDirectory() as name:
        for file, (run, drawn, draw) in DRAWN.items():
            assert drawn in draw(rows_of(run), Path(name))
            (RESULTS / file).write_bytes((Path(name) / drawn).read_bytes())
    with mpl.rc_context(STYLE):
        citations().savefig(RESULTS / "cited.png", dpi=130)


def citations() -> Figure:
    """What answers cite and hold, for each model and kind of question."""
    rows = {model: rows_of(f"cited.{run}") for model, run in MODELS.items()}
    figure = Figure(figsize=(9.6, 5.4), layout="constrained")
    places = figure.subplots(len(SUITES), len(PANELS))
    colours = dict(zip(WAYS.values(), (COLOURS[0], COLOURS[4]), strict=True))
    for suite, line in zip(SUITES, places, strict=True):
        for (measure, title), axes in zip(PANELS.items(), line, strict=True):
            ways = WAYS if measure == "right" else {"first": WAYS["first"]}
            series: dict[str, list[Interval | None]] = {
                name: [mean(_asked(all_rows, suite, way), measure) for all_rows in rows.values()]
                for way, name in ways.items()
            }
            grouped_bars(axes, list(rows), series, colours)
            axes.set_title(f"{SUITES[suite]}: {title[0].lower()}{title[1:]}", fontsize=9)
    handles, labels = places[0][-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _asked(rows: Sequence[Row], suite: str, way: str) -> list[Row]:
    return [row for row in rows if row["suite"] == suite and row["condition"] == way]


if __name__ == "__main__":
    main()
