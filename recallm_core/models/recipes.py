"""Which recipe drives a checkpoint: the saved one, or one that fits its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recallm_core.errors import CheckpointError
from recallm_core.inputs.model_files import read_json
from recallm_core.models.families import driven, family_of, recipe_of
from recallm_core.prompting.recipe import Recipe, trained_recipe
from recallm_core.tokenization.tokenizer import HFTokenizer


def choose_recipe(path: str | Path, mode: str, tokenizer: HFTokenizer) -> Recipe:
    """Returns the saved recipe, or one that fits what the tokenizer has."""
    saved = Recipe.load(path)
    if saved is not None and mode in ("auto", saved.mode):
        return saved
    base = trained_recipe()
    has_marks = all(tokenizer.control_id(mark) is not None for mark in (base.open, base.close))
    if mode == "trained" and not has_marks:
        raise CheckpointError(
            f"{path} can't be driven in trained mode: its tokenizer lacks {base.open} and "
            f"{base.close}; use mode='prompted', or add and train them (recallm model create)"
        )
    if mode != "prompted" and has_marks:
        return base
    return recipe_of(family_of(tokenizer, _config(Path(path))))


def fitted(path: str | Path, recipe: Recipe, tokenizer: HFTokenizer) -> HFTokenizer:
    """Returns the tokenizer as a recipe wants it: a prompted model's renders as its family does."""
    if recipe.mode == "trained":
        return tokenizer
    return driven(tokenizer, family_of(tokenizer, _config(Path(path))))


def _config(folder: Path) -> dict[str, Any]:
    """The model's config; a folder of a tokenizer alone has none."""
    path = folder / "config.json"
    return read_json(path) if path.is_file() else {}
