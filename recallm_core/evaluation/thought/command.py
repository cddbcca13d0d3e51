"""The command ``recallm eval thought``: its arguments, and the run that they ask for."""

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
    at_least_0,
    data_of,
    settings_of,
    ways_of,
)
from recallm_core.evaluation.frame.lengths import Meter, shown_length
from recallm_core.evaluation.frame.report import write_suite
from recallm_core.evaluation.frame.run import Cell, ask
from recallm_core.evaluation.frame.sample import Sample
from recallm_core.evaluation.frame.texts import NOISE, Haystack, haystack
from recallm_core.evaluation.rows import Row
from recallm_core.evaluation.runner import check_settings
from recallm_core.evaluation.thought import report
from recallm_core.evaluation.thought.conditions import (
    ABSENT,
    CONDITIONS,
    OPENED,
    SOLVE,
    Beginnings,
    dictionaries,
    samples,
)
from recallm_core.evaluation.thought.dictionaries import Dictionary
from recallm_core.evaluation.thought.scores import answer_scores
from recallm_core.evaluation.thought.traces import SOURCES, ByThinking, own_traces, templates
from recallm_core.generator import RecaLLM
from recallm_core.prompting.params import GenerationParams

NAME = "thought"
_ENOUGH = 0.5  # of the dictionaries with a right trace: then the model's own are replayed
Say = Callable[[str], None]


def add_parser(kinds: Any) -> None:
    """Adds the command to the parser of ``recallm eval``."""
    parser = kinds.add_parser(
        NAME,
        help="lost in thought: the same look-up directly, and after every kind of beginning",
        description="Asks for a value of a dictionary under paired conditions: directly, after the "
        "model's own working, after another's, after filler, after the literal prefix, with a span "
        "opened, and for a key that isn't there. Writes rows.jsonl, the traces, report.html, "
        "report.md, summary.json and plots. A run that was stopped goes on with --resume.",
        epilog="conditions: " + "; ".join(CONDITIONS),
    )
    add_suite(parser, n=50, lengths="1k", arms=("recall", "bare", "unmasked", "plain"), thought=192)
    parser.add_argument(
        "--traces",
        choices=SOURCES,
        default="auto",
        help="own: the model's own right working; templated: made by rule; auto: own where half of "
        "them are right (auto)",
    )
    parser.add_argument(
        "--doses", type=_doses, default=(), help="tokens of trace, by commas: 64,256,1024 (none)"
    )
    parser.add_argument(
        "--trace-tokens", type=at_least_0, default=256, help="of the model's own working (256)"
    )
    parser.add_argument(
        "--skip-opened",
        action="store_true",
        help="not the conditions with a span opened: one that must quote first opens it anyway",
    )


def _doses(text: str) -> tuple[int, ...]:
    doses = tuple(sorted({int(part) for part in text.split(",")}))
    if doses[0] < 1:
        raise argparse.ArgumentTypeError(f"must be numbers of at least 1, got {text!r}")
    return doses


def measure(llm: RecaLLM, arguments: argparse.Namespace, command: str, say: Say) -> None:
    """Runs the command with a loaded model.

    Raises:
        RecallmError: A length is above the model's context length, or the folder can't be used.
    """
    meter = Meter(llm, arguments.thought + max(arguments.doses, default=0))
    meter.check(arguments.lengths)
    folder = arguments.out or Path("runs") / f"{NAME}-{llm.name}"
    settings = settings_of(llm, arguments, traces=arguments.traces, doses=list(arguments.doses))
    with ExitStack() as stack:
        ways = ways_of(llm, arguments, stack)
        check_settings(folder, settings, resume=arguments.resume)
        entries = _entries(arguments, meter)
        traces, provenance = _traces(llm, arguments, entries, folder, say)
        say(provenance)
        begin = Beginnings(traces, _filler(arguments), "" if llm.recipe.thinks else "Answer: ")
        cells = _cells(arguments, begin, meter)
        result = ask(ways, cells, folder, say, batch=arguments.batch, score=answer_scores)
    about = settings | {"command": command, "commit": commit(), "traces_used": provenance}
    write_report(folder, about | {"left_out": list(result.left_out)})
    say(f"report: {folder / 'report.html'}")


def _entries(arguments: argparse.Namespace, meter: Meter) -> Sequence[Dictionary]:
    """The dictionaries of the shortest length: equations are the same at all of them."""
    shortest = min(arguments.lengths)
    return dictionaries(shortest, arguments.n, seed=arguments.seed, meter=meter)


def _filler(arguments: argparse.Namespace) -> Haystack:
    try:
        return haystack(None, data_of(arguments))
    except MissingDataError:
        return Haystack("noise", tuple(f"{part.rstrip('.')}." for part in NOISE.split(". ")))


def _traces(
    llm: RecaLLM,
    arguments: argparse.Namespace,
    entries: Sequence[Dictionary],
    folder: Path,
    say: Say,
) -> tuple[dict[int, str], str]:
    """What is replayed, and what a report says about it."""
    by_rule = dict(templates(entries))
    if arguments.traces == "templated":
        return by_rule, "made by rule"
    params = GenerationParams(temperature=arguments.temperature, seed=arguments.seed)
    way = ByThinking(llm, "trace", params, arguments.trace_tokens)
    by_model = own_traces(way, entries, folder / "traces", say, batch=arguments.batch)
    right = f"{len(by_model)} of the model's own {len(entries)} traces are right"
    if arguments.traces == "own" or len(by_model) >= _ENOUGH * len(entries):
        return by_model, f"the model's own; {right}"
    return by_rule, f"made by rule, as {right}"


def _cells(arguments: argparse.Namespace, begin: Beginnings, meter: Meter) -> list[Cell]:
    single = (SOLVE, ABSENT)
    paired = tuple(
        name
        for name in CONDITIONS
        if name not in single and not (arguments.skip_opened and name.endswith(OPENED))
    )
    return [
        Cell(
            NAME,
            f"{shown_length(length)}, {kind}",
            arguments.n * count,
            partial(_samples, arguments, length, begin, meter, names),
        )
        for length in arguments.lengths
        for kind, names, count in (
            ("paired", paired, len(paired) + len(arguments.doses)),
            ("solved", single, len(single)),
        )
    ]


def _samples(
    arguments: argparse.Namespace,
    length: int,
    begin: Beginnings,
    meter: Meter,
    names: Sequence[str],
) -> list[Sample]:
    entries = dictionaries(length, arguments.n, seed=arguments.seed, meter=meter)
    doses = () if SOLVE in names else arguments.doses
    return samples(entries, length, begin, meter, doses, names)


def write_report(folder: Path, about: dict[str, Any]) -> None:
    """Writes report and plots from the rows of a folder."""
    write_suite(folder, about, "Lost in thought", report, _draw)


def _draw(rows: Sequence[Row], folder: Path) -> list[str]:
    from recallm_core.evaluation.thought.plots import draw

    return draw(rows, folder)
