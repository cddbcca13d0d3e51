"""``recallm train sft``: the paper's two stages, for real checkpoints, on one device or many."""

from __future__ import annotations

import functools
import gc
import json
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, set_seed
from transformers.utils import logging as transformers_logging

from recallm_core.errors import CheckpointError, RecallmError
from recallm_core.inputs.model_config import dtype_name, read_config
from recallm_core.models.adapters import is_adapter
from recallm_core.models.create import MEANINGS
from recallm_core.models.writing import copy_beside, whole_file, whole_folder
from recallm_core.prompting.recipe import Recipe
from recallm_core.tokenization.tokenizer import HFTokenizer
from recallm_core.train.processes import is_main_process, wait_for_all
from recallm_core.train.sft.adapters import learnt, merged, save_adapter, with_adapters
from recallm_core.train.sft.card import card
from recallm_core.train.sft.config import SftConfig
from recallm_core.train.sft.data import TrainingSet, collate
from recallm_core.train.sft.new_token_rows import FILE, NewRows, merge
from recallm_core.train.sft.plot import plot
from recallm_core.train.sft.sources import curriculum
from recallm_core.train.sft.trainer import (
    Complete,
    Curve,
    Interrupt,
    InterruptedRunError,
    RecallTrainer,
    arguments,
    drop_incomplete,
    last_complete,
    read_curve,
)
from recallm_core.train.tasks.tokenized import RowMaker

StageName = Literal["embeddings", "all-weights"]
STAGES: tuple[StageName, ...] = ("embeddings", "all-weights")
_CONFIG = "config.json"


@dataclass(frozen=True, slots=True)
class Run:
    """One run: what it trains, on what, and where.

    Attributes:
        config: Its settings.
        folder: Where checkpoints, curves and the result go.
        base: The checkpoint that it starts from.
        tokenizer: Of the base.
        train, validation: Rows.
    """

    config: SftConfig
    folder: Path
    base: Path
    tokenizer: HFTokenizer
    train: TrainingSet
    validation: TrainingSet

    @property
    def new_ids(self) -> list[int]:
        """The ids of the recall tokens."""
        ids = [self.tokenizer.control_id(token) for token in MEANINGS]
        return [token for token in ids if token is not None]

    @property
    def pad(self) -> int:
        """The id that fills up short rows; what it is doesn't matter, as it is masked."""
        return self.tokenizer.eos_ids[0]


def open_run(config: SftConfig, folder: Path) -> Run:
    """Reads the base's tokenizer and recipe and the sources of examples; no weights.

    Raises:
        RecallmError: The base isn't a checkpoint that can be trained, or a source is missing.
    """
    base = checked_base(config.model)
    recipe = Recipe.load(base)
    if recipe is None:
        raise CheckpointError(f"{base} has no recallm.json; {_CREATE}")
    described = read_config(base)
    tokenizer = HFTokenizer.from_folder(base, eos_ids=end_ids(described))
    maker = RowMaker(
        tokenizer,
        recipe,
        vocab_size=int(described["vocab_size"]),
        quote_answer=config.quote_answer,
    )
    examples = functools.partial(
        TrainingSet,
        curriculum(config),
        maker,
        context_tokens=config.context_tokens,
        max_tokens=config.max_tokens,
        working=config.working,
    )
    return Run(
        config,
        folder,
        base,
        tokenizer,
        examples(count=config.examples, seed=config.seed),
        examples(count=config.validation, seed=-1 - config.seed),
    )


_CREATE = "make one with recallm model create BASE OUT, and give OUT as --model"


def checked_base(model: str) -> Path:
    """Returns the folder of the checkpoint that a run starts from.

    Raises:
        RecallmError: None is named, or there is none.
    """
    if not model:
        raise RecallmError(f"the config names no model; {_CREATE}")
    base = Path(model)
    if is_adapter(base):
        raise CheckpointError(
            f"{base} holds an adapter, and this run starts from a whole model: recallm model "
            f"merge {base} OUT --base BASE, and give OUT as --model"
        )
    if not (base / "config.json").is_file():
        raise CheckpointError(f"no model folder at {base}; {_CREATE}")
    return base


def end_ids(described: dict[str, Any]) -> list[int]:
    """Returns the ids that end an output, as a model's config names them."""
    ids = described.get("eos_token_id")
    return [ids] if isinstance(ids, int) else list(ids or ())


def train(run: Run, stages: tuple[StageName, ...] = STAGES) -> Path | None:
    """Trains, or goes on training; returns the folder of the model once stage 2 is through.

    Raises:
        InterruptedRunError: It was asked to stop; the same command goes on.
        RecallmError: The folder holds a run of another config.
    """
    _same_config(run)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    result: Path | None = None
    for stage in stages:
        done: Callable[[Run], Path | None] = _embeddings if stage == "embeddings" else _all_weights
        result = done(run)
    return result


def _same_config(run: Run) -> None:
    free = ("workers", "save_every", "log_every", "device_batch", "gradient_checkpointing")
    keep_config(run.folder, run.config.to_dict(), free)


def keep_config(folder: Path, now: dict[str, Any], free: Collection[str]) -> None:
    """Keeps the config beside a run, and refuses another one's folder.

    Args:
        folder: The run's.
        now: The config as plain values.
        free: What may differ when a run goes on.

    Raises:
        RecallmError: The folder holds a run of another config.
    """
    path = folder / _CONFIG
    if path.is_file():
        before = json.loads(path.read_text("utf-8"))
        changed = sorted(k for k in {*before, *now} - {*free} if before.get(k) != now.get(k))
        if changed:
            raise RecallmError(
                f"{folder} holds a run whose {', '.join(changed)} differ; take another --out, "
                "or the config that it began with"
            )
    elif is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as aside:
            aside.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")


def _embeddings(run: Run) -> None:
    """Stage 1; its result is one small file."""
    folder = run.folder / "embeddings"
    if (folder / FILE).is_file() or not run.config.embeddings.epochs:
        return
    model = _load(run, _frozen_dtype())
    rows = NewRows(model, run.new_ids)
    rows.attach(model)
    trainer = _train(run, "embeddings", model, rows)
    if trainer.is_world_process_zero():
        rows.save(folder)
        _drop_checkpoints(folder)
    wait_for_all()  # stage 2 of every process begins with these rows


def _all_weights(run: Run) -> Path:
    """Stage 2; its result is the model's folder."""
    folder, target = run.folder / "all-weights", run.folder / "model"
    if (target / "config.json").is_file():
        return target
    model = _load(run, _frozen_dtype() if run.config.adapter_rank else torch.float32)
    rows = run.folder / "embeddings"
    if (rows / FILE).is_file():
        merge(model, rows, run.new_ids)
    elif run.config.embeddings.epochs:
        raise RecallmError(f"stage 1 isn't done in {rows}; run --stage embeddings first")
    main = is_main_process()
    if not run.config.all_weights.epochs:
        if main:
            model.save_pretrained(folder / "last")
    elif run.config.adapter_rank:
        _adapters(run, model)
    else:
        trainer = _train(run, "all-weights", model, None)
        trainer.save_model(str(folder / "last"))
    if main:
        export(folder / "last", run.base, target)
        shutil.rmtree(folder / "last")
        _drop_checkpoints(folder)
    return target


def _adapters(run: Run, model: Any) -> None:
    """Stage 2 in small; writes the adapter and the merged weights."""
    rows = NewRows(model, run.new_ids)
    adapted = with_adapters(model, rows, run.config.adapter_rank)
    trainer = _train(run, "all-weights", adapted, rows)
    if not trainer.is_world_process_zero():
        return
    curve = read_curve(run.folder / "curve.jsonl")
    page = card(run.config, run.base.name, run.folder.name, curve)
    adapter = learnt(adapted, rows, run.folder / "adapter")
    settings = adapted.peft_config["default"]
    save_adapter(adapter, settings, run.base, str(run.base.resolve()), page)
    merged(adapted, rows).save_pretrained(run.folder / "all-weights" / "last")


def _frozen_dtype() -> Any:
    """Of a model that is only read: as it was saved on a GPU, else what a CPU is fast in."""
    return "auto" if torch.cuda.is_available() else torch.float32


def _load(run: Run, dtype: Any) -> Any:
    set_seed(run.config.seed)
    model = AutoModelForCausalLM.from_pretrained(
        str(run.base), dtype=dtype, use_safetensors=True, trust_remote_code=False
    )
    model.config.use_cache = False
    return model


def _train(run: Run, stage: StageName, model: Any, rows: NewRows | None) -> RecallTrainer:
    """Trains one stage from its last whole checkpoint on."""
    config, folder = run.config, run.folder / stage
    settings = config.embeddings if stage == "embeddings" else config.all_weights
    interrupt, curve = Interrupt(), Curve(run.folder / "curve.jsonl", stage)
    trainer = RecallTrainer(
        rows=rows,
        model=model,
        args=arguments(config, settings, folder, len(run.train)),
        train_dataset=run.train,
        eval_dataset=run.validation if len(run.validation) else None,
        data_collator=functools.partial(collate, pad=run.pad),
        callbacks=[curve, Complete(), interrupt],
    )
    last = last_complete(folder)
    if trainer.is_world_process_zero():
        drop_incomplete(folder)
        curve.cut(int(last.name.rpartition("-")[2]) if last else 0)
    with interrupt.listening():
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    step, total = trainer.state.global_step, trainer.state.max_steps
    if trainer.is_world_process_zero():
        plot(run.folder)
    if interrupt.asked and step < total:
        raise InterruptedRunError(
            f"stopped and saved at step {step:,} of {total:,} of stage {stage}; the same command "
            "goes on from there"
        )
    gc.collect()
    return trainer


def _drop_checkpoints(folder: Path) -> None:
    for path in folder.glob("checkpoint-*"):
        shutil.rmtree(path)


def export(trained: Path, base: Path, target: Path) -> None:
    """Writes a model folder, in the base's own precision, that appears whole or not at all.

    Weights come from ``trained``; tokenizer, recipe and generation settings from ``base``.
    """
    model = AutoModelForCausalLM.from_pretrained(
        str(trained),
        dtype=getattr(torch, dtype_name(base)),
        use_safetensors=True,
        trust_remote_code=False,
    )
    model.config.use_cache = True
    with whole_folder(target) as aside:
        copy_beside(base, aside)
        model.save_pretrained(aside)
