"""The command ``recallm eval ruler``: its arguments, and the run that they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from recallm_core.evaluation.datasets import MissingDataError
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
from recallm_core.evaluation.rows import Row
from recallm_core.evaluation.ruler import report
from recallm_core.evaluation.ruler.scores import answer_scores
from recallm_core.evaluation.ruler.tasks import NEED_TEXT, TASKS, Task, Texts, samples
from recallm_core.evaluation.runner import check_settings
from recallm_core.generator import RecaLLM

NAME = "ruler"
Say = Callable[[str], None]


def add_parser(kinds: Any) -> None:
    """Adds the command to the parser of ``recallm eval``."""
    parser = kinds.add_parser(
        NAME,
        help="RULER's 13 long-context tasks, at lengths by the model's own tokenizer",
        description="Runs the tasks by RULER's rules, scored as RULER scores and by precision. "
        "Writes rows.jsonl, report.html, report.md, summary.json and plots. A run that was stopped "
        "goes on with --resume.",
        epilog="tasks: " + ", ".join(TASKS),
    )
    add_suite(parser, n=100, lengths="1k,4k", arms=("recall",))
    parser.add_argument(
        "--tasks", type=_tasks, default=tuple(TASKS), help="names, by commas, or all (all)"
    )
    parser.add_argument("--haystack", type=Path, help="folder of text files to hide needles in")


def _tasks(text: str) -> tuple[str, ...]:
    return tuple(TASKS) if text == "all" else names_of("task", tuple(TASKS))(text)


def measure(llm: RecaLLM, arguments: argparse.Namespace, command: str, say: Say) -> None:
    """Runs the command with a loaded model.

    Raises:
        RecallmError: A length is above the model's context length, or the folder can't be used.
    """
    meter = Meter(llm, arguments.thought)
    meter.check(arguments.lengths)
    texts = Texts(data_of(arguments), arguments.haystack)
    names, notes = _usable(arguments.tasks, texts)
    for note in notes:
        say(note)
    hay = texts.hay().name if set(names) & set(NEED_TEXT) else "none"
    folder = arguments.out or Path("runs") / f"{NAME}-{llm.name}"
    settings = settings_of(llm, arguments, haystack=hay)
    with ExitStack() as stack:
        ways = ways_of(llm, arguments, stack)
        check_settings(folder, settings, resume=arguments.resume)
        cells = [
            _cell(arguments, TASKS[name], n, meter, texts)
            for n in arguments.lengths
            for name in names
        ]
        result = ask(ways, cells, folder, say, batch=arguments.batch, score=answer_scores)
    about = settings | {
        "command": command,
        "commit": commit(),
        "left_out": [*notes, *result.left_out],
    }
    write_report(folder, about)
    say(f"report: {folder / 'report.html'}")


def _cell(
    arguments: argparse.Namespace, task: Task, length: int, meter: Meter, texts: Texts
) -> Cell:
    make = partial(
        samples, task, length, arguments.n, seed=arguments.seed, meter=meter, texts=texts
    )
    return Cell(NAME, f"{task.name} at {shown_length(length)}", arguments.n, make)


def _usable(names: Sequence[str], texts: Texts) -> tuple[list[str], list[str]]:
    """The tasks whose text is there, and why others are left out.

    Raises:
        MissingDataError: No task is usable.
    """
    usable: list[str] = []
    notes: list[str] = []
    for name in names:
        try:
            _need(name, texts)
        except MissingDataError as error:
            notes.append(f"{name} is left out: {error}")
        else:
            usable.append(name)
    if not usable:
        raise MissingDataError(notes[0])
    return usable, notes


def _need(name: str, texts: Texts) -> None:
    from recallm_core.evaluation.ruler.questions import hotpot, squad

    if name in NEED_TEXT:
        texts.hay()
    if name == "qa_1":
        squad(texts.data)
    if name == "qa_2":
        hotpot(texts.data)


def write_report(folder: Path, about: dict[str, Any]) -> None:
    """Writes report and plots from the rows of a folder."""
    write_suite(folder, about, "RULER", report, _draw)


def _draw(rows: Sequence[Row], folder: Path) -> list[str]:
    from recallm_core.evaluation.ruler.plots import draw

    return draw(rows, folder)
