"""Training: the data, the trace format and the loop that make a RecaLLM model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recallm_core.errors import MissingExtraError, RecallmError
from recallm_core.inputs.arguments import MOST, MOST_THREADS, whole_option
from recallm_core.inputs.extras import install

if TYPE_CHECKING:
    from recallm_core.train.mini.loop import MiniConfig
    from recallm_core.train.reader.base import Base
    from recallm_core.train.tasks.datasets import Fact

INTERRUPTED = 130  # as a shell says of a command that Ctrl-C ended
_CONFIGS = Path(__file__).parents[1] / "train" / "configs"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``train`` with command-line arguments; returns the exit status."""
    arguments = parser().parse_args(argv)
    try:
        return _COMMANDS[arguments.kind](arguments)
    except RecallmError as error:
        sys.stderr.write(f"recallm train: {error}\n")
        return 1


def parser() -> argparse.ArgumentParser:
    """Returns the parser of ``recallm train``."""
    top = argparse.ArgumentParser(prog="recallm train", description="Trains a model.")
    kinds = top.add_subparsers(dest="kind", required=True)
    mini = kinds.add_parser("mini", help="the small model of our own, from scratch")
    mini.add_argument("--config", default="mini", help="a TOML file, or a shipped one's name")
    mini.add_argument("--out", type=Path, required=True, help="run folder; a run there goes on")
    mini.add_argument("--export", type=Path, help="model folder to write (default: OUT/model)")
    mini.add_argument(
        "--workers",
        type=whole_option(0, MOST_THREADS),
        default=1,
        help="processes that prepare batches",
    )
    mini.add_argument("--export-only", action="store_true", help="export the saved run as it is")
    _add_base(mini)
    _add_reader(kinds)
    _add_sft(kinds)
    _add_grpo(kinds)
    _add_families(kinds)
    kinds.add_parser("configs", help="list the shipped settings, with their paths")
    return top


def _mini(arguments: argparse.Namespace) -> int:
    from recallm_core.train.mini.export import export
    from recallm_core.train.mini.train import read_run_config, saved_run, train

    config = read_run_config(_config_path(arguments.config))
    started = saved_run if arguments.export_only else train
    run = started(config, arguments.out, workers=arguments.workers)
    folder = arguments.export or arguments.out / "model"
    export(run.average, config.shape, run.encoder.tokenizer, folder)
    sys.stdout.write(f"step {run.step:,} of {config.steps:,}; model in {folder}\n")
    base = _base(arguments)
    if base is None:
        sys.stdout.write("the evidence reader was left out; --teacher or --reader-from trains it\n")
        return 0
    reader_folder = folder.parent / "evidence-reader"
    return _train_reader(arguments, config, base, arguments.out / "reader", reader_folder)


def _add_reader(kinds: Any) -> None:
    reader = kinds.add_parser("reader", help="the evidence reader alone, as mini trains it")
    reader.add_argument("--config", default="mini", help="a TOML file, or a shipped one's name")
    reader.add_argument("--out", type=Path, required=True, help="run folder; a run there goes on")
    reader.add_argument("--export", type=Path, help="folder to write (default: OUT/reader)")
    reader.add_argument("--export-only", action="store_true", help="export the saved run as it is")
    reader.add_argument(
        "--questions",
        type=Path,
        nargs="+",
        default=(),
        metavar="FILE",
        help="questions to learn from beside the data folder's: SQuAD's JSON, QED, QAMR, NQ-Swap",
    )
    _add_base(reader)


def _add_base(parser: argparse.ArgumentParser) -> None:
    base = parser.add_mutually_exclusive_group()
    base.add_argument(
        "--teacher", type=Path, help="folder of all-MiniLM-L6-v2 that the evidence reader starts as"
    )
    base.add_argument(
        "--reader-from", help="folder of an evidence reader to go on from; shipped: the library's"
    )


def _base(arguments: argparse.Namespace) -> Base | None:
    """What the evidence reader starts from; None where nothing is named."""
    from recallm_core.evidence.reader import BUILT_IN
    from recallm_core.train.reader.base import Base

    if arguments.teacher is not None:
        return Base(arguments.teacher)
    if arguments.reader_from is None:
        return None
    is_shipped = arguments.reader_from == "shipped"
    return Base(BUILT_IN if is_shipped else Path(arguments.reader_from), is_reader=True)


def _reader(arguments: argparse.Namespace) -> int:
    from recallm_core.train.mini.train import read_run_config
    from recallm_core.train.tasks.question_files import read_questions

    base = _base(arguments)
    if base is None:
        raise RecallmError(
            "say what the evidence reader starts from: --teacher FOLDER of all-MiniLM-L6-v2, or "
            "--reader-from FOLDER (or shipped)"
        )
    config = read_run_config(_config_path(arguments.config))
    export = arguments.export or arguments.out / "reader"
    if arguments.questions and not config.data:
        raise RecallmError("--questions go with the data folder's; this config has data = false")
    files = () if arguments.export_only else arguments.questions
    more = [fact for path in files for fact in read_questions(path)]
    return _train_reader(arguments, config, base, arguments.out, export, more)


def _train_reader(
    arguments: argparse.Namespace,
    config: MiniConfig,
    base: Base,
    run: Path,
    export: Path,
    more: Sequence[Fact] = (),
) -> int:
    from recallm_core.train.mini.train import train_reader

    train_reader(config, base, run, export, more=more, export_only=arguments.export_only)
    sys.stdout.write(f"evidence reader in {export}\n")
    return 0


def _require(kind: str, extra: str, *modules: str) -> None:
    """Says what a kind of training lacks, before anything is read.

    Raises:
        MissingExtraError: A module isn't installed.
    """
    for module in modules:
        if find_spec(module) is None:
            raise MissingExtraError(f"recallm train {kind} needs {module}: {install(extra)}")


def _add_sft(kinds: Any) -> None:
    sft = kinds.add_parser(
        "sft",
        help="post-train a checkpoint of recallm model create",
        description="Post-trains a checkpoint in two stages: the new rows, then all weights, or "
        "adapters (adapter_rank).",
        epilog="Several GPUs: accelerate launch --config_file FILE -m recallm_core.train sft ...",
    )
    sft.add_argument(
        "--config", default="sft", help="a TOML file, or a shipped one's name (default: sft)"
    )
    sft.add_argument("--model", help="a folder of recallm model create (default: the config's)")
    sft.add_argument("--out", type=Path, help="run folder; a run there goes on")
    stages = ("embeddings", "all-weights", "both")
    sft.add_argument("--stage", choices=stages, default="both", help="which to run (default: both)")
    sft.add_argument("--dry-run", action="store_true", help="show counts, lengths and one row")


def _sft(arguments: argparse.Namespace) -> int:
    _require("sft", "train", "accelerate", "matplotlib")
    if arguments.out is None and not arguments.dry_run:
        raise RecallmError("say where the run goes with --out FOLDER (or look first: --dry-run)")
    from recallm_core.train.sft.config import read_sft_config, with_model

    config = with_model(read_sft_config(_config_path(arguments.config)), arguments.model)
    if config.adapter_rank:
        _require("sft with adapter_rank", "grpo", "peft")
    from recallm_core.train.sft.report import report
    from recallm_core.train.sft.train import STAGES, open_run, train
    from recallm_core.train.sft.trainer import InterruptedRunError

    run = open_run(config, arguments.out or Path())
    if arguments.dry_run:
        sys.stdout.write(report(run))
        return 0
    try:
        model = train(run, tuple(s for s in STAGES if arguments.stage in (s, "both")))
    except InterruptedRunError as stopped:
        sys.stderr.write(f"recallm train: {stopped}\n")
        return INTERRUPTED
    message = f"model in {model}" if model else f"stage 1 done; next: --stage {STAGES[1]}"
    return _tell_end(message, config.adapter_rank if model else 0, arguments.out)


def _tell_end(message: str, adapter_rank: int, out: Path) -> int:
    """Says where a run's results are; of several processes one does."""
    from recallm_core.train.processes import is_main_process

    adapter = f", its adapter in {out / 'adapter'}" if adapter_rank else ""
    if is_main_process():
        sys.stdout.write(f"{message}{adapter}; curves in {out / 'curve.png'}\n")
    return 0


def _add_grpo(kinds: Any) -> None:
    grpo = kinds.add_parser(
        "grpo",
        help="reward a post-trained checkpoint for quoting what its answers rest on",
        description="Reinforcement learning (GRPO) on the ten families, on TRL's trainer.",
        epilog="Several GPUs: accelerate launch --config_file FILE -m recallm_core.train grpo ...",
    )
    grpo.add_argument("--config", default="grpo", help="a TOML file, or a shipped one's name")
    grpo.add_argument("--model", help="a folder of recallm train sft (default: the config's)")
    grpo.add_argument("--base", help="what --model goes on, if it is an adapter (default: its own)")
    grpo.add_argument("--out", type=Path, help="run folder; a run there goes on")
    grpo.add_argument(
        "--check", action="store_true", help="try the settings, the shapes and one tiny step"
    )


def _grpo(arguments: argparse.Namespace) -> int:
    _require("grpo", "grpo", "trl", "peft", "matplotlib")
    if arguments.out is None and not arguments.check:
        raise RecallmError("say where the run goes with --out FOLDER (or look first: --check)")
    from recallm_core.train.grpo.config import read_grpo_config, with_model

    config = read_grpo_config(_grpo_config_path(arguments.config))
    config = with_model(config, arguments.model, arguments.base)
    if arguments.check:
        from recallm_core.train.grpo.check import check

        sys.stdout.write(check(config))
        return 0
    from recallm_core.train.grpo.train import open_run, train
    from recallm_core.train.sft.trainer import InterruptedRunError

    try:
        model = train(open_run(config, arguments.out))
    except InterruptedRunError as stopped:
        sys.stderr.write(f"recallm train: {stopped}\n")
        return INTERRUPTED
    return _tell_end(f"model in {model}", config.adapter_rank, arguments.out)


def _grpo_config_path(name: str) -> Path:
    """A model's shipped settings for GRPO stand beside those for SFT."""
    shipped = _CONFIGS / f"grpo-{name}.toml"
    return shipped if shipped.is_file() else _config_path(name)


def _add_families(kinds: Any) -> None:
    show = kinds.add_parser("show", help="print a problem of a family, its gold marked")
    show.add_argument("family", help="one of those that recallm train families lists")
    families = kinds.add_parser("families", help="list the families of problems, with figures")
    families.add_argument(
        "--count", type=whole_option(1, 100_000), default=20, help="problems of each (default: 20)"
    )
    for parser in (show, families):
        parser.add_argument(
            "--seed", type=whole_option(-MOST, MOST), default=1, help="of the problems (default: 1)"
        )
        parser.add_argument(
            "--size",
            type=whole_option(1, 10_000_000),
            default=4000,
            help="characters (default: 4,000)",
        )


def _show(arguments: argparse.Namespace) -> int:
    from recallm_core.train.tasks.families.shown import shown_problem

    sys.stdout.write(shown_problem(arguments.family, arguments.seed, arguments.size))
    return 0


def _families(arguments: argparse.Namespace) -> int:
    from recallm_core.train.tasks.families.shown import families_table

    sys.stdout.write(families_table(arguments.count, arguments.seed, arguments.size))
    return 0


def _config_path(name: str) -> Path:
    shipped = _CONFIGS / f"{name}.toml"
    return shipped if shipped.is_file() else Path(name)


def _configs(_: argparse.Namespace) -> int:
    configs = (path for path in _CONFIGS.iterdir() if path.suffix in (".toml", ".yaml"))
    sys.stdout.writelines(f"{path}\n" for path in sorted(configs))
    return 0


_COMMANDS = {
    "mini": _mini,
    "reader": _reader,
    "sft": _sft,
    "grpo": _grpo,
    "show": _show,
    "families": _families,
    "configs": _configs,
}
