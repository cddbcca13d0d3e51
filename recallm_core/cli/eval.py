"""The command ``recallm eval``: one subcommand a suite, and what is done with runs."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recallm_core.errors import RecallmError
from recallm_core.evaluation import command as mini
from recallm_core.evaluation.cited import command as cited
from recallm_core.evaluation.frame.arguments import say
from recallm_core.evaluation.frame.compact import pack
from recallm_core.evaluation.frame.compare import compare, comparison_table
from recallm_core.evaluation.helmet import command as helmet
from recallm_core.evaluation.positions import command as positions
from recallm_core.evaluation.ruler import command as ruler
from recallm_core.evaluation.thought import command as thought
from recallm_core.generator import RecaLLM

SUITES: dict[str, Any] = {
    "mini": mini,
    "cited": cited,
    "ruler": ruler,
    "positions": positions,
    "thought": thought,
    "helmet": helmet,
}


def parser() -> argparse.ArgumentParser:
    """Returns the parser of ``recallm eval``."""
    top = argparse.ArgumentParser(prog="recallm eval", description="Measures a model.")
    kinds = top.add_subparsers(dest="kind", required=True)
    for suite in SUITES.values():
        suite.add_parser(kinds)
    _add_compare(kinds)
    _add_pack(kinds)
    return top


def _add_compare(kinds: Any) -> None:
    two = kinds.add_parser(
        "compare",
        help="two runs side by side, on the samples that both were asked",
        description="Compares two runs of a suite pair by pair: differences with their paired "
        "bootstrap intervals, and McNemar's exact test where answers are right or wrong.",
    )
    two.add_argument("first", type=Path, help="folder of a run")
    two.add_argument("second", type=Path, help="another one; the same to compare two of its ways")
    two.add_argument("--ways", nargs=2, metavar=("A", "B"), help="A of the first, B of the second")


def _add_pack(kinds: Any) -> None:
    pack = kinds.add_parser(
        "pack",
        help="the rows of runs as one small file, without texts",
        description="Writes what the figures of reports are computed from, for keeping.",
    )
    pack.add_argument("runs", type=Path, nargs="+", help="folders of runs")
    pack.add_argument("--out", type=Path, required=True, help="a .jsonl.gz file")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``eval`` with command-line arguments; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = parser().parse_args(words)
    try:
        if arguments.kind == "compare":
            pair = tuple(arguments.ways) if arguments.ways else None
            sys.stdout.write(comparison_table(compare(arguments.first, arguments.second, pair)))
        elif arguments.kind == "pack":
            rows = pack(arguments.runs, arguments.out)
            sys.stdout.write(f"{rows:,} rows in {arguments.out}\n")
        else:
            _measure(arguments, shlex.join(["recallm", "eval", *words]))
    except (RecallmError, ValueError) as error:
        sys.stderr.write(f"recallm eval: {error}\n")
        return 1
    return 0


def _measure(arguments: argparse.Namespace, command: str) -> None:
    import torch

    torch.set_num_threads(arguments.threads)
    named = {"device": arguments.device, "base": arguments.base}
    options = {name: value for name, value in named.items() if value}
    with RecaLLM.load(arguments.model, mode=arguments.mode, **options) as llm:
        SUITES[arguments.kind].measure(llm, arguments, command, say)
