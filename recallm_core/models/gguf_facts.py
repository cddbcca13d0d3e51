"""What a GGUF file says of itself: no weights are read, and llama.cpp needn't be installed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recallm_core.errors import TokenizerError
from recallm_core.inputs.gguf_header import GgufHeader, read_header, split_files
from recallm_core.models.families import family_of
from recallm_core.models.recipes import recipe_for
from recallm_core.tokenization.gguf_vocabulary import tokenizer_of
from recallm_core.tokenization.tokenizer import HFTokenizer

_BEGINS = "tokenizer.ggml.add_bos_token"


def facts_of(path: Path) -> dict[str, Any]:
    """Returns the facts of a checked header: the model, its weights, its tokens, its recipe.

    Where the tokenizer is of a kind that isn't known here, ``tokenizer`` says so, and there is
    nothing of tokens and recipe.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    header = read_header(path)
    facts = {
        "file": path.name,
        "files": len(split_files(path)),
        "architecture": header.architecture,
        "model_type": header.model_type,
        "window": header.number(f"{header.architecture}.context_length"),
        "weights_bytes": sum(tensor.size for tensor in header.tensors.values()),
        "quantisation": _quantisation(header),
        "vocabulary": len(header.texts("tokenizer.ggml.tokens")),
        "tokenizer": header.text("tokenizer.ggml.model"),
        "chat_template": header.text("tokenizer.chat_template") is not None,
    }
    try:
        begins = bool(header.metadata.get(_BEGINS, False))
        tokenizer = tokenizer_of(header, controls=(), ends=(), begins=begins)
    except TokenizerError as error:
        return {**facts, "tokenizer": str(error)}
    return {**facts, **_driving(tokenizer, header, path)}


def _quantisation(header: GgufHeader) -> dict[str, float]:
    """The part of the weights' bytes that is of each type, the most first."""
    sizes: Counter[str] = Counter()
    for tensor in header.tensors.values():
        sizes[tensor.type_name] += tensor.size
    total = max(sizes.total(), 1)
    return {name: round(size / total, 3) for name, size in sizes.most_common()}


def _driving(tokenizer: HFTokenizer, header: GgufHeader, path: Path) -> Mapping[str, Any]:
    """How a file is driven: its family and recipe, and the ids of what isn't text."""
    config = header.config
    recipe = recipe_for(tokenizer, config, "auto", path)
    marks = (recipe.open, recipe.close, recipe.think_open, recipe.think_close)
    return {
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "family": family_of(tokenizer, config).name,
        "control_ids": len(tokenizer.control_ids),
        "named_ids": _named_ids(tokenizer),
        "end_ids": list(tokenizer.eos_ids),
        "marks": {mark: tokenizer.control_id(mark) for mark in marks if mark},
        "recipe": asdict(recipe),
    }


def _named_ids(tokenizer: HFTokenizer) -> dict[str, int]:
    """The control tokens that have a role, or that the chat template writes."""
    inner = tokenizer.tokenizer
    roles, template = set(inner.special_tokens_map.values()), inner.chat_template or ""
    named = {
        token.content: number
        for number, token in inner.added_tokens_decoder.items()
        if number in tokenizer.control_ids
    }
    return {name: n for name, n in named.items() if name in roles or name in template}
