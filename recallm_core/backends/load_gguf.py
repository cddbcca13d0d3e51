"""From a GGUF file to the parts of a RecaLLM: tokenizer, backend and recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recallm_core.backends.local import llama_cpp
from recallm_core.backends.local.llama_cpp import LlamaCppBackend
from recallm_core.errors import TokenizerError
from recallm_core.inputs.memory import give_back
from recallm_core.models.recipes import fit_tokenizer_to, recipe_for
from recallm_core.prompting.recipe import Recipe
from recallm_core.tokenization.gguf_vocabulary import CONTROL, tokenizer_of
from recallm_core.tokenization.tokenizer import HFTokenizer


def load_gguf(
    path: Path,
    *,
    mode: str = "auto",
    recipe: Recipe | None = None,
    tokenizer: str | Path | None = None,
    **options: Any,
) -> tuple[HFTokenizer, LlamaCppBackend, Recipe]:
    """Loads a GGUF file; its tokenizer must spell every token as llama.cpp does.

    Args:
        path: The file.
        mode: ``auto``, ``trained`` or ``prompted``.
        recipe: Overrides the one that fits the file.
        tokenizer: A folder or hub id to take the tokenizer from instead of the file.
        options: Arguments of ``LlamaCppBackend``.

    Raises:
        CheckpointError: The file can't be used, or the mode doesn't suit it.
        MissingExtraError: llama.cpp isn't installed.
        TokenizerError: The tokenizer is of an unknown kind, or another model's.
    """
    backend = llama_cpp.load(path, **options)
    try:
        model_tokenizer = _tokenizer(backend, tokenizer)
        _check_pieces(backend, model_tokenizer)
        backend.header = backend.header.without_texts()
        give_back()
        config = backend.header.config
        recipe = recipe or recipe_for(model_tokenizer, config, mode, path)
        return fit_tokenizer_to(config, recipe, model_tokenizer), backend, recipe
    except BaseException:
        backend.close()
        raise


def _tokenizer(backend: LlamaCppBackend, place: str | Path | None) -> HFTokenizer:
    if place is not None:
        return HFTokenizer.from_folder(place, eos_ids=backend.eos_ids)
    return tokenizer_of(
        backend.header,
        controls=backend.control_ids,
        ends=backend.eos_ids,
        begins=backend.model.begins,
    )


def _check_pieces(backend: LlamaCppBackend, tokenizer: HFTokenizer) -> None:
    """Refuses a tokenizer that spells a token in another way than llama.cpp does.

    Raises:
        TokenizerError: One differs, or is text in one and a control token in the file.
    """
    unspelled = tokenizer.control_ids.union(backend.control_ids)
    kinds = backend.header.numbers("tokenizer.ggml.token_type")
    for token, piece in enumerate(backend.model.pieces()):
        spelled = tokenizer.token_bytes(token)
        marked = len(kinds) > token and kinds[token] == CONTROL
        if (marked and spelled is not None) or (token not in unspelled and spelled != piece):
            raise TokenizerError(
                f"token {token:,} is {piece!r} for llama.cpp and {spelled!r} for the tokenizer"
                f"{'' if not marked else ', where the file has a control token'}; give the model's "
                "own with tokenizer=FOLDER"
            )
