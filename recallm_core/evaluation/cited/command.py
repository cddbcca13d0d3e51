"""The command ``recallm eval cited``: its arguments, and the run that they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from recallm_core.evaluation.cited.baseline import ByPlainModel
from recallm_core.evaluation.cited.items import DEFAULT, NAMES, suite_items
from recallm_core.evaluation.cited.own import read_own
from recallm_core.evaluation.cited.policies import ByPolicy
from recallm_core.evaluation.cited.report import show, write_report
from recallm_core.evaluation.cited.run import Answers, ask_all
from recallm_core.evaluation.datasets import MissingDataError
from recallm_core.evaluation.environment import commit, machine, model_identity, sources
from recallm_core.evaluation.frame.arguments import add_model, names_of
from recallm_core.evaluation.frame.page import write_page
from recallm_core.evaluation.frame.records import Way
from recallm_core.evaluation.items import Item
from recallm_core.evaluation.runner import check_settings
from recallm_core.generator import RecaLLM
from recallm_core.inputs.arguments import (
    MOST,
    MOST_COUNTED,
    MOST_THREADS,
    MOST_TOKENS,
    whole_option,
)
from recallm_core.prompting.params import GenerationParams
from recallm_core.train.tasks.datasets import data_folder

POLICIES = ("auto", "first", "required", "free")
PRIORS = ("none", "sentences", "reader")
_DEFAULT_POLICIES = ("first", "required", "free")
_TOKENS = 256
Say = Callable[[str], None]
Suites = dict[str, Sequence[Item]]


def add_parser(kinds: Any) -> None:
    """Adds the command to the parser of ``recallm eval``."""
    parser = kinds.add_parser(
        "cited",
        help="what a model does with each evidence policy, beside the same model without us",
        description="Asks questions over three documents each, under evidence policies, and with "
        "--baseline the same model in plain words without the library. Prints a table and writes "
        "rows.jsonl, summary.json, report.md and a plot. A run that was stopped goes on with "
        "--resume.",
        epilog="suites: " + ", ".join(NAMES),
    )
    add_model(parser)
    parser.add_argument(
        "--policy",
        type=names_of("policy", (*POLICIES, *(f"{p}/{s}" for p in POLICIES for s in PRIORS))),
        default=_DEFAULT_POLICIES,
        help=f"of {', '.join(POLICIES)}, by commas ({','.join(_DEFAULT_POLICIES)}); a scorer of "
        f"evidence other than the model's own stands behind a slash ({', '.join(PRIORS)}): "
        "required/none",
    )
    parser.add_argument("--baseline", action="store_true", help="also the model without us")
    parser.add_argument(
        "--n", type=whole_option(1, MOST_COUNTED), default=100, help="questions of each suite (100)"
    )
    parser.add_argument(
        "--seed",
        type=whole_option(-MOST, MOST),
        default=0,
        help="chooses questions and distractors (0)",
    )
    parser.add_argument(
        "--suites", type=names_of("suite", NAMES), default=DEFAULT, help="names, by commas"
    )
    parser.add_argument(
        "--data", type=Path, help="data folder (RECALLM_DATA), or JSON Lines of your own questions"
    )
    parser.add_argument("--out", type=Path, help="folder for the results (runs/cited-MODEL)")
    parser.add_argument("--resume", action="store_true", help="go on with the rows in --out")
    parser.add_argument(
        "--batch", type=whole_option(1, MOST_THREADS), default=8, help="questions asked at once (8)"
    )
    parser.add_argument(
        "--max-new-tokens",
        type=whole_option(1, MOST_TOKENS),
        default=_TOKENS,
        help="per answer (256)",
    )


def measure(llm: RecaLLM, arguments: argparse.Namespace, command: str, say: Say) -> None:
    """Runs the command with a loaded model.

    Raises:
        RecallmError: The folder, the data or the model can't be used for it.
        ValueError: A setting is out of range.
    """
    suites, notes = _suites(arguments)
    for note in notes:
        say(note)
    ways = _ways(llm, arguments)
    folder = arguments.out or Path("runs") / f"cited-{llm.name}"
    settings = _settings(llm, arguments)
    check_settings(folder, settings, resume=arguments.resume)
    answers = ask_all(ways, suites, folder, say, batch=arguments.batch)
    answers.notes.extend(notes)
    about = settings | {"command": command, "commit": commit()}
    write_report(answers, about, folder, _plots(answers, folder))
    write_page(folder, f"Cited answers of {llm.name}")
    show(answers, Console())
    say(f"report: {folder / 'report.md'}")


def _suites(arguments: argparse.Namespace) -> tuple[Suites, list[str]]:
    """The questions, and what was left out of them.

    Raises:
        MissingDataError: None of the suites has its file.
        OwnRowsError: The user's own file has no usable line.
    """
    if arguments.data is not None and not arguments.data.exists():
        raise MissingDataError(f"--data: there is no file or folder {arguments.data}")
    if arguments.data is not None and arguments.data.is_file():
        user_rows = read_own(arguments.data, arguments.n)
        return {"own": user_rows.items}, list(user_rows.bad)
    folder = arguments.data or data_folder()
    suites: Suites = {}
    notes: list[str] = []
    for name in arguments.suites:
        try:
            suites[name] = suite_items(name, folder, arguments.n, arguments.seed)
        except MissingDataError as error:
            notes.append(f"{name} is left out: {error}")
    if not suites:
        raise MissingDataError(notes[0])
    return suites, notes


def _ways(llm: RecaLLM, arguments: argparse.Namespace) -> list[Way]:
    params = GenerationParams(temperature=0.0, max_new_tokens=arguments.max_new_tokens)
    ways: list[Way] = [ByPolicy(llm, policy, params) for policy in arguments.policy]
    if arguments.baseline:
        ways.append(ByPlainModel(llm, arguments.max_new_tokens))
    return ways


def _settings(llm: RecaLLM, arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        **model_identity(arguments.model, llm, arguments.base),
        "sources": sources(),
        "max_new_tokens": arguments.max_new_tokens,
        "batch": arguments.batch,
        "threads": arguments.threads,
        "machine": machine(),
    }


def _plots(answers: Answers, folder: Path) -> list[str] | None:
    """Draws the plot; None without matplotlib."""
    if find_spec("matplotlib") is None:
        return None
    from recallm_core.evaluation.cited.plot import draw

    return draw(answers, folder)
