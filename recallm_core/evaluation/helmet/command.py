"""The command ``recallm eval helmet``: its arguments, and the run that they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from recallm_core.errors import RecallmError
from recallm_core.evaluation.datasets import MissingDataError, rows_of
from recallm_core.evaluation.environment import commit
from recallm_core.evaluation.frame.arguments import (
    add_suite,
    data_of,
    names_of,
    settings_of,
    ways_of,
)
from recallm_core.evaluation.frame.lengths import Meter, shown_length
from recallm_core.evaluation.frame.report import write_suite
from recallm_core.evaluation.frame.run import Cell, ask
from recallm_core.evaluation.helmet import report
from recallm_core.evaluation.helmet.places import Place
from recallm_core.evaluation.helmet.scores import answer_scores
from recallm_core.evaluation.helmet.tasks import TASKS, Task, released_questions, samples
from recallm_core.evaluation.rows import Row
from recallm_core.evaluation.runner import check_settings
from recallm_core.generator import RecaLLM

NAME = "helmet"
Say = Callable[[str], None]


def add_parser(kinds: Any) -> None:
    """Adds the command to the parser of ``recallm eval``."""
    parser = kinds.add_parser(
        NAME,
        help="HELMET-style tasks (rebuilt): recall, RAG, many-shot, ranking, citing",
        description="Runs what can be rebuilt of HELMET without its data and without a judge; "
        "--helmet-data reads its released RAG files instead. Writes rows.jsonl, report.html, "
        "report.md, summary.json and a plot. A run that was stopped goes on with --resume.",
        epilog="tasks: " + ", ".join(TASKS),
    )
    add_suite(parser, n=50, lengths="4k", arms=("recall", "plain"))
    parser.add_argument(
        "--tasks",
        type=names_of("task", tuple(TASKS)),
        default=tuple(TASKS),
        help="names, by commas (all)",
    )
    parser.add_argument(
        "--helmet-data", type=Path, help="folder with HELMET's released files (kilt/*.jsonl)"
    )


def measure(llm: RecaLLM, arguments: argparse.Namespace, command: str, say: Say) -> None:
    """Runs the command with a loaded model.

    Raises:
        RecallmError: A length is above the model's context length, or there is no data.
    """
    meter = Meter(llm, arguments.thought)
    meter.check(arguments.lengths)
    place = Place(data_of(arguments), arguments.helmet_data)
    if place.released is not None:
        released_questions(place.released)
    tasks, notes = _usable(arguments.tasks, place)
    for note in notes:
        say(note)
    folder = arguments.out or Path("runs") / f"{NAME}-{llm.name}"
    source = "HELMET's released files" if place.released else "rebuilt"
    settings = settings_of(llm, arguments, helmet=source)
    with ExitStack() as stack:
        ways = ways_of(llm, arguments, stack)
        check_settings(folder, settings, resume=arguments.resume)
        cells = _cells(tasks, arguments, meter, place)
        result = ask(ways, cells, folder, say, batch=arguments.batch, score=answer_scores)
    about = settings | {"command": command, "commit": commit()}
    write_report(folder, about | {"left_out": [*notes, *result.left_out]})
    say(f"report: {folder / 'report.html'}")


def _usable(names: Sequence[str], place: Place) -> tuple[list[Task], list[str]]:
    """The tasks whose data is there, and why others are left out.

    Raises:
        RecallmError: No task is usable.
    """
    usable: list[Task] = []
    notes: list[str] = []
    for name in names:
        try:
            for need in TASKS[name].need:
                rows_of(place.data, need)
        except MissingDataError as error:
            notes.append(f"{name} is left out: {error}")
        else:
            usable.append(TASKS[name])
    if not usable:
        raise RecallmError(notes[0])
    return usable, notes


def _cells(
    tasks: Sequence[Task], arguments: argparse.Namespace, meter: Meter, place: Place
) -> list[Cell]:
    pairs = [
        (task, length)
        for length in arguments.lengths
        for task in tasks
        if not task.fixed or length == arguments.lengths[0]
    ]
    return [_cell(task, length, arguments, meter, place) for task, length in pairs]


def _cell(
    task: Task, length: int, arguments: argparse.Namespace, meter: Meter, place: Place
) -> Cell:
    n, seed = arguments.n, arguments.seed
    make = partial(samples, task, length, n, seed=seed, meter=meter, place=place)
    return Cell(
        NAME, task.name if task.fixed else f"{task.name} at {shown_length(length)}", n, make
    )


def write_report(folder: Path, about: dict[str, Any]) -> None:
    """Writes report and plot from the rows of a folder."""
    write_suite(folder, about, "HELMET-style", report, _draw)


def _draw(rows: Sequence[Row], folder: Path) -> list[str]:
    from recallm_core.evaluation.helmet.plots import draw

    return draw(rows, folder)
