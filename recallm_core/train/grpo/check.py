"""``recallm train grpo --check``: what of a config can be tried without its model or its GPUs.

The settings are parsed and handed to TRL, the model's class is built in its real shape without
memory, and one step is taken on a tiny checkpoint of the same class.
"""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, TrainerCallback

from recallm_core.backends.vllm.connect import connect
from recallm_core.backends.vllm.connection import Connection
from recallm_core.errors import RecallmError, ServerError
from recallm_core.inputs.model_files import read_json
from recallm_core.models import shipped
from recallm_core.models.adapters import is_adapter
from recallm_core.train.grpo.config import GrpoConfig
from recallm_core.train.grpo.exactness import refuse_inexact
from recallm_core.train.grpo.served import ServedPolicy, start_command
from recallm_core.train.grpo.tiny import make_checkpoint
from recallm_core.train.grpo.train import (
    make_trainer,
    open_run,
    quiet,
    starting_model,
    trl_settings,
)
from recallm_core.train.tasks.families.registry import FAMILIES

_KIND = "model_type"
_SMALL: dict[str, Any] = {
    "steps": 1,
    "prompts": 2,
    "rollouts": 4,
    "device_batch": 4,
    "problems": 0,
    "prompt_tokens": (16, 500),
    "response_tokens": 64,
    "thinking_tokens": 2,
    "evidence": "first",  # a model that knows nothing quotes something, so that rewards differ
    "precision": "fp32",
}


def check(config: GrpoConfig) -> str:
    """Returns a report on a config.

    Raises:
        RecallmError: Something of it can't work; the message says what.
    """
    refuse_inexact(config.trl)
    if config.base or is_adapter(shipped(config.model) or Path(config.model)):
        config = replace(config, model=str(starting_model(config)[0]), base="")
    shape = _shape(config)
    lines = [_batch(config), *_sizes(config, shape), *_server(config, shape)]
    with TemporaryDirectory(prefix="recallm-check-") as folder:
        lines.append(_one_step(config, str(shape[_KIND]), Path(folder)))
    return "\n".join(lines) + "\n"


def _shape(config: GrpoConfig) -> dict[str, Any]:
    """What the model's config says, else what the run's config says of it."""
    file = Path(config.model) / "config.json"
    shape = read_json(file) if file.is_file() else dict(config.shape)
    if config.model and file.is_file():
        differing = sorted(k for k, v in config.shape.items() if k in shape and shape[k] != v)
        if differing:
            raise RecallmError(
                f"[shape] and {file} differ in {', '.join(differing)}; the model isn't the one "
                "that the config was written for"
            )
    if shape.get(_KIND) not in CONFIG_MAPPING:
        raise RecallmError(
            f"there is no model at {config.model!r} and [shape] names no {_KIND} that transformers "
            f"knows, got {shape.get(_KIND)!r}; give --model, or the sizes in [shape]"
        )
    return shape


def _batch(config: GrpoConfig) -> str:
    with TemporaryDirectory(prefix="recallm-check-") as folder:
        cpu = replace(config, precision="fp32")
        settings = trl_settings(cpu, Path(folder))
    families = ", ".join(f"{name} {share:g}" for name, share in sorted(config.families.items()))
    return (
        f"settings     TRL takes them: {config.steps} steps of {config.prompts} problems, "
        f"{config.rollouts} attempts each, {settings.gradient_accumulation_steps} passes of "
        f"{config.device_batch}\nfamilies     {families}"
    )


def _sizes(config: GrpoConfig, shape: dict[str, Any]) -> list[str]:
    """The model in its real shape, on no device."""
    described = CONFIG_MAPPING[shape[_KIND]](**{k: v for k, v in shape.items() if k != _KIND})
    context_length = described.max_position_embeddings
    longest = config.prompt_tokens[1] + config.response_tokens
    if longest > context_length:
        raise RecallmError(
            f"prompt and attempt may take {longest:,} tokens and the model attends to "
            f"{context_length:,}; lower prompt_tokens or response_tokens"
        )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(described)
    weights = sum(p.numel() for p in model.parameters())
    learnt = _adapter_weights(model, config.adapter_rank) if config.adapter_rank else weights
    plain = 2 if config.adapter_rank else 4
    memory = plain * weights + 16 * learnt if config.adapter_rank else 16 * weights
    memory += plain * weights if config.beta and not config.adapter_rank else 0
    return [
        f"model        {type(model).__name__}, {weights / 1e9:.2f} billion weights, "
        f"{learnt / 1e6:,.0f} million learn; context length {context_length:,}, "
        f"longest row {longest:,}",
        f"memory       about {math.ceil(memory / 1e9)} GB a device for weights and optimizer, and "
        f"{4 * config.response_tokens * described.vocab_size / 1e9:.1f} GB for an attempt's logits",
    ]


def _server(config: GrpoConfig, shape: dict[str, Any]) -> list[str]:
    """What can be said of the server that is to make the attempts; one that answers is asked."""
    if not config.rollouts_from:
        return []
    command = start_command(config, "OUT")
    try:
        with closing(Connection(config.rollouts_from, max_retries=0)) as connection:
            connection.get("/health", limit=10_000)
    except ServerError as error:
        return [f"attempts     no server yet ({error}); start: {command}"]
    if not Path(config.model).is_dir():
        connect(config.rollouts_from)[1].close()
        return [f"attempts     {config.rollouts_from} obeys a constraint; started by: {command}"]
    base = Path(config.model)
    ServedPolicy(config, base, int(shape["vocab_size"]), base).close()
    return [f"attempts     {config.rollouts_from} serves the model; started by: {command}"]


def _adapter_weights(model: torch.nn.Module, rank: int) -> int:
    head = model.get_output_embeddings()  # type: ignore[operator]
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    return sum(rank * (layer.in_features + layer.out_features) for layer in layers)


class _LogKeeper(TrainerCallback):  # type: ignore[misc] # transformers has no types
    """Keeps what the one step logged."""

    def __init__(self) -> None:
        self.logs: dict[str, float] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.logs = {**self.logs, **(logs or {})}


def _one_step(config: GrpoConfig, kind: str, folder: Path) -> str:
    with quiet():
        base = make_checkpoint(folder, kind, tied=bool(config.shape.get("tie_word_embeddings")))
        generated = {n: s for n, s in config.families.items() if not FAMILIES[n].needs}
        small = replace(
            config,
            model=str(base),
            adapter_rank=min(4, config.adapter_rank),
            rollouts_from="",
            families=generated or {"recall": 1.0},
            reward=replace(config.reward, response_tokens=64, overlong_tokens=0),
            **_SMALL,
        )
        run, seen = open_run(small, folder / "run"), _LogKeeper()
        run.folder.mkdir()
        trainer = make_trainer(run, [seen])
        trainer.train()
    moved = seen.logs.get("grad_norm")
    return (
        f"one step     {kind}, tiny: loss {seen.logs.get('train_loss', 0):.3g}, "
        f"KL {seen.logs.get('kl', 0):.3g}, gradient {moved:.3g}, largest difference of "
        f"log-probabilities {seen.logs.get('log_prob_gap', 0):.1e}"
    )
