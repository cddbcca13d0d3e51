"""The command ``recallm eval positions``: its arguments, and the run that they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from recallm_core.evaluation.environment import commit
from recallm_core.evaluation.frame.arguments import add_suite, data_of, settings_of, ways_of
from recallm_core.evaluation.frame.lengths import Meter
from recallm_core.evaluation.frame.report import write_suite
from recallm_core.evaluation.frame.run import Cell, ask
from recallm_core.evaluation.positions import report
from recallm_core.evaluation.positions.items import (
    CLOSED,
    ORACLE,
    controls,
    places,
    questions,
    samples,
)
from recallm_core.evaluation.positions.scores import answer_scores
from recallm_core.evaluation.rows import Row
from recallm_core.evaluation.runner import check_settings
from recallm_core.generator import RecaLLM

NAME = "positions"
Say = Callable[[str], None]


def add_parser(kinds: Any) -> None:
    """Adds the command to the parser of ``recallm eval``."""
    parser = kinds.add_parser(
        NAME,
        help="lost in the middle: questions over many documents, the gold one at every position",
        description="Asks Natural Questions over 10, 20 and 30 passages with the one that answers "
        "at each position, and over that one alone and none at all. Writes rows.jsonl, "
        "report.html, report.md, summary.json and a plot. A run that was stopped goes on with "
        "--resume.",
    )
    add_suite(parser, n=100, lengths=None, arms=("recall", "unmasked", "plain", "thinking"))
    parser.add_argument(
        "--documents", type=_counts, default=(10, 20, 30), help="by commas (10,20,30)"
    )


def _counts(text: str) -> tuple[int, ...]:
    counts = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    if min(counts) < 3:
        raise argparse.ArgumentTypeError(f"must be numbers of at least 3, got {text!r}")
    return counts


def measure(llm: RecaLLM, arguments: argparse.Namespace, command: str, say: Say) -> None:
    """Runs the command with a loaded model.

    Raises:
        RecallmError: The data isn't there, or the folder can't be used.
    """
    data = data_of(arguments)
    rows = questions(data, arguments.n, arguments.seed)
    meter = Meter(llm, arguments.thought)
    folder = arguments.out or Path("runs") / f"{NAME}-{llm.name}"
    settings = settings_of(llm, arguments)
    with ExitStack() as stack:
        ways = ways_of(llm, arguments, stack)
        check_settings(folder, settings, resume=arguments.resume)
        cells = _cells(rows, arguments.documents, data, meter)
        result = ask(ways, cells, folder, say, batch=arguments.batch, score=answer_scores)
    about = settings | {"command": command, "commit": commit(), "left_out": list(result.left_out)}
    write_report(folder, about)
    say(f"report: {folder / 'report.html'}")


def _cells(
    rows: Sequence[dict[str, Any]], counts: Sequence[int], data: Path, meter: Meter
) -> list[Cell]:
    n = len(rows)
    placed = [
        Cell(
            NAME,
            f"{count} documents, gold at {place}",
            n,
            partial(samples, rows, count, place, folder=data, meter=meter),
        )
        for count in counts
        for place in places(count)
    ]
    alone = [Cell(NAME, kind, n, partial(controls, rows, kind)) for kind in (ORACLE, CLOSED)]
    return [*alone, *placed]


def write_report(folder: Path, about: dict[str, Any]) -> None:
    """Writes report and plot from the rows of a folder."""
    write_suite(folder, about, "Positions of the gold passage", report, _draw)


def _draw(rows: Sequence[Row], folder: Path) -> list[str]:
    from recallm_core.evaluation.positions.plots import draw

    return draw(rows, folder)
