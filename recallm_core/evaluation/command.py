"""The command ``recallm eval mini``: its arguments, and the run that they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recallm_core.evaluation.conditions import conditions
from recallm_core.evaluation.environment import commit, machine, model_identity, sources
from recallm_core.evaluation.frame.arguments import add_model, names_of, positive
from recallm_core.evaluation.frame.page import write_page
from recallm_core.evaluation.report import write_report
from recallm_core.evaluation.runner import Plan, Results, check_settings, run
from recallm_core.evaluation.tasks import SUITES
from recallm_core.generator import RecaLLM
from recallm_core.inputs.arguments import MOST, whole_option
from recallm_core.prompting.params import GenerationParams

POLICIES = ("auto", "first", "required", "free")
Say = Callable[[str], None]


def add_parser(kinds: Any) -> None:
    """Adds the command to the parser of ``recallm eval``."""
    mini = kinds.add_parser(
        "mini",
        help="quotes, evidence, answers, abstention and speed of any model",
        description="Runs suites of questions under conditions (constraint on and off, priors, "
        "baselines) and writes rows.jsonl, summary.json, reports and plots. A run that was "
        "stopped goes on with --resume.",
        epilog="suites: " + ", ".join(SUITES),
    )
    add_model(mini)
    mini.add_argument("--out", type=Path, required=True, help="folder for the results")
    mini.add_argument("--resume", action="store_true", help="go on with the rows in --out")
    mini.add_argument("--n", "--limit", type=positive, dest="limit", help="items per suite at most")
    mini.add_argument(
        "--suite", type=names_of("suite", tuple(SUITES)), default=tuple(SUITES),
        help="names, by commas",
    )  # fmt: skip
    mini.add_argument(
        "--prior", type=_names, help="priors, by commas, the main one first (recipe's, then none)"
    )
    mini.add_argument("--policy", choices=POLICIES, help="what an output owes (the recipe's)")
    mini.add_argument(
        "--seed", type=whole_option(-MOST, MOST), help="of sampling, where the temperature isn't 0"
    )
    mini.add_argument("--constraint", type=_switches, default=("on", "off"), help="on, off or both")
    mini.add_argument("--max-new-tokens", type=positive, help="per answer (the recipe's)")
    mini.add_argument("--trained-tokens", type=positive, default=2048, help="longest in training")


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _switches(text: str) -> tuple[str, ...]:
    names = _names(text)
    if not names or set(names) - {"on", "off"}:
        raise argparse.ArgumentTypeError(f"must be on, off or on,off, got {text!r}")
    return names


def measure(llm: RecaLLM, arguments: argparse.Namespace, command: str, say: Say) -> None:
    """Runs the command with a loaded model.

    Raises:
        RecallmError: The folder or the data can't be used.
        ValueError: A setting is out of range.
    """
    plan = _plan(llm, arguments)
    for condition in conditions(plan.priors, plan.constraint):
        condition.way(llm, plan.params)  # an unknown prior is refused before anything runs
    settings = _settings(llm, arguments)
    check_settings(arguments.out, settings, resume=arguments.resume)
    about = settings | {"command": command, "commit": commit()}
    results = run(llm, plan, arguments.out, say)
    write_report(results, about, arguments.out, _plots(results, arguments.out))
    write_page(arguments.out, f"Evaluation of {llm.name}")
    say(f"report: {arguments.out / 'report.md'}")


def _plan(llm: RecaLLM, arguments: argparse.Namespace) -> Plan:
    params = GenerationParams(
        temperature=0.0,
        max_new_tokens=arguments.max_new_tokens,
        evidence=arguments.policy,
        seed=arguments.seed,
    )
    return Plan(
        suites=arguments.suite,
        priors=arguments.prior or tuple(dict.fromkeys((llm.recipe.prior, "none"))),
        constraint=arguments.constraint,
        limit=arguments.limit,
        params=params,
        trained_tokens=arguments.trained_tokens,
    )


def _settings(llm: RecaLLM, arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        **model_identity(arguments.model, llm, arguments.base),
        "sources": sources(),
        "max_new_tokens": arguments.max_new_tokens,
        "trained_tokens": arguments.trained_tokens,
        "policy": arguments.policy,
        "threads": arguments.threads,
        "machine": machine(),
    }


def _plots(results: Results, folder: Path) -> list[str] | None:
    """Draws the plots; None without matplotlib."""
    if find_spec("matplotlib") is None:
        return None
    from recallm_core.evaluation.plots import draw

    return draw(results, folder)
