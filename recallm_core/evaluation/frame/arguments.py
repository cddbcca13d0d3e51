"""What every suite's command takes, and the ways to answer that it asks for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from recallm_core.errors import RecallmError
from recallm_core.evaluation.environment import machine, model_identity, sources
from recallm_core.evaluation.frame.lengths import parse_lengths
from recallm_core.evaluation.frame.records import Way
from recallm_core.evaluation.frame.ways import (
    PLAIN,
    RECALL,
    THINKING,
    UNMASKED,
    ByPlain,
    ByRecall,
    ByUnmasked,
)
from recallm_core.generator import RecaLLM
from recallm_core.inputs.arguments import (
    MOST_COUNTED,
    MOST_THREADS,
    MOST_TOKENS,
    whole_option,
)
from recallm_core.prompting.params import GenerationParams, with_settings
from recallm_core.train.tasks.datasets import data_folder

POLICIES = ("auto", "first", "required", "free")
positive = whole_option(1, MOST_COUNTED)
threads = whole_option(1, MOST_THREADS)
at_least_0 = whole_option(0, MOST_TOKENS)
ARMS = ("recall", "bare", "unmasked", "plain", "thinking")
BARE = "recall without reader"
SAME = "same"
Say = Callable[[str], None]


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds what names and loads a model."""
    parser.add_argument(
        "--model", default="recallm-mini", help="recallm-mini, a folder, a hub id or a server"
    )
    parser.add_argument(
        "--base", metavar="MODEL", help="what an adapter goes on (default: what it names)"
    )
    parser.add_argument("--mode", default="auto", help="auto, trained or prompted")
    parser.add_argument("--threads", type=threads, default=2, help="of torch (2)")
    parser.add_argument("--device", help="cpu, cuda, ... (chosen by itself)")


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Adds where rows and data are."""
    parser.add_argument("--out", type=Path, help="folder for the results (runs/SUITE-MODEL)")
    parser.add_argument("--resume", action="store_true", help="go on with the rows in --out")
    parser.add_argument(
        "--seed",
        type=whole_option(-MOST_COUNTED, MOST_COUNTED),
        default=0,
        help="makes the samples (0)",
    )
    parser.add_argument("--batch", type=positive, default=4, help="samples asked at once (4)")


def add_suite(
    parser: argparse.ArgumentParser,
    *,
    n: int,
    lengths: str | None,
    arms: Sequence[str],
    thought: int = 256,
) -> None:
    """Adds what all long-context suites take.

    Args:
        parser: Of the suite's command.
        n: Samples of a cell, by default.
        lengths: Lengths by default; None: the suite has no lengths.
        arms: Ways to answer, by default.
        thought: Tokens for reasoning and evidence, by default.
    """
    add_model(parser)
    if lengths:
        parser.add_argument(
            "--lengths", type=parse_lengths, default=parse_lengths(lengths),
            help=f"tokens of prompt and answer, by the model's tokenizer ({lengths})",
        )  # fmt: skip
    parser.add_argument("--n", type=positive, default=n, help=f"samples of each cell ({n})")
    parser.add_argument(
        "--arms", type=names_of("arm", ARMS), default=tuple(arms),
        help="recall (as users have it), bare (without a prior), unmasked (spans may hold "
        f"anything), plain and thinking (the model without us), by commas ({','.join(arms)})",
    )  # fmt: skip
    parser.add_argument(
        "--policy", type=names_of("policy", POLICIES), default=("auto",),
        help="of the recall arms: auto, first, required, free, by commas (auto)",
    )  # fmt: skip
    parser.add_argument(
        "--baseline", nargs="?", const=SAME, metavar="MODEL",
        help="also the same model without us, or another MODEL without us",
    )  # fmt: skip
    parser.add_argument(
        "--thought", type=at_least_0, default=thought,
        help=f"output tokens for reasoning and evidence, beside the answer's ({thought})",
    )  # fmt: skip
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (0)")
    parser.add_argument("--data", type=Path, help="data folder (RECALLM_DATA)")
    add_folders(parser)


def names_of(what: str, known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Returns what reads names between commas."""

    def names(text: str) -> tuple[str, ...]:
        listed = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        unknown = [name for name in listed if name not in known]
        if unknown or not listed:
            raise argparse.ArgumentTypeError(f"no {what} {unknown}; there are {', '.join(known)}")
        return listed

    return names


def ways_of(llm: RecaLLM, arguments: argparse.Namespace, stack: ExitStack) -> list[Way]:
    """Returns the ways to answer.

    Args:
        llm: The model.
        arguments: Of the command.
        stack: Closes another model, where one was loaded.

    Raises:
        RecallmError: The other model can't be loaded.
    """
    params = GenerationParams(temperature=arguments.temperature, seed=arguments.seed)
    thought = arguments.thought
    makers: dict[str, Callable[[], list[Way]]] = {
        "recall": lambda: [
            ByRecall(llm, _way_name(policy), with_settings(params, {"evidence": policy}), thought)
            for policy in arguments.policy
        ],
        "bare": lambda: [ByRecall(llm, BARE, with_settings(params, {"prior": "none"}), thought)],
        "unmasked": lambda: [ByUnmasked(llm, UNMASKED, params, thought)],
        "plain": lambda: [ByPlain(llm, PLAIN, params)],
        "thinking": lambda: [ByPlain(llm, THINKING, params, thought)],
    }
    ways = [way for arm in arguments.arms for way in makers[arm]()]
    return ways + _baseline(llm, arguments, params, stack, [way.name for way in ways])


def _way_name(policy: str) -> str:
    return RECALL if policy == "auto" else f"{RECALL}, {policy}"


def _baseline(
    llm: RecaLLM,
    arguments: argparse.Namespace,
    params: GenerationParams,
    stack: ExitStack,
    names: Sequence[str],
) -> list[Way]:
    if arguments.baseline is None:
        return []
    if arguments.baseline in (SAME, arguments.model):
        return [] if PLAIN in names else [ByPlain(llm, PLAIN, params)]
    other = stack.enter_context(RecaLLM.load(arguments.baseline))
    return [ByPlain(other, f"{other.name} {PLAIN}", params)]


def settings_of(llm: RecaLLM, arguments: argparse.Namespace, **more: Any) -> dict[str, Any]:
    """Returns what a run's rows depend on; a run isn't gone on with under others."""
    return {
        **model_identity(arguments.model, llm, arguments.base),
        "sources": sources(),
        "seed": arguments.seed,
        "thought": arguments.thought,
        "temperature": arguments.temperature,
        "batch": arguments.batch,
        "threads": arguments.threads,
        "machine": machine(),
        **more,
    }


def data_of(arguments: argparse.Namespace) -> Path:
    """Returns the data folder.

    Raises:
        RecallmError: ``--data`` names nothing.
    """
    folder: Path = arguments.data or data_folder()
    if arguments.data is not None and not folder.is_dir():
        raise RecallmError(f"--data: there is no folder {folder}")
    return folder


def say(line: str) -> None:
    """Tells how a run goes."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
