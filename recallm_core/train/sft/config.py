"""What a post-training run is made of, read from a TOML file; unknown names are refused."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from recallm_core.errors import RecallmError
from recallm_core.train.tasks.curriculum import TASKS

PRECISIONS = ("auto", "bf16", "fp32")


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: what the paper calls its epochs and its rate; 0 epochs leave it out."""

    epochs: float
    lr: float


@dataclass(frozen=True, slots=True)
class SftConfig:
    """All that a run depends on, besides the files that it names.

    Attributes:
        model: A folder that ``recallm model create`` made; ``--model`` overrides it.
        seed: Everything random follows from it.
        examples: Training examples of the training set; every epoch sees the same ones.
        validation: Training examples that are only watched.
        max_tokens: Longest row, prompt and completion.
        context_tokens: Shortest and longest documents, about; lengths between are log-uniform.
        data: Whether the data folder (``RECALLM_DATA``) is read.
        texts: Folders or files of plain text for self-supervised tasks.
        lessons: JSON-lines files of your own examples, for the task ``own``.
        quote_answer: Whether the final answer is a recall too, where it stands word for word.
        tasks: Share of each task.
        working: Share of the rows, but your own, whose thinking has working before its first quote:
            a sum, an equation, a plan. Its words are given, what follows them is learnt.
        embeddings: Stage 1: only the four new rows learn.
        all_weights: Stage 2: everything learns.
        adapter_rank: Rank of the adapters that learn in stage 2, together with the new rows, in
            place of all weights; 0: all weights learn.
        global_batch: Rows of one optimizer step, over all devices.
        device_batch: Rows that a device holds at once.
        min_lr_share: The cosine ends at this share of the rate.
        warmup: Share of the steps over which the rate rises.
        clip: Largest norm of the gradient.
        precision: ``bf16``, ``fp32``, or ``auto``: bf16 on a GPU that has it.
        gradient_checkpointing: Less memory for a third more time.
        workers: Processes that prepare rows.
        save_every: Steps between checkpoints and looks at the validation examples.
        log_every: Steps between points of the curve.
    """

    model: str = ""
    seed: int = 1
    examples: int = 1620
    validation: int = 175
    max_tokens: int = 16_000
    context_tokens: tuple[int, int] = (200, 10_000)
    data: bool = False
    texts: tuple[str, ...] = ()
    lessons: tuple[str, ...] = ()
    quote_answer: bool = False
    tasks: Mapping[str, float] = field(default_factory=dict)
    working: float = 0.0
    embeddings: Stage = Stage(5, 5e-5)
    all_weights: Stage = Stage(1, 2e-6)
    adapter_rank: int = 0
    global_batch: int = 32
    device_batch: int = 1
    min_lr_share: float = 0.1
    warmup: float = 0.0
    clip: float = 1.0
    precision: str = "auto"
    gradient_checkpointing: bool = True
    workers: int = 1
    save_every: int = 25
    log_every: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        plain = asdict(self)
        lists = ("context_tokens", "texts", "lessons")
        return plain | {name: list(plain[name]) for name in lists} | {"tasks": dict(self.tasks)}


_AT_LEAST: Mapping[str, float] = {
    "examples": 1,
    "validation": 0,
    "max_tokens": 64,
    "global_batch": 1,
    "device_batch": 1,
    "working": 0,
    "min_lr_share": 0,
    "warmup": 0,
    "clip": 0,
    "workers": 0,
    "save_every": 1,
    "log_every": 1,
}
_AT_MOST: Mapping[str, float] = {"working": 1, "min_lr_share": 1, "warmup": 1}


def read_sft_config(path: Path) -> SftConfig:
    """Reads a TOML file; paths in it are relative to where the command runs.

    Raises:
        RecallmError: It can't be read, or has a name or value that no run knows.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecallmError(f"can't use the training config {path}: {error}") from error
    try:
        return sft_config(values)
    except ValueError as error:
        raise RecallmError(f"can't use the training config {path}: {error}") from error


def sft_config(values: Mapping[str, Any]) -> SftConfig:
    """Builds a config from plain values, checking each.

    Raises:
        ValueError: A name is unknown, or a value out of range or of the wrong kind.
    """
    _check_names("the config", values, [f.name for f in fields(SftConfig)])
    fields_by_name: dict[str, Any] = {}
    for name, value in values.items():
        fields_by_name[name] = _value(name, value)
    config = SftConfig(**fields_by_name)
    _check(config)
    return config


def _check_names(where: str, values: Mapping[str, Any], known: list[str]) -> None:
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"unknown names {unknown} in {where}; known are {sorted(known)}")


def _value(name: str, value: Any) -> Any:
    """A plain value as the field wants it."""
    if name in ("embeddings", "all_weights"):
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} must be a table with epochs and lr, got {value!r}")
        _check_names(f"[{name}]", value, ["epochs", "lr"])
        base = getattr(SftConfig(), name)
        epochs = _number(f"{name}.epochs", value.get("epochs", base.epochs), 0)
        return Stage(epochs, _number(f"{name}.lr", value.get("lr", base.lr), 0))
    if name == "tasks":
        if not isinstance(value, Mapping):
            raise ValueError(f"tasks must be a table of shares, got {value!r}")
        _check_names("[tasks]", value, list(TASKS))
        return {task: _number(f"tasks.{task}", share, 0) for task, share in value.items()}
    if name in ("texts", "lessons"):
        if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
            raise ValueError(f"{name} must be a list of paths, got {value!r}")
        return tuple(value)
    if name == "context_tokens":
        if not isinstance(value, list) or len(value) != 2:
            raise ValueError(f"context_tokens must be [shortest, longest], got {value!r}")
        return tuple(_whole(name, part, 1) for part in value)
    return _plain(name, value)


def _plain(name: str, value: Any) -> Any:
    default = getattr(SftConfig(), name)
    if isinstance(default, bool | str):
        if type(value) is not type(default):
            expected = "true or false" if isinstance(default, bool) else "a string"
            raise ValueError(f"{name} must be {expected}, got {value!r}")
        return value
    low = _AT_LEAST.get(name, 0)
    if isinstance(default, int):
        return _whole(name, value, low)
    return _number(name, value, low, _AT_MOST.get(name))


def _whole(name: str, value: Any, low: float) -> int:
    if type(value) is not int or value < low:
        raise ValueError(f"{name} must be a whole number of at least {low:g}, got {value!r}")
    return value


def _number(name: str, value: Any, low: float, high: float | None = None) -> float:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    top = float("inf") if high is None else high
    if not real or not low <= value <= top or value == float("inf"):
        bounds = f"at least {low:g}" if high is None else f"in [{low:g}, {high:g}]"
        raise ValueError(f"{name} must be a number {bounds}, got {value!r}")
    return float(value)


def _check(config: SftConfig) -> None:
    low, high = config.context_tokens
    if not low <= high <= config.max_tokens:
        raise ValueError(
            f"context_tokens must be [shortest, longest], at most max_tokens "
            f"({config.max_tokens:,}), got {[low, high]}"
        )
    if config.precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {config.precision!r}")
    if config.global_batch % config.device_batch:
        raise ValueError(
            f"global_batch ({config.global_batch}) must be a multiple of device_batch "
            f"({config.device_batch})"
        )
    if not any(config.tasks.values()):
        raise ValueError(f"[tasks] must give a share to at least one of {sorted(TASKS)}")


def with_model(config: SftConfig, model: str | None) -> SftConfig:
    """Returns the config for another model, where one is given."""
    return config if model is None else replace(config, model=model)
