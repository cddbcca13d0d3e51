"""Training: the data, the trace format and the loop that make a RecaLLM model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from recallm_core.errors import RecallmError

_CONFIGS = Path(__file__).with_name("configs")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``train`` with command-line arguments; returns the exit status."""
    parser = argparse.ArgumentParser(prog="recallm train", description="Trains a model.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    mini = kinds.add_parser("mini", help="the small model of our own, from scratch")
    mini.add_argument("--config", default="mini", help="a TOML file, or a shipped one's name")
    mini.add_argument("--out", type=Path, required=True, help="run folder; a run there goes on")
    mini.add_argument("--export", type=Path, help="model folder to write (default: OUT/model)")
    mini.add_argument("--workers", type=int, default=1, help="processes that prepare batches")
    mini.add_argument("--export-only", action="store_true", help="export the saved run as it is")
    arguments = parser.parse_args(argv)
    try:
        return _mini(arguments)
    except RecallmError as error:
        sys.stderr.write(f"recallm train: {error}\n")
        return 1


def _mini(arguments: argparse.Namespace) -> int:
    from recallm_core.train.export import export
    from recallm_core.train.mini import read_config, saved_run, train

    config = read_config(_config_path(arguments.config))
    started = saved_run if arguments.export_only else train
    run = started(config, arguments.out, workers=arguments.workers)
    folder = arguments.export or arguments.out / "model"
    export(run.average, config.shape, run.encoder.tokenizer, folder)
    sys.stdout.write(f"step {run.step:,} of {config.steps:,}; model in {folder}\n")
    return 0


def _config_path(name: str) -> Path:
    shipped = _CONFIGS / f"{name}.toml"
    return shipped if shipped.is_file() else Path(name)
