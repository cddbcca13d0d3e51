"""Whether weights can fill the model that a config describes, before memory is allocated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM

from recallm_core.errors import CheckpointError

_PACKED = 8  # a quantised element may hold this many parameters
_SPARE_BUFFERS = 1 << 26  # bytes of tables that a model may make for itself, beside its weights'
_SLACK = 1.25  # tied weights that are stored once


def check_sizes(config: Any, files: tuple[Path, ...]) -> int:
    """Checks that the weights can fill the model that the config describes, before it is allocated.

    Returns:
        The number of stored parameters.

    Raises:
        CheckpointError: A file is damaged, or the config describes a far larger model.
    """
    tensors, stored = 0, 0
    for path in files:
        try:
            with safe_open(path, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118 (not a mapping)
                    tensors += 1
                    stored += int(torch.Size(weights.get_slice(name).get_shape()).numel())
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged: {error}; download it again") from error
    model = _plan(config, tensors)
    described = sum(parameter.numel() for parameter in model.parameters())
    packed = _PACKED if getattr(config, "quantization_config", None) else 1
    if described > stored * packed * _SLACK:
        raise CheckpointError(
            f"config.json describes {described:,} parameters, but the weights hold {stored:,}; "
            "config and weights don't belong together"
        )
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    if buffers > 4 * stored + _SPARE_BUFFERS:
        raise CheckpointError(
            f"config.json describes tables of {buffers:,} bytes beside weights of {stored:,} "
            "parameters, more than any model makes for itself; config and weights don't belong "
            "together"
        )
    return stored


def _plan(config: Any, tensors: int) -> Any:
    """The model of a config without memory for anything in it.

    Raises:
        CheckpointError: The config describes no model, or one of far more layers.
    """
    text = config.get_text_config(decoder=True)
    layers = getattr(text, "num_hidden_layers", 1)
    if isinstance(layers, int) and layers > tensors:
        raise CheckpointError(
            f"config.json describes {layers:,} layers, but the weights hold only {tensors:,} "
            "tensors; config and weights don't belong together"
        )
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # models choke on odd sizes in many ways
        raise CheckpointError(
            f"config.json describes no model that can be made: {brief(error)}"
        ) from error


def brief(error: Exception) -> str:
    """Returns what an error of another library says, its kind first."""
    return f"{type(error).__name__}: {str(error)[:500]}"
