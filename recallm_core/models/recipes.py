"""Which recipe drives a checkpoint: the saved one, or one that fits its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recallm_core.errors import CheckpointError
from recallm_core.inputs.model_config import read_config
from recallm_core.models.families import apply_family, family_of, recipe_of
from recallm_core.prompting.recipe import Recipe, trained_recipe
from recallm_core.tokenization.tokenizer import HFTokenizer


def choose_recipe(path: str | Path, mode: str, tokenizer: HFTokenizer) -> Recipe:
    """Returns the saved recipe, or one that fits what the tokenizer has."""
    saved = Recipe.load(path)
    if saved is not None and mode in ("auto", saved.mode):
        return saved
    return recipe_for(tokenizer, read_config(Path(path)), mode, path)


def recipe_for(
    tokenizer: HFTokenizer, config: Mapping[str, Any], mode: str, place: str | Path
) -> Recipe:
    """Returns the recipe that fits a tokenizer: by its marks, or by its model's family.

    Args:
        tokenizer: The model's.
        config: Where its type and sizes are read.
        mode: ``auto``, ``trained`` or ``prompted``.
        place: Where the model is, for the error.

    Raises:
        CheckpointError: The mode doesn't suit it.
    """
    base = trained_recipe()
    has_marks = all(tokenizer.control_id(mark) is not None for mark in (base.open, base.close))
    if mode == "trained" and not has_marks:
        raise CheckpointError(
            f"{place} can't be driven in trained mode: its tokenizer lacks {base.open} and "
            f"{base.close}; use mode='prompted', or add and train them (recallm model create)"
        )
    if mode != "prompted" and has_marks:
        return base
    return recipe_of(family_of(tokenizer, config), config)


def fit_tokenizer(path: str | Path, recipe: Recipe, tokenizer: HFTokenizer) -> HFTokenizer:
    """Returns the tokenizer as a recipe wants it: a prompted model's renders as its family does."""
    return fit_tokenizer_to(read_config(Path(path)), recipe, tokenizer)


def fit_tokenizer_to(
    config: Mapping[str, Any], recipe: Recipe, tokenizer: HFTokenizer
) -> HFTokenizer:
    """``fit_tokenizer`` for a model whose config was read."""
    if recipe.mode == "trained":
        return tokenizer
    return apply_family(tokenizer, family_of(tokenizer, config))
