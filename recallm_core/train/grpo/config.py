"""What a GRPO run is made of, read from a TOML file; unknown names are refused."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from recallm_core.backends.vllm.connection import base_url
from recallm_core.errors import RecallmError
from recallm_core.train.grpo.rewards import RewardRules
from recallm_core.train.tasks.families.registry import FAMILIES

Owed = Literal["free", "required", "first"]
Precision = Literal["auto", "bf16", "fp32"]


@dataclass(frozen=True, slots=True)
class GrpoConfig:
    """All that a run depends on, besides the files that it names.

    Attributes:
        model: A folder that ``recallm model create`` made, best after ``train sft``, or an adapter
            of it; ``--model`` overrides it.
        base: What an adapter goes on, by its path or hub id; empty: what it names. ``--base``
            overrides it.
        seed: Everything random follows from it.
        steps: Optimizer steps.
        prompts: Problems of one step, over all devices.
        rollouts: Attempts at each problem.
        problems: Different problems, cycled through; 0: every step has new ones.
        device_batch: Attempts that a device learns from at once.
        prompt_tokens: Shortest and longest prompt, as the model's own prompt builder makes it.
        response_tokens: Longest attempt.
        thinking_tokens: The end of thinking is forced from here on; 0: what leaves a quarter of
            the attempt, at most 512 tokens, for the answer.
        temperature: Of the attempts; the trainer's log-probabilities are taken at the same.
        evidence: What an attempt owes before it may end (``GenerationParams.evidence``).
        lr, min_lr_share, warmup, clip: Of the optimizer; the cosine ends at a share of the rate.
        beta: Weight of the divergence from the model that the run began with; 0 spares that model.
        adapter_rank: Rank of the adapters that learn; 0: all weights learn.
        rollouts_from: Address of a server that makes the attempts (``recallm serve MODEL --adapters
            OUT/adapters``) and is given the adapter before each step; empty: each device makes its
            own, with the model that learns.
        precision: ``bf16``, ``fp32``, or ``auto``: bf16 on a GPU that has it.
        gradient_checkpointing: Less memory for a third more time.
        data: The data folder; empty: ``RECALLM_DATA``.
        save_every: Steps between checkpoints.
        log_every: Steps between points of the curve.
        families: Share of each family.
        reward: The switches and sizes of the reward (``RewardRules``).
        shape: What the model's ``config.json`` says, for ``--check`` where it isn't there.
        trl: Further settings of TRL's ``GRPOConfig``; those that break exactness are refused.
    """

    model: str = ""
    base: str = ""
    seed: int = 1
    steps: int = 150
    prompts: int = 128
    rollouts: int = 16
    problems: int = 0
    device_batch: int = 1
    prompt_tokens: tuple[int, int] = (1000, 10_000)
    response_tokens: int = 5120
    thinking_tokens: int = 0
    temperature: float = 1.0
    evidence: Owed = "free"
    lr: float = 2e-6
    min_lr_share: float = 0.1
    warmup: float = 0.0
    clip: float = 1.0
    beta: float = 0.001
    adapter_rank: int = 0
    rollouts_from: str = ""
    precision: Precision = "auto"
    gradient_checkpointing: bool = True
    data: str = ""
    save_every: int = 10
    log_every: int = 1
    families: Mapping[str, float] = field(default_factory=dict)
    reward: RewardRules = field(default_factory=RewardRules)
    shape: Mapping[str, Any] = field(default_factory=dict)
    trl: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return asdict(self) | {"prompt_tokens": list(self.prompt_tokens)}

    @property
    def attempts(self) -> int:
        """Attempts of one step."""
        return self.prompts * self.rollouts


_LEAST: Mapping[str, float] = {
    "steps": 1,
    "prompts": 1,
    "rollouts": 2,
    "device_batch": 1,
    "response_tokens": 4,
    "save_every": 1,
    "log_every": 1,
}
_SHARES = ("min_lr_share", "warmup")
_CHOICES = {"evidence": get_args(Owed), "precision": get_args(Precision)}


def read_grpo_config(path: Path) -> GrpoConfig:
    """Reads a TOML file; paths in it are relative to where the command runs.

    Raises:
        RecallmError: It can't be read, or has a name or value that no run knows.
    """
    try:
        return grpo_config(tomllib.loads(path.read_text("utf-8")))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise RecallmError(f"can't use the training config {path}: {error}") from error


def grpo_config(values: Mapping[str, Any]) -> GrpoConfig:
    """Builds a config from plain values, checking each.

    Raises:
        ValueError: A name is unknown, or a value out of range or of the wrong kind.
    """
    _check_names("the config", values, GrpoConfig)
    config = GrpoConfig(**{name: _value(name, value) for name, value in values.items()})
    low, high = config.prompt_tokens
    if not 1 <= low <= high:
        raise ValueError(f"prompt_tokens must be [shortest, longest], got {[low, high]}")
    if config.temperature == 0:
        raise ValueError("temperature must be above 0: attempts that are all alike teach nothing")
    if config.attempts % config.device_batch:
        raise ValueError(
            f"prompts times rollouts ({config.attempts}) must be a multiple of device_batch "
            f"({config.device_batch})"
        )
    if config.reward.overlong_tokens > config.response_tokens:
        raise ValueError(
            f"reward.overlong_tokens ({config.reward.overlong_tokens}) must be at most "
            f"response_tokens ({config.response_tokens}), or every attempt counts as too long; 0 "
            "turns it off"
        )
    _check_server(config)
    if not any(config.families.values()):
        raise ValueError(f"[families] must give a share to at least one of {sorted(FAMILIES)}")
    return replace(config, reward=replace(config.reward, response_tokens=config.response_tokens))


def _check_server(config: GrpoConfig) -> None:
    if config.rollouts_from and not config.adapter_rank:
        raise ValueError(
            "rollouts_from needs adapter_rank: a server is given adapters, and where all weights "
            "learn it would go on with those that the run began with"
        )
    if config.rollouts_from:
        base_url(config.rollouts_from)


def _check_names(where: str, values: Mapping[str, Any], kind: type) -> None:
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"unknown names {unknown} in {where}; known are {sorted(known)}")


def _value(name: str, value: Any) -> Any:
    """A plain value as the field wants it."""
    if name in ("families", "reward", "shape", "trl"):
        return _table(name, value)
    if name == "prompt_tokens":
        if not isinstance(value, list) or [type(part) for part in value] != [int, int]:
            raise ValueError(f"prompt_tokens must be [shortest, longest], got {value!r}")
        return tuple(value)
    return plain_value(name, value, getattr(GrpoConfig(), name))


def _table(name: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a table, got {value!r}")
    if name == "families":
        unknown = sorted(set(value) - set(FAMILIES))
        if unknown:
            raise ValueError(f"unknown families {unknown}; known are {sorted(FAMILIES)}")
        return {f: plain_value(f"families.{f}", share, 0.0) for f, share in value.items()}
    if name == "reward":
        _check_names("[reward]", value, RewardRules)
        default = RewardRules()
        return RewardRules(
            **{n: plain_value(f"reward.{n}", v, getattr(default, n)) for n, v in value.items()}
        )
    return dict(value)


def plain_value(name: str, value: Any, default: Any) -> Any:
    """Returns a value of the kind that a default has.

    Raises:
        ValueError: It is of another kind, or out of range.
    """
    if name in _CHOICES and value not in _CHOICES[name]:
        raise ValueError(f"{name} must be one of {_CHOICES[name]}, got {value!r}")
    if isinstance(default, bool | str):
        if type(value) is not type(default):
            expected = "true or false" if isinstance(default, bool) else "a string"
            raise ValueError(f"{name} must be {expected}, got {value!r}")
        return value
    return _number(name, value, isinstance(default, int))


def _number(name: str, value: Any, is_whole: bool) -> float:
    low, high = _LEAST.get(name, 0), 1 if name in _SHARES else float("inf")
    kinds = (int,) if is_whole else (int, float)
    if type(value) not in kinds or not low <= value <= high or value == float("inf"):
        expected = "a whole number" if is_whole else "a number"
        bounds = f"from {low:g} to {high:g}" if high == 1 else f"of at least {low:g}"
        raise ValueError(f"{name} must be {expected} {bounds}, got {value!r}")
    return int(value) if is_whole else float(value)


def with_model(config: GrpoConfig, model: str | None, base: str | None = None) -> GrpoConfig:
    """Returns the config for another model, and another base of an adapter, where one is given."""
    return replace(
        config,
        model=config.model if model is None else model,
        base=config.base if base is None else base,
    )
