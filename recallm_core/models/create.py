"""Turns a base model into one that can be trained to recall: four tokens, a recipe, a template."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recallm_core.errors import CheckpointError
from recallm_core.inputs.extras import needs
from recallm_core.models.writing import whole_folder
from recallm_core.prompting.recipe import trained_recipe

MODEL_TYPES = ("qwen2", "qwen3", "llama")
_OPENS_THINKING = "{%- if add_generation_prompt %}{{ '<think>' }}{%- endif %}"
_NOISE = 0.02  # share of the typical norm, so that no two new rows are equal

MEANINGS: Mapping[str, str] = {
    "<|start_recall|>": "begin exact quote copied from the document",
    "<|end_recall|>": "end of the exact quote from the document",
    "<think>": "think step by step before the answer",
    "</think>": "finished thinking, now the answer",
}
"""The four tokens of the paper, and the words from whose embeddings each new row is averaged."""


def create(
    base: str | Path,
    out: str | Path,
    *,
    seed: int = 0,
    dtype: str = "auto",
    overwrite: bool = False,
    revision: str | None = None,
    system: str | None = None,
) -> Path:
    """Adds the four tokens to a base model and saves it with recipe and template.

    New embedding rows (and output rows, where they aren't tied) are the mean of the rows of the
    words that say what the token means, scaled to the usual norm, with a little seeded noise; so
    the first stage of training starts near something sensible. Tokens that the base has already
    keep their rows.

    Args:
        base: A Qwen2, Qwen3 or Llama folder or hub id.
        out: The folder to write; it appears complete or not at all.
        seed: Of the noise.
        dtype: Of the saved weights; ``auto`` keeps the base's.
        overwrite: Replace ``out`` if it exists.
        revision: Of a hub id.
        system: The instructions that the model is trained with, in place of the paper's, which
            take 200 tokens of every prompt; ``{open}``, ``{close}`` and ``{abstain}`` are filled
            in.

    Raises:
        CheckpointError: The base is of another kind, or ``out`` exists.
    """
    target = Path(out)
    if target.exists() and not overwrite:
        raise CheckpointError(f"{target} exists; choose another folder or pass overwrite=True")
    recipe = trained_recipe() if system is None else trained_recipe(system=system)
    with needs("local", "a new checkpoint"):
        import torch  # noqa: F401
        from transformers import AutoModelForCausalLM, AutoTokenizer
    options = {"trust_remote_code": False, "revision": revision}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(base), use_fast=True, **options)
        model = AutoModelForCausalLM.from_pretrained(
            str(base), use_safetensors=True, dtype=dtype, **options
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(f"can't load the base model {base}: {error}") from error
    if model.config.model_type not in MODEL_TYPES:
        raise CheckpointError(
            f"{base} is a {model.config.model_type!r} model; bases must be one of {MODEL_TYPES}. "
            "Other models can be used as they are with mode='prompted'"
        )
    _extend(model, tokenizer, seed)
    with whole_folder(target, overwrite=overwrite) as aside:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        recipe.save(aside)
    return target


def _extend(model: Any, tokenizer: Any, seed: int) -> None:
    import torch

    known = tokenizer.get_vocab()
    missing = [token for token in MEANINGS if token not in known]
    words = {
        token: tokenizer(MEANINGS[token], add_special_tokens=False)["input_ids"]
        for token in missing
    }
    tokenizer.add_tokens(missing, special_tokens=False)
    size = max(len(tokenizer), max(tokenizer.get_vocab().values()) + 1)
    if size > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(size, mean_resizing=False)
    noise = torch.Generator().manual_seed(seed)
    tables = {
        id(layer.weight): layer.weight
        for layer in (model.get_input_embeddings(), model.get_output_embeddings())
        if layer is not None
    }
    with torch.no_grad():
        for weight in tables.values():
            for token in missing:
                row = tokenizer.convert_tokens_to_ids(token)
                weight[row] = _row(weight, words[token], noise).to(weight.dtype)
    if tokenizer.chat_template:
        tokenizer.chat_template = tokenizer.chat_template + _OPENS_THINKING


def _row(weight: Any, words: list[int], noise: Any) -> Any:
    import torch

    rows = weight[words].float()
    mean = rows.mean(dim=0)
    norm = rows.norm(dim=1).mean()
    mean = mean * (norm / mean.norm().clamp_min(1e-6))
    jitter = torch.randn(mean.shape, generator=noise)
    return mean + jitter * (_NOISE * norm / jitter.norm())
