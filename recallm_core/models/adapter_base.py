"""Whether a model is the one that an adapter was trained on, as far as the adapter can tell.

The factors of an adapter name layers and their sizes, which is checked where they are put in. A
base can fit all of these and still be another model: with more layers, positions that turn at
another rate, or words under other ids. What the adapter wrote of its base, and the words of both
tokenizers, tell these apart; two trainings of one architecture over one vocabulary they don't.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recallm_core.errors import CheckpointError
from recallm_core.inputs.arguments import shown
from recallm_core.inputs.model_files import read_json

BASE = "recallm_base"
"""In the metadata of an adapter's weights: ``shape_of`` its base, as JSON."""
_SHAPE = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "tie_word_embeddings",
)
_WORDS = "tokenizer.json"
_MOST = 10_000  # characters of what an adapter says of its base


def shape_of(config: Any) -> dict[str, Any]:
    """Returns what a transformers config says of a model, but for the size of its vocabulary."""
    rope = getattr(config, "rope_parameters", None) or {}
    facts = {name: getattr(config, name, None) for name in _SHAPE}
    return facts | {"rope_theta": rope.get("rope_theta") if isinstance(rope, dict) else None}


def read_shape(metadata: Mapping[str, str] | None, path: Path) -> dict[str, Any]:
    """Returns what the metadata of an adapter's weights say of its base; empty: nothing.

    Raises:
        CheckpointError: It can't be read.
    """
    text = (metadata or {}).get(BASE, "{}")
    try:
        shape = json.loads(text[:_MOST])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} says in {BASE} what can't be read: {shown(text)}") from error
    if not isinstance(shape, dict):
        raise CheckpointError(f"{path} must say an object in {BASE}, got {shown(shape)}")
    return shape


def check_shape(folder: Path, shape: Mapping[str, Any], config: Any) -> None:
    """Checks that a model is what an adapter says of its base.

    Args:
        folder: The adapter's, for the error.
        shape: What it says.
        config: The model's, of transformers.

    Raises:
        CheckpointError: It is another model.
    """
    actual = shape_of(config)
    for name, expected in shape.items():
        if name in actual and actual[name] != expected:
            raise CheckpointError(
                f"the adapter in {folder} goes on a model with {name} = {shown(expected)}, and "
                f"this base has {shown(actual[name])}; give the base that it was trained on"
            )


def check_words(adapter: Path, base: Path) -> None:
    """Checks that an adapter's tokenizer has all tokens of its base, under the same ids.

    Raises:
        CheckpointError: One is missing or has another id, or a tokenizer can't be read.
    """
    if not (adapter / _WORDS).is_file() or not (base / _WORDS).is_file():
        return
    expected = _ids(adapter / _WORDS)
    for word, number in _ids(base / _WORDS).items():
        if expected.get(word) != number:
            raise CheckpointError(
                f"the token {shown(word)} is {number:,} to the base {base} and "
                f"{shown(expected.get(word))} to the adapter in {adapter}, so they are of two "
                "models; give the base that it was trained on"
            )


def _ids(path: Path) -> dict[str, int]:
    plain = read_json(path)
    try:
        words = plain["model"]["vocab"]
        listed = words if isinstance(words, dict) else {w[0]: n for n, w in enumerate(words)}
        return listed | {token["content"]: int(token["id"]) for token in plain["added_tokens"]}
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{path} can't be read as a tokenizer: {shown(error)}; get the model again"
        ) from error
