"""What llama.cpp takes for granted of a GGUF file's header, and a hostile file needn't hold."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from recallm_core.inputs.arguments import shown
from recallm_core.inputs.model_files import MOST_IDS

if TYPE_CHECKING:
    from recallm_core.inputs.gguf_header import GgufHeader

_MOST_LAYERS = 512  # llama.cpp ends the process above that
_MOST_PARTS = 16_384  # heads or experts
_MOST_NUMBER = 1 << 40  # of anything else
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


class DamageError(ValueError):
    """What is wrong with the file; its name is still to be added."""


def check_model(header: GgufHeader, files: int) -> None:
    """Refuses what llama.cpp takes for granted the other way round, or would work on for ever.

    Args:
        header: Of all files of the model together.
        files: How many they are.

    Raises:
        DamageError: A figure, a name or the tokens aren't those of a model.
    """
    if not _ARCHITECTURE.fullmatch(header.architecture):
        raise DamageError(
            f"general.architecture is {shown(header.architecture)}, expected a name such as 'llama'"
        )
    if (header.number("split.count") or 1) != files:
        raise DamageError(
            f"it says that the model has {header.number('split.count')} files; keep all of them in "
            "one folder under the names that they were made with (…-00001-of-00002.gguf), or join "
            "them: llama-gguf-split --merge FIRST OUT"
        )
    if not header.tensors:
        raise DamageError("it holds no weights; a file of a vocabulary alone is no model")
    _check_counts(header)
    _check_tokens(header)


def _check_counts(header: GgufHeader) -> None:
    for key, value in header.metadata.items():
        if key.startswith(f"{header.architecture}.") and not isinstance(value, str | tuple):
            _check_number(key, np.asarray(value, dtype=np.float64))
    for name in ("context_length", "embedding_length", "block_count"):
        key = f"{header.architecture}.{name}"
        if (header.number(key) or 0) < 1:
            raise DamageError(f"{key} is {shown(header.metadata.get(key))}, expected 1 or more")


def _check_number(key: str, values: np.ndarray[Any, Any]) -> None:
    """Refuses numbers that no model has; llama.cpp works on with some and ends with others."""
    if not np.isfinite(values).all() or (key.endswith("epsilon") and (values < 0).any()):
        raise DamageError(f"{key} is {shown(values.tolist())}, expected a finite number")
    limit = _MOST_NUMBER
    if key.endswith(".block_count"):
        limit = _MOST_LAYERS
    elif any(part in key for part in ("count", "block", "layer", "expert")):
        limit = _MOST_PARTS
    highest = int(np.abs(values).max(initial=0))
    if highest > limit:
        raise DamageError(f"{key} is {highest:,}, more than any model has ({limit:,} at most)")


def _check_tokens(header: GgufHeader) -> None:
    tokens = header.texts("tokenizer.ggml.tokens")
    if not 0 < len(tokens) <= MOST_IDS:
        raise DamageError(f"it has {len(tokens):,} tokens, expected 1 to {MOST_IDS:,}")
    if len(set(tokens)) < len(tokens):
        raise DamageError("two of its tokens are spelled alike")
    for key in ("tokenizer.ggml.scores", "tokenizer.ggml.token_type"):
        if key in header.metadata and len(header.numbers(key)) != len(tokens):
            raise DamageError(
                f"{key} has {len(header.numbers(key)):,} entries for {len(tokens):,} tokens"
            )
    table = header.tensors.get("token_embd.weight")
    if table is not None and table.shape[1:] != (len(tokens),):
        raise DamageError(
            f"its table of tokens has the shape {table.shape}, but there are {len(tokens):,} tokens"
        )
