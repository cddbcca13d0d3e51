"""``recallm train mini``: makes the tokenizer, trains the network, then the evidence reader."""

from __future__ import annotations

import itertools
import random
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer

from recallm_core.errors import RecallmError
from recallm_core.train.mini.loop import MiniConfig, Phase, Trainer
from recallm_core.train.mini.model import MiniShape
from recallm_core.train.mini.tokenizer import train_tokenizer
from recallm_core.train.reader.base import Base
from recallm_core.train.reader.train import Round, Run
from recallm_core.train.reader.train import export as export_reader
from recallm_core.train.tasks.datasets import Fact, Pool, data_folder, read_pool
from recallm_core.train.tasks.tasks import Mixture
from recallm_core.train.tasks.templates import make_page


def read_run_config(path: Path) -> MiniConfig:
    """Reads a run's TOML file.

    Raises:
        RecallmError: It can't be read, or has a name that no run knows.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
        values["phases"] = tuple(Phase(**phase) for phase in values.get("phases", ()))
        if not values["phases"] or values["phases"][0].from_step:
            raise RecallmError(f"{path} needs [[phases]], the first with from_step = 0")
        values["reader"] = tuple(Round(**stretch) for stretch in values.get("reader", ()))
        values["shape"] = MiniShape(**values.get("shape", {}))
        return MiniConfig(**values)
    except (OSError, tomllib.TOMLDecodeError, TypeError) as error:
        raise RecallmError(f"can't use the training config {path}: {error}") from error


def prepare(config: MiniConfig, folder: Path) -> tuple[Pool | None, Tokenizer]:
    """Reads the data, and makes the tokenizer once."""
    pool = read_pool(data_folder()) if config.data else None
    path = folder / "tokenizer.json"
    if path.is_file():
        return pool, Tokenizer.from_file(str(path))
    tokenizer = train_tokenizer(_texts(pool, config.seed), config.shape.vocab_size)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return pool, tokenizer


def _texts(pool: Pool | None, seed: int) -> Iterator[str]:
    """Yields what the tokenizer learns from: passages, questions, made-up pages."""
    rng = random.Random(seed)
    for _ in range(3000):
        page = make_page(rng, 4)
        yield " ".join((page.text, *(question for question, *_ in page.facts)))
    if pool is not None:
        yield from (fact.text for fact in pool.facts[::3])
        yield from (fact.question for fact in pool.facts)
        yield from (text for _, text in itertools.islice(pool.passages, 0, None, 3))


def train(config: MiniConfig, folder: Path, *, workers: int = 1) -> Trainer:
    """Trains, or goes on training, in ``folder``; returns the finished run."""
    pool, tokenizer = prepare(config, folder)
    trainer = Trainer(config, Mixture(pool, config.tasks), tokenizer, folder)
    trainer.resume()
    trainer.run(workers=workers)
    return trainer


def saved_run(config: MiniConfig, folder: Path, *, workers: int = 1) -> Trainer:
    """Returns the run saved in ``folder`` as it is; ``workers`` isn't used.

    Raises:
        RecallmError: There is none.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise RecallmError(f"no run in {folder}; train one first (leave out --export-only)")
    tokenizer = Tokenizer.from_file(str(path))
    trainer = Trainer(config, Mixture(None, {"page": 1.0}), tokenizer, folder)
    if not trainer.resume():
        raise RecallmError(f"no checkpoint in {folder}; train first (leave out --export-only)")
    return trainer


def train_reader(
    config: MiniConfig,
    base: Base,
    folder: Path,
    out: Path,
    *,
    more: Sequence[Fact] = (),
    export_only: bool = False,
) -> None:
    """Trains the evidence reader, or goes on training, in ``folder``; writes it to ``out``.

    Args:
        config: Its rounds, and whether the data folder is read.
        base: The encoder that it starts from.
        folder: The run's.
        out: Folder for the reader.
        more: Facts to learn from beside the data folder's (``question_files.read_questions``).
        export_only: Writes the saved run as it is.

    Raises:
        RecallmError: The config has no ``[[reader]]``, or there is nothing to export.
    """
    if not config.reader:
        raise RecallmError("the training config has no [[reader]] with steps, lr and seed")
    torch.set_num_threads(config.threads)
    if not export_only:
        Run(base, folder, config.reader, data=config.data, more=more).train()
    export_reader(base, folder, out)
