"""The command ``recallm eval``: what to measure, and where to write it."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recallm_core.errors import RecallmError
from recallm_core.evaluation.cited import command as cited
from recallm_core.evaluation.cited.command import say
from recallm_core.evaluation.conditions import conditions
from recallm_core.evaluation.environment import commit, machine, model_identity, sources
from recallm_core.evaluation.report import write_report
from recallm_core.evaluation.runner import Plan, Results, check_settings, run
from recallm_core.evaluation.tasks import SUITES
from recallm_core.generator import RecaLLM
from recallm_core.inputs.arguments import MOST_COUNTED, MOST_THREADS, MOST_TOKENS, whole_option
from recallm_core.prompting.params import GenerationParams


def parser() -> argparse.ArgumentParser:
    """Returns the parser of ``recallm eval``."""
    top = argparse.ArgumentParser(prog="recallm eval", description="Measures a model.")
    kinds = top.add_subparsers(dest="kind", required=True)
    mini = kinds.add_parser(
        "mini",
        help="quotes, evidence, answers, abstention and speed of any model",
        description="Runs suites of questions under conditions (constraint on and off, priors, "
        "baselines) and writes rows.jsonl, summary.json, report.md and plots. A run that was "
        "stopped goes on with --resume.",
        epilog="suites: " + ", ".join(SUITES),
    )
    mini.add_argument("--model", default="recallm-mini", help="recallm-mini, a folder or a hub id")
    mini.add_argument("--mode", default="auto", help="auto, trained or prompted")
    mini.add_argument("--out", type=Path, required=True, help="folder for the results")
    mini.add_argument("--resume", action="store_true", help="go on with the rows in --out")
    mini.add_argument("--limit", type=whole_option(1, MOST_COUNTED), help="items per suite at most")
    mini.add_argument("--suite", type=_suites, default=tuple(SUITES), help="names, by commas")
    mini.add_argument(
        "--prior", type=_names, help="priors, by commas, the main one first (recipe's, then none)"
    )
    mini.add_argument("--constraint", type=_switches, default=("on", "off"), help="on, off or both")
    mini.add_argument(
        "--max-new-tokens", type=whole_option(1, MOST_TOKENS), help="per answer (the recipe's)"
    )
    mini.add_argument(
        "--trained-tokens",
        type=whole_option(1, MOST_TOKENS),
        default=2048,
        help="longest in training",
    )
    mini.add_argument(
        "--threads", type=whole_option(1, MOST_THREADS), default=2, help="of torch (2)"
    )
    mini.add_argument("--device", help="cpu, cuda, ... (chosen by itself)")
    cited.add_parser(kinds)
    return top


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _suites(text: str) -> tuple[str, ...]:
    names = _names(text)
    unknown = [name for name in names if name not in SUITES]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"no suite {unknown}; there are {', '.join(SUITES)}")
    return names


def _switches(text: str) -> tuple[str, ...]:
    names = _names(text)
    if not names or set(names) - {"on", "off"}:
        raise argparse.ArgumentTypeError(f"must be on, off or on,off, got {text!r}")
    return names


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``eval`` with command-line arguments; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = parser().parse_args(words)
    try:
        import torch

        torch.set_num_threads(arguments.threads)
        options = {"device": arguments.device} if arguments.device else {}
        with RecaLLM.load(arguments.model, mode=arguments.mode, **options) as llm:
            command = shlex.join(["recallm", "eval", *words])
            if arguments.kind == "cited":
                cited.measure(llm, arguments, command, say)
            else:
                _measure(llm, arguments, command)
    except (RecallmError, ValueError) as error:
        sys.stderr.write(f"recallm eval: {error}\n")
        return 1
    return 0


def _measure(llm: RecaLLM, arguments: argparse.Namespace, command: str) -> None:
    params = GenerationParams(temperature=0.0, max_new_tokens=arguments.max_new_tokens)
    plan = Plan(
        suites=arguments.suite,
        priors=arguments.prior or tuple(dict.fromkeys((llm.recipe.prior, "none"))),
        constraint=arguments.constraint,
        limit=arguments.limit,
        params=params,
        trained_tokens=arguments.trained_tokens,
    )
    for condition in conditions(plan.priors, plan.constraint):
        condition.way(llm, params)  # an unknown prior is refused before anything runs
    settings: dict[str, Any] = {
        **model_identity(arguments.model, llm),
        "sources": sources(),
        "max_new_tokens": arguments.max_new_tokens,
        "trained_tokens": arguments.trained_tokens,
        "threads": arguments.threads,
        "machine": machine(),
    }
    check_settings(arguments.out, settings, resume=arguments.resume)
    about = settings | {"command": command, "commit": commit()}
    results = run(llm, plan, arguments.out, say)
    write_report(results, about, arguments.out, _plots(results, arguments.out))
    say(f"report: {arguments.out / 'report.md'}")


def _plots(results: Results, folder: Path) -> list[str] | None:
    """Draws the plots; None without matplotlib."""
    if find_spec("matplotlib") is None:
        return None
    from recallm_core.evaluation.plots import draw

    return draw(results, folder)
