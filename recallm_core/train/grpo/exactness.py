"""Settings of TRL that would make the trainer's probabilities other than those of the attempts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from recallm_core.errors import RecallmError

_SHAPES = "the attempts are drawn from the whole legal set, and the trainer renormalises over it"
_TOGETHER = "the attempts are this library's, made under the constraint; TRL's own know none"


def _off(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value in values


_ONLY: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "top_p": (_off(1, 1.0), _SHAPES),
    "top_k": (_off(0, None), _SHAPES),
    "min_p": (_off(0, 0.0, None), _SHAPES),
    "repetition_penalty": (_off(1, 1.0), _SHAPES),
    "generation_kwargs": (_off(None, {}), _TOGETHER),
    "use_vllm": (_off(False), _TOGETHER),
    "use_transformers_continuous_batching": (_off(False), _TOGETHER),
    "use_transformers_paged": (_off(False), _TOGETHER),
    "use_liger_kernel": (
        _off(False),
        "its fused loss makes no logits, so that nothing could be masked",
    ),
    "cast_lm_head_to_fp32": (
        _off(False),
        "the attempts' logits would be made by another last layer than the trainer's",
    ),
    "disable_dropout": (_off(True), "dropout makes the trainer's model another one"),
    "num_iterations": (
        _off(1),
        "a run that goes on begins with a fresh batch, so that each batch is used once",
    ),
    "steps_per_generation": (
        _off(None),
        "each step learns from its own attempts; prompts and device_batch say how many",
    ),
    "generation_batch_size": (_off(None), "prompts times rollouts is the batch"),
    "mask_truncated_completions": (
        _off(False),
        "it hides tokens from the model's attention too, and the reward counts length already",
    ),
    "trust_remote_code": (_off(False), "checkpoints run no code"),
    "remove_unused_columns": (_off(False), "rows are looked up by their number"),
    "sync_ref_model": (_off(False), "the divergence is from the model that the run began with"),
    "fsdp": (
        _off(None, "", []),
        "attempts need the whole model on each device; train adapters (adapter_rank) instead",
    ),
    "deepspeed": (
        _off(None),
        "attempts need the whole model on each device; train adapters (adapter_rank) instead",
    ),
}


def refuse_inexact(settings: Mapping[str, Any]) -> None:
    """Refuses settings of TRL under which a ratio of probabilities would mean nothing.

    Raises:
        RecallmError: There is one; the message says which, and why.
    """
    for name, (allows, reason) in _ONLY.items():
        if name in settings and not allows(settings[name]):
            raise RecallmError(
                f"{name} = {settings[name]!r} would break exactness: {reason}; leave it out"
            )
