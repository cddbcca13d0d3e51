"""transformers' Trainer with our loss, curves, safe checkpoints and an orderly Ctrl-C."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from recallm_core.errors import RecallmError
from recallm_core.models.writing import whole_file
from recallm_core.train.processes import is_main_process, is_true_anywhere, wait_for_all
from recallm_core.train.sft.config import SftConfig, Stage
from recallm_core.train.sft.data import completion_loss
from recallm_core.train.sft.new_token_rows import NewRows

_COMPLETE = "complete.json"  # written last: a checkpoint without it was cut off
_PARTS = ("words", "recall")


class InterruptedRunError(RecallmError):
    """The run was asked to stop; it was saved and goes on with the same command."""


class RecallTrainer(Trainer):  # type: ignore[misc] # transformers has no types
    """Trains on completions, inside spans over the legal tokens only.

    Args:
        rows: Rows that learn beside a frozen model, alone or with adapters; checkpoints then hold
            nothing else.
        options: As Trainer takes them.
    """

    def __init__(self, *, rows: NewRows | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.remove_callback(PrinterCallback)  # Curve tells it on stderr
        self.model_accepts_loss_kwargs = True  # so that tokens are counted over the whole batch
        self._rows = rows
        self._adapted = hasattr(self.model, "peft_config")
        self._sums: dict[str, float] = {}

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Returns the loss per learnt token of the whole optimizer step."""
        parts = completion_loss(model, inputs)
        count = num_items_in_batch
        if count is None:
            count = parts["words_count"] + parts["recall_count"]
        loss = (parts["words"] + parts["recall"]) / count
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes
        if model.training:
            for name, value in parts.items():
                self._sums[name] = self._sums.get(name, 0.0) + float(value.detach())
        return (loss, {}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the two parts of the loss, of this process's rows, to what is logged."""
        if "loss" in logs:
            for name in _PARTS:
                count = self._sums.get(f"{name}_count", 0.0)
                if count:
                    logs[f"{name}_loss"] = self._sums[name] / count
            self._sums = {}
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves what learns: rows, adapters, or the whole model."""
        if self._rows is None or self._adapted:
            super().save_model(output_dir, _internal_call)
        if self._rows is not None and self.args.should_save:
            self._rows.save(Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self._rows is None or self._adapted:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self._rows is not None:
            self._rows.read(Path(resume_from_checkpoint))


class Curve(TrainerCallback):  # type: ignore[misc] # transformers has no types
    """Appends what is logged to ``curve.jsonl`` and tells how far the run is."""

    def __init__(self, path: Path, stage: str) -> None:
        self._path, self._stage = path, stage
        self._began = time.perf_counter()

    def cut(self, step: int) -> None:
        """Drops this stage's points after a step: a resumed run makes them anew."""
        points = [
            p for p in read_curve(self._path) if p["stage"] != self._stage or p["step"] <= step
        ]
        lines = "".join(json.dumps(point) + "\n" for point in points)
        with whole_file(self._path) as aside:
            aside.write_text(lines, encoding="utf-8")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Writes one point."""
        if not state.is_world_process_zero or "train_runtime" in (logs or {}):
            return
        point: dict[str, Any] = {"stage": self._stage, "step": state.global_step}
        point |= {k: v for k, v in (logs or {}).items() if isinstance(v, int | float)}
        point["seconds"] = round(time.perf_counter() - self._began, 1)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(point) + "\n")
        sys.stderr.write(_show(point, state.max_steps))


def _show(point: dict[str, Any], steps: int) -> str:
    names = {
        "loss": "loss",
        "words_loss": "words",
        "recall_loss": "recall",
        "eval_loss": "validation loss",
        "learning_rate": "lr",
    }
    figures = [f"{label} {point[name]:.4g}" for name, label in names.items() if name in point]
    return f"{point['stage']} step {point['step']}/{steps}: {', '.join(figures)}\n"


def read_curve(path: Path) -> list[dict[str, Any]]:
    """Returns the points of a curve; a line that was cut off is left out."""
    points = []
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        try:
            points.append(json.loads(line))
        except ValueError:
            continue
    return points


class Complete(TrainerCallback):  # type: ignore[misc] # transformers has no types
    """Marks a checkpoint once all of it is written."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Writes the mark, once every process has written its part."""
        wait_for_all()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            (folder / _COMPLETE).write_text(json.dumps({"step": state.global_step}))


def last_complete(folder: Path) -> Path | None:
    """Returns the newest checkpoint that is whole."""
    checkpoints = [
        (int(path.name.rpartition("-")[2]), path)
        for path in folder.glob("checkpoint-*")
        if path.name.rpartition("-")[2].isdigit() and (path / _COMPLETE).is_file()
    ]
    return max(checkpoints)[1] if checkpoints else None


def drop_incomplete(folder: Path) -> None:
    """Removes checkpoints that were cut off while they were written."""
    for path in folder.glob("checkpoint-*"):
        if not (path / _COMPLETE).is_file():
            shutil.rmtree(path)


class Interrupt(TrainerCallback):  # type: ignore[misc] # transformers has no types
    """Ends a run after the current step, with a checkpoint, on Ctrl-C or SIGTERM."""

    def __init__(self) -> None:
        self.asked = False
        self._owner = os.getpid()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listens to the two signals within the block; a second one stops at once."""
        signals = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._heard) for number in signals]
        try:
            yield
        finally:
            for number, handler in zip(signals, before, strict=True):
                signal.signal(number, handler)

    def _heard(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a process that prepares rows: the owner ends it
            if number == signal.SIGTERM:
                os._exit(0)
            return
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if is_main_process():
            sys.stderr.write("stopping after this step, and saving; once more stops at once\n")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Asks for a checkpoint and the end; where one process was asked, all of them stop."""
        self.asked = is_true_anywhere(self.asked)
        if self.asked:
            control.should_save = True
            control.should_training_stop = True
        return control


def arguments(config: SftConfig, stage: Stage, folder: Path, rows: int) -> TrainingArguments:
    """Returns Trainer's settings for one stage over some rows.

    Raises:
        RecallmError: The global batch can't be shared out over the devices.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    share, rest = divmod(config.global_batch, config.device_batch * world)
    if rest:
        raise RecallmError(
            f"global_batch ({config.global_batch}) must be a multiple of device_batch "
            f"({config.device_batch}) times the number of processes ({world})"
        )
    cuda = torch.cuda.is_available()
    settings = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=config.device_batch,
        per_device_eval_batch_size=config.device_batch,
        gradient_accumulation_steps=share,
        num_train_epochs=stage.epochs,
        learning_rate=stage.lr,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": config.min_lr_share},
        warmup_steps=round(config.warmup * steps(config, stage, rows)),
        weight_decay=0.0,
        max_grad_norm=config.clip,
        bf16=bf16(config),
        **checkpointing(config.gradient_checkpointing),
        seed=config.seed,
        data_seed=config.seed,
        logging_strategy="steps",
        logging_steps=config.log_every,
        save_strategy="steps",
        save_steps=config.save_every,
        save_total_limit=2,
        eval_strategy="steps" if config.validation else "no",
        eval_steps=config.save_every,
        prediction_loss_only=True,
        dataloader_num_workers=config.workers,
        dataloader_pin_memory=cuda,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
        disable_tqdm=True,
        use_cpu=not cuda,
        ddp_find_unused_parameters=False,
    )
    if settings.n_gpu > 1:
        raise RecallmError(
            f"{settings.n_gpu} GPUs are visible, but only one process runs; start it with "
            "accelerate launch --num_processes N -m recallm_core.train sft ..., or show it one GPU "
            "(CUDA_VISIBLE_DEVICES=0)"
        )
    return settings


def checkpointing(enabled: bool) -> dict[str, Any]:
    """Returns gradient checkpointing by the name that this transformers has for it."""
    known = {field.name for field in fields(TrainingArguments)}
    name = next(n for n in ("activation_checkpointing", "gradient_checkpointing") if n in known)
    return {name: enabled, f"{name}_kwargs": {"use_reentrant": False}}


def steps(config: SftConfig, stage: Stage, rows: int) -> int:
    """Returns the optimizer steps of a stage."""
    return math.ceil(math.ceil(rows / config.global_batch) * stage.epochs)


def bf16(config: SftConfig) -> bool:
    """Says whether the forward pass runs in 16 bits."""
    if config.precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return config.precision == "bf16"
