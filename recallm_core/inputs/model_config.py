"""What a model folder's configuration says, read as plain JSON: without weights or transformers."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

from recallm_core.errors import CheckpointError
from recallm_core.inputs.arguments import shown
from recallm_core.inputs.model_files import read_json

_PRECISIONS = ("float32", "bfloat16", "float16", "float64")


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """Returns a configuration of a model folder; an empty one where it has no such file.

    Raises:
        CheckpointError: It is larger than any model's, or no JSON object.
    """
    path = folder / name
    return read_json(path) if path.is_file() else {}


def eos_ids(folder: Path) -> tuple[int, ...]:
    """Returns the ids that a checkpoint's configuration says end an output.

    Raises:
        CheckpointError: A configuration can't be read.
    """
    for name in ("generation_config.json", "config.json"):
        named = read_config(folder, name).get("eos_token_id")
        if named is not None:
            listed = named if isinstance(named, list) else [named]
            return tuple(i for i in listed if type(i) is int and i >= 0)
    return ()


def vocab_size(folder: Path) -> int | None:
    """Returns the width of the logits that a checkpoint's configuration names.

    Raises:
        CheckpointError: The configuration can't be read.
    """
    return _count(folder, "vocab_size")


def context_length(folder: Path) -> int | None:
    """Returns how many tokens a checkpoint's configuration says that its model attends to.

    Raises:
        CheckpointError: The configuration can't be read.
    """
    return _count(folder, "max_position_embeddings")


def weights_of_layers(config: Mapping[str, Any]) -> float:
    """Returns about how many weights a model's layers have; infinity where it can't be said.

    Attention and a gated network, as in Llama, Qwen and Gemma; without the word table. Of experts
    nothing is said.

    Args:
        config: What ``config.json`` says, or the same of a GGUF header.
    """
    inner = config.get("text_config")
    values = inner if isinstance(inner, Mapping) else config
    names = ("hidden_size", "intermediate_size", "num_hidden_layers")
    sizes = [values.get(name) for name in names]
    if any(type(size) is not int or size < 1 for size in sizes) or _has_experts(values):
        return inf
    width, wide, layers = (float(size or 0) for size in sizes)
    return layers * (4 * width * width + 3 * width * wide)


def _has_experts(values: Mapping[str, Any]) -> bool:
    return any("expert" in name and values[name] for name in values)


def dtype_name(folder: Path) -> str:
    """Returns the precision in which a checkpoint's configuration says that it was saved.

    Raises:
        CheckpointError: The configuration can't be read, or names no precision of weights.
    """
    config = read_config(folder)
    name = config.get("dtype") or config.get("torch_dtype") or "float32"
    if name not in _PRECISIONS:
        raise CheckpointError(
            f"{folder / 'config.json'} says that its weights are {shown(name)}, expected one of "
            f"{', '.join(_PRECISIONS)}; get the checkpoint again"
        )
    return str(name)


def _count(folder: Path, name: str) -> int | None:
    """A count that the configuration names, for the whole model or for its text model."""
    config = read_config(folder)
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        if type(part.get(name)) is int and part[name] > 0:
            return int(part[name])
    return None
