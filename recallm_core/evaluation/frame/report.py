"""The parts that all reports have: heading, tables of groups, pictures, and the files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from recallm_core.evaluation.frame.page import write_page
from recallm_core.evaluation.frame.results import failed_rows, group_by, mean, read_run, value
from recallm_core.evaluation.metrics import Interval
from recallm_core.evaluation.report import heading, table
from recallm_core.evaluation.rows import Row
from recallm_core.rendering.visible import one_line

_EXAMPLES = 3  # of each way
_SHOWN = 120  # characters of a text
Draw = Callable[[Path], list[str]]
Parts = Sequence[str]
DrawRows = Callable[[Sequence[Row], Path], list[str]]


class SuiteReport(Protocol):
    """The module of a suite's report."""

    def parts(self, rows: Sequence[Row], about: Mapping[str, Any], /) -> list[str]:
        """Returns its parts, as Markdown."""

    def data(self, rows: Sequence[Row], /) -> dict[str, Any]:
        """Returns its figures as plain values."""


def cell(value: Interval | None, *, scale: int = 100) -> str:
    """Returns a mean with its interval, as a table shows it; in per cent by default."""
    if value is None:
        return "-"
    digits = 0 if scale == 100 else 2
    mean, low, high = (scale * number for number in (value.mean, value.low, value.high))
    return f"{mean:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def by_groups(
    groups: Mapping[str, Sequence[Row]],
    measures: Mapping[str, str],
    first: str,
    *,
    scale: int = 100,
) -> str:
    """Returns a table: a line for each group, a column for each measure.

    Args:
        groups: Rows by the line's title.
        measures: Measures by the column's title.
        first: Title of the first column.
        scale: 100 shows per cent.
    """
    head = [first, "n", *measures]
    body = [
        [
            title,
            str(len(rows)),
            *(cell(mean(rows, name), scale=scale) for name in measures.values()),
        ]
        for title, rows in groups.items()
    ]
    return table(head, body)


def figures(rows: Sequence[Row], measures: Sequence[str]) -> dict[str, Any]:
    """Returns means and intervals as plain data."""
    intervals = {name: mean(rows, name) for name in measures}
    return {"n": len(rows)} | {
        n: asdict(value) for n, value in intervals.items() if value is not None
    }


def failures(rows: Sequence[Row]) -> str:
    """Returns the part about samples without an answer; empty where there are none."""
    if not rows:
        return ""
    first = rows[0]
    return (
        f"## Without an answer\n\n{len(rows)} samples; the first: {first['condition']}, "
        f"{first['id']}: {first['error']}\n"
    )


def ending(folder: Path, rows: Sequence[Row], about: Mapping[str, Any]) -> list[str]:
    """Returns the parts that end every report: what is missing, and what went wrong."""
    return [left_out(about), failures(failed_rows(folder)), examples(rows)]


def left_out(about: Mapping[str, Any]) -> str:
    """Returns the part about cells that couldn't be made; empty where there are none."""
    lines = [f"- {note}" for note in about.get("left_out", ())]
    return "## Left out\n\n" + "\n".join(lines) + "\n" if lines else ""


def examples(rows: Sequence[Row], measure: str = "score") -> str:
    """Returns the part with some answers that aren't right, a few of each way; rows need texts."""
    body = []
    for way, some in group_by(rows, lambda row: row["condition"]).items():
        wrong = [row for row in some if "text" in row and value(row, measure) not in (None, 1)]
        for row in wrong[:: max(1, len(wrong) // _EXAMPLES)][:_EXAMPLES]:
            golds = " / ".join(row["answers"][:3])
            body.append([way, row["id"], *map(_short, (row["question"], golds, row["text"]))])
    if not body:
        return ""
    return "## Some answers that aren't right\n\n" + table(
        ["way", "sample", "question", "wanted", "answer"], body
    )


def _short(text: str) -> str:
    """A text as a cell shows it: one line, no markup, cut where it is long."""
    line = one_line(text).replace("|", "/").replace("`", "'")
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]} ..."


def pictures(names: Sequence[str] | None) -> str:
    """Returns the part with the pictures; it says so where they couldn't be drawn."""
    if names is None:
        return (
            "## Plots\n\nNone: matplotlib isn't installed. `pip install 'recallm-core[eval]'` adds "
            "it; run the same command with `--resume` and they are drawn from the rows.\n"
        )
    return "\n\n".join(f"![{Path(name).stem}]({name})" for name in names) + "\n"


def draw_plots(draw: Draw, folder: Path) -> list[str] | None:
    """Draws pictures into a folder; None without matplotlib."""
    return None if find_spec("matplotlib") is None else draw(folder)


def write(
    folder: Path, title: str, about: Mapping[str, Any], parts: Parts, data: Mapping[str, Any]
) -> None:
    """Writes ``report.md``, ``report.html`` and ``summary.json``."""
    text = "\n".join(part for part in (heading(title, about), *parts) if part)
    (folder / "report.md").write_text(text, "utf-8")
    write_page(folder, title)
    plain = json.dumps({"about": dict(about), **data}, indent=1, ensure_ascii=False)
    (folder / "summary.json").write_text(plain + "\n", "utf-8")


def write_suite(
    folder: Path, about: Mapping[str, Any], title: str, report: SuiteReport, draw: DrawRows
) -> None:
    """Writes a suite's report, with its pictures, from the rows of a folder.

    Args:
        folder: Of the run.
        about: What the run was: model, command, settings.
        title: The suite's.
        report: The module that makes its parts and its figures.
        draw: Draws its pictures.
    """
    rows = read_run(folder)
    plots = draw_plots(partial(draw, rows), folder)
    parts = [*report.parts(rows, about), *ending(folder, rows, about), pictures(plots)]
    write(folder, f"{title}: {about.get('model', 'a model')}", about, parts, report.data(rows))
