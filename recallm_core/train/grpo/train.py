"""``recallm train grpo``: opens a run, trains, goes on after a break, and writes the model."""

from __future__ import annotations

import json
import math
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from transformers.utils import logging as transformers_logging
from trl import GRPOConfig

from recallm_core.errors import CheckpointError, RecallmError
from recallm_core.inputs.model_config import read_config
from recallm_core.models import shipped
from recallm_core.models.adapters import base_of, is_adapter, rank_of, read_adapter
from recallm_core.models.merging import merged
from recallm_core.models.writing import whole_file
from recallm_core.prompting.builder import PromptBuilder
from recallm_core.prompting.params import GenerationParams
from recallm_core.prompting.recipe import Recipe
from recallm_core.tokenization.tokenizer import HFTokenizer
from recallm_core.train.grpo.card import card
from recallm_core.train.grpo.config import GrpoConfig
from recallm_core.train.grpo.exactness import refuse_inexact
from recallm_core.train.grpo.plot import plot
from recallm_core.train.grpo.problems import Problems
from recallm_core.train.grpo.served import FOLDER, ServedPolicy
from recallm_core.train.grpo.trainer import QuoteTrainer
from recallm_core.train.sft.adapters import learnt, lora, save_adapter, together
from recallm_core.train.sft.train import checked_base, end_ids, export, keep_config
from recallm_core.train.sft.trainer import (
    Complete,
    Curve,
    Interrupt,
    InterruptedRunError,
    checkpointing,
    drop_incomplete,
    last_complete,
    read_curve,
)
from recallm_core.train.tasks.families.sources import Sources

STAGE = "grpo"
_FREE = (
    *("save_every", "log_every", "device_batch", "gradient_checkpointing", "data", "shape"),
    "rollouts_from",
)


@dataclass(frozen=True, slots=True)
class GrpoRun:
    """One run: what it trains, on what, and where.

    Attributes:
        config: Its settings.
        folder: Where checkpoints, curves and the result go.
        base: The checkpoint that it starts from.
        tokenizer: Of the base.
        problems: What is attempted.
        adapter: What made the base of another model; None: nothing did.
    """

    config: GrpoConfig
    folder: Path
    base: Path
    tokenizer: HFTokenizer
    problems: Problems
    adapter: Path | None = None


def starting_model(config: GrpoConfig) -> tuple[Path, Path | None]:
    """Returns the whole model that a run starts from, and the adapter that it was merged of.

    An adapter is merged into its base once, below the cache folder.

    Raises:
        RecallmError: There is no such model, or an adapter doesn't fit its base.
    """
    folder = shipped(config.model) or Path(config.model)
    if is_adapter(folder):
        return merged(folder, config.base or None), folder
    if config.base:
        raise RecallmError(
            f"{folder} holds no adapter, so that nothing is put on the base {config.base}; leave "
            "the base out"
        )
    return checked_base(config.model), None


def open_run(config: GrpoConfig, folder: Path) -> GrpoRun:
    """Reads the base's tokenizer and recipe; no weights.

    Raises:
        RecallmError: The base isn't a checkpoint that can be trained, or a setting would break
            exactness.
    """
    refuse_inexact(config.trl)
    base, adapter = starting_model(config)
    recipe = Recipe.load(base)
    if recipe is None or recipe.mode != "trained":
        raise CheckpointError(
            f"{base} isn't a checkpoint with the four recall tokens; make one with recallm model "
            "create BASE OUT, and teach it their use first: recallm train sft"
        )
    described = read_config(base)
    tokenizer = HFTokenizer.from_folder(base, eos_ids=end_ids(described))
    problems = Problems(
        PromptBuilder(tokenizer, recipe, vocab_size=int(described["vocab_size"])),
        tokenizer,
        Sources(Path(config.data) if config.data else None),
        config.families,
        seed=config.seed,
        prompt_tokens=config.prompt_tokens,
        params=_params(config),
    )
    return GrpoRun(config, folder, base, tokenizer, problems, adapter)


def _params(config: GrpoConfig) -> GenerationParams:
    """The settings of an attempt: no scorer of evidence tilts it, or it would be learnt from."""
    return GenerationParams(
        max_new_tokens=config.response_tokens,
        max_thinking_tokens=config.thinking_tokens or None,
        prior="none",
        evidence=config.evidence,
        stop=(),
    )


def train(run: GrpoRun) -> Path:
    """Trains, or goes on training; returns the folder of the model.

    Raises:
        InterruptedRunError: It was asked to stop; the same command goes on.
        RecallmError: The folder holds a run of another config.
    """
    target = run.folder / "model"
    if (target / "config.json").is_file():
        return target
    keep_config(run.folder, run.config.to_dict(), _FREE)
    interrupt, curve = Interrupt(), Curve(run.folder / "curve.jsonl", STAGE)
    with quiet(), attempting(run) as served:
        trainer = make_trainer(run, [curve, Complete(), interrupt], served)
        _go_on(run, trainer, curve, interrupt)
    if trainer.is_world_process_zero():
        _write_model(run, trainer, target)
    return target


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block, transformers shows no bars, and TRL's use of old names isn't told."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`.*gradient_checkpointing", FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(before)
        transformers_logging.enable_progress_bar()


@contextmanager
def attempting(run: GrpoRun) -> Iterator[ServedPolicy | None]:
    """Yields the server that makes a run's attempts; None where the model that learns does.

    Raises:
        ServerError: No server answers, or it serves another model.
    """
    if not run.config.rollouts_from:
        yield None
        return
    width = int(read_config(run.base)["vocab_size"])
    served = ServedPolicy(run.config, run.base, width, run.folder / FOLDER)
    try:
        yield served
    finally:
        served.close()


def make_trainer(
    run: GrpoRun, callbacks: list[Any], served: ServedPolicy | None = None
) -> QuoteTrainer:
    """Returns the trainer of a run, at its beginning."""
    config = run.config
    count = config.problems or config.prompts * config.steps
    numbers = [str(n % count) for n in range(config.prompts * config.steps)]
    return QuoteTrainer(
        problems=run.problems,
        tokenizer=run.tokenizer,
        config=config,
        record=run.folder / "attempts.jsonl",
        served=served,
        model=_model(run),
        args=trl_settings(config, run.folder / STAGE),
        train_dataset=Dataset.from_dict({"prompt": numbers}),
        processing_class=AutoTokenizer.from_pretrained(str(run.base), trust_remote_code=False),
        callbacks=callbacks,
        peft_config=lora(config.adapter_rank) if config.adapter_rank else None,
    )


def _model(run: GrpoRun) -> Any:
    """The policy: in 32 bits where all of it learns, else as it was saved."""
    set_seed(run.config.seed)
    dtype: Any = "auto" if run.config.adapter_rank and torch.cuda.is_available() else torch.float32
    return AutoModelForCausalLM.from_pretrained(
        str(run.base), dtype=dtype, use_safetensors=True, trust_remote_code=False
    )


def trl_settings(config: GrpoConfig, folder: Path) -> GRPOConfig:
    """Returns TRL's settings of a run.

    Raises:
        RecallmError: The batch can't be shared out over the devices, or ``[trl]`` has a name that
            TRL doesn't know, or that the config itself sets.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    share, rest = divmod(config.attempts, config.device_batch * world)
    if rest:
        raise RecallmError(
            f"prompts times rollouts ({config.attempts}) must be a multiple of device_batch "
            f"({config.device_batch}) times the number of processes ({world})"
        )
    values = _own_settings(config, folder, share)
    twice = sorted(values.keys() & config.trl.keys())
    if twice:
        raise RecallmError(f"[trl] sets {', '.join(twice)}, which the config itself decides")
    try:
        return GRPOConfig(**values, **config.trl)
    except (TypeError, ValueError) as error:
        raise RecallmError(f"TRL can't use the settings of [trl]: {error}") from error


def _own_settings(config: GrpoConfig, folder: Path, share: int) -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    bf16 = cuda and torch.cuda.is_bf16_supported()
    return {
        "output_dir": str(folder),
        "max_steps": config.steps,
        "per_device_train_batch_size": config.device_batch,
        "gradient_accumulation_steps": share,
        "num_generations": config.rollouts,
        "max_completion_length": config.response_tokens,
        "temperature": config.temperature,
        "beta": config.beta,
        "learning_rate": config.lr,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": config.min_lr_share},
        "warmup_steps": math.ceil(config.warmup * config.steps),
        "weight_decay": 0.0,
        "max_grad_norm": config.clip,
        "bf16": bf16 if config.precision == "auto" else config.precision == "bf16",
        **checkpointing(config.gradient_checkpointing),
        "disable_dropout": True,
        "shuffle_dataset": False,
        "seed": config.seed,
        "logging_strategy": "steps",
        "logging_steps": config.log_every,
        "save_strategy": "steps",
        "save_steps": config.save_every,
        "save_total_limit": 2,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": not cuda,
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": cuda,
    }


def _go_on(run: GrpoRun, trainer: QuoteTrainer, curve: Curve, interrupt: Interrupt) -> None:
    """Trains from the last whole checkpoint on."""
    folder = run.folder / STAGE
    last = last_complete(folder)
    if trainer.is_world_process_zero():
        drop_incomplete(folder)
        step = int(last.name.rpartition("-")[2]) if last else 0
        curve.cut(step)
        _cut_record(run.folder / "attempts.jsonl", step)
    with interrupt.listening():
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    step, total = trainer.state.global_step, trainer.state.max_steps
    if trainer.is_world_process_zero():
        plot(run.folder)
    if interrupt.asked and step < total:
        raise InterruptedRunError(
            f"stopped and saved at step {step:,} of {total:,}; the same command goes on from there"
        )


def _cut_record(path: Path, step: int) -> None:
    """Drops the batches from a step on: a run that goes on makes them anew."""
    if not path.is_file():
        return
    lines = [line for line in path.read_text("utf-8").splitlines(keepends=True) if line[-1] == "\n"]
    before = [line for line in lines if json.loads(line)["step"] < step]
    with whole_file(path) as aside:
        aside.write_text("".join(before), encoding="utf-8")


def _write_model(run: GrpoRun, trainer: QuoteTrainer, target: Path) -> None:
    model = trainer.accelerator.unwrap_model(trainer.model)
    if run.config.adapter_rank:
        _write_adapter(run, model)
        model = model.merge_and_unload()
    trained = run.folder / STAGE / "last"
    model.save_pretrained(trained)
    export(trained, run.base, target)
    shutil.rmtree(run.folder / STAGE)


def _write_adapter(run: GrpoRun, model: Any) -> None:
    """Writes what was learnt as an adapter; one that the run went on from is part of it."""
    adapter, on = learnt(model, None, run.folder / "adapter"), str(run.base.resolve())
    if run.adapter is not None:
        adapter = together(read_adapter(run.adapter), adapter)
        on = base_of(run.adapter, run.config.base or None)
    curve = read_curve(run.folder / "curve.jsonl")
    page = card(run.config, on, run.folder.name, rank_of(adapter), curve)
    save_adapter(adapter, model.peft_config["default"], run.base, on, page)
