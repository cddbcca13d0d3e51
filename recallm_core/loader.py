"""From a model's name to a ready RecaLLM: checkpoint, tokenizer, recipe and backend."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from recallm_core.errors import CheckpointError, MissingExtraError
from recallm_core.generator import RecaLLM
from recallm_core.models import shipped
from recallm_core.models.recipes import choose_recipe
from recallm_core.recipe import Recipe
from recallm_core.tokenizer import HFTokenizer

MODES = ("auto", "trained", "prompted")

_SHARED: WeakValueDictionary[str, RecaLLM] = WeakValueDictionary()
_SHARING = threading.Lock()


def load_shared(model: str | os.PathLike[str] = "recallm-mini", **options: Any) -> RecaLLM:
    """Returns a loaded model; the same one for equal arguments while anyone holds it.

    Args:
        model: As in ``load``.
        options: As in ``load``.

    Raises:
        CheckpointError: The model can't be loaded.
    """
    key = f"{model}\0{sorted(options.items(), key=lambda item: item[0])!r}"
    with _SHARING:
        found = _SHARED.get(key)
        if found is None:
            found = load(model, **options)
            _SHARED[key] = found
        return found


def load(
    model: str | os.PathLike[str] = "recallm-mini",
    *,
    mode: str = "auto",
    recipe: Recipe | None = None,
    backend: str = "transformers",
    tokenizer: str | Path | None = None,
    **options: Any,
) -> RecaLLM:
    """Loads a model; see ``RecaLLM.load``.

    Args:
        model: ``recallm-mini``, a local folder, a hub id, or the address of a server that
            ``recallm serve`` started.
        mode: ``trained`` wants the four tokens in the tokenizer, ``prompted`` drives any instruct
            or reasoning model by text marks, ``auto`` looks.
        recipe: Overrides the one saved beside the checkpoint.
        backend: ``transformers``.
        tokenizer: A folder or hub id to take the tokenizer from instead.
        options: Passed to the backend's ``load`` (``device``, ``dtype``, ``quantization``,
            ``model_kwargs`` and so on), or for a server to ``models.served.connect`` (``api_key``,
            ``timeout``, ``max_retries``).

    Raises:
        CheckpointError: The model can't be loaded, or the mode doesn't suit it.
        ServerError: The server can't be reached, or isn't set up for recall.
        ValueError: An argument is of the wrong kind.
    """
    model = _name(model)
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, got {mode!r}")
    if recipe is not None and not isinstance(recipe, Recipe):
        raise ValueError(
            f"recipe must be a Recipe, got {type(recipe).__name__}; a recallm.json is read with "
            "Recipe.load(folder)"
        )
    if model.startswith(("http://", "https://")):
        from recallm_core.models.served import connect

        served = connect(model, mode=mode, recipe=recipe, tokenizer=tokenizer, **options)
        return RecaLLM(*served, name=served[1].model)
    if backend != "transformers":
        raise MissingExtraError(
            "vLLM models aren't part of this release; load a local folder or a hub id "
            "with the transformers backend"
        )
    from recallm_core.backends.checkpoint import find_folder
    from recallm_core.backends.transformers import load as load_backend

    hub = {k: options.pop(k) for k in ("revision", "local_files_only") if k in options}
    path = find_folder(shipped(model) or model, **hub)
    engine = load_backend(path, **options)
    found = HFTokenizer.from_folder(tokenizer or path, eos_ids=engine.eos_ids)
    if found.vocab_size > engine.vocab_size:
        engine.close()
        raise CheckpointError(
            f"the tokenizer has {found.vocab_size:,} ids but the model only {engine.vocab_size:,} "
            "logits; the folder mixes two models, or its embeddings were never resized"
        )
    chosen = recipe or choose_recipe(path, mode, found)
    return RecaLLM(found, engine, chosen, name=Path(model).name)


def _name(model: object) -> str:
    """The model's name or folder as text.

    Raises:
        ValueError: It is neither, or empty.
    """
    name = os.fspath(model) if isinstance(model, str | os.PathLike) else None
    if not isinstance(name, str) or not name.strip():
        raise ValueError(
            "model must be 'recallm-mini', a folder or a hub id such as 'Qwen/Qwen3-0.6B', "
            f"got {model!r}"
        )
    return name
