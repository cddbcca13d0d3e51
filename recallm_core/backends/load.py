"""From a model's name to the parts of a RecaLLM: checkpoint, tokenizer, recipe and backend."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from recallm_core.backends import Backend
from recallm_core.backends.vllm.base import RemoteBackend
from recallm_core.backends.vllm.handshake import check_processor
from recallm_core.backends.vllm.setup import check_installed
from recallm_core.errors import CheckpointError
from recallm_core.inputs.extras import needs
from recallm_core.models import shipped
from recallm_core.models.adapters import is_adapter
from recallm_core.models.gguf_files import gguf_file
from recallm_core.models.recipes import choose_recipe, fit_tokenizer
from recallm_core.prompting.recipe import Recipe
from recallm_core.tokenization.tokenizer import HFTokenizer, Tokenizer

if TYPE_CHECKING:
    from recallm_core.backends.local.transformers import TransformersBackend
    from recallm_core.backends.vllm.in_process import VllmBackend

MODES = ("auto", "trained", "prompted")
BACKENDS = ("auto", "transformers", "vllm", "llama_cpp")


class Parts(NamedTuple):
    """What a ``RecaLLM`` is made of, in the order of its constructor.

    Attributes:
        tokenizer: The model's tokenizer.
        backend: Runs the model.
        recipe: How the model is driven.
        name: Shown in answers.
    """

    tokenizer: Tokenizer
    backend: Backend
    recipe: Recipe
    name: str


def load(
    model: str | os.PathLike[str] = "recallm-mini",
    *,
    mode: str = "auto",
    recipe: Recipe | None = None,
    backend: str = "auto",
    tokenizer: str | Path | None = None,
    gguf: str | None = None,
    **options: Any,
) -> Parts:
    """Loads the parts of a model; see ``RecaLLM.load``.

    Args:
        model: ``recallm-mini``, a local folder, a hub id, a GGUF file, ``ollama:NAME``, or the
            address of a server that ``recallm serve`` started.
        mode: ``trained`` wants the four tokens in the tokenizer, ``prompted`` drives any instruct
            or reasoning model by text marks, ``auto`` looks.
        recipe: Overrides the one saved beside the checkpoint.
        backend: ``transformers``, ``vllm`` for vLLM's engine, or ``llama_cpp`` for a GGUF file;
            ``auto`` takes ``llama_cpp`` for those and ``transformers`` for all else.
        tokenizer: A folder or hub id to take the tokenizer from instead.
        gguf: Which GGUF file of a folder or hub id, as a pattern such as ``*Q4_K_M*``.
        options: Passed to the backend's ``load`` (``base``, ``device``, ``dtype``,
            ``quantization``, ``model_kwargs`` and so on), or for a server to
            ``models.served.connect`` (``api_key``, ``timeout``, ``max_retries``).

    Raises:
        CheckpointError: The model can't be loaded, or the mode doesn't suit it.
        MissingExtraError: vLLM, llama.cpp, or what a server needs, isn't installed.
        ServerError: The server can't be reached, or isn't set up for recall.
        ValueError: An argument is of the wrong kind.
    """
    model = _name(model)
    _check_choices(mode, backend, recipe)
    if model.startswith(("http://", "https://")):
        from recallm_core.backends.vllm.connect import connect

        served = connect(model, mode=mode, recipe=recipe, tokenizer=tokenizer, **options)
        return Parts(*served, name=served[1].model)
    hub = {k: options.pop(k) for k in ("revision", "local_files_only") if k in options}
    if shipped(model) is None and (file := gguf_file(model, gguf, **hub)) is not None:
        return _of_gguf(
            file,
            backend,
            Path(model).name,
            mode=mode,
            recipe=recipe,
            tokenizer=tokenizer,
            **options,
        )
    if backend == "llama_cpp" or gguf is not None:
        raise CheckpointError(
            f"{model!r} is no GGUF file; give one, a folder or hub id that holds some with "
            "gguf='*Q4_K_M*', or ollama:NAME"
        )
    if backend == "vllm":
        check_installed()
    path = _folder(model, **hub)
    if backend != "vllm":  # which has no adapters
        options["local_files_only"] = hub.get("local_files_only", False)
    engine = _engine(path, backend, tokenizer, options)
    try:
        described = _described(path, options.get("base"))
        model_tokenizer = _with_tokenizer(engine, tokenizer or described)
        recipe = recipe or choose_recipe(described, mode, model_tokenizer)
        model_tokenizer = fit_tokenizer(described, recipe, model_tokenizer)
    except BaseException:
        engine.close()
        raise
    return Parts(model_tokenizer, engine, recipe, Path(model).name)


def _folder(model: str, **hub: Any) -> Path:
    """The folder of a model that torch runs.

    Raises:
        MissingExtraError: torch or transformers isn't installed.
    """
    with needs("local", "a model in this process"):
        from recallm_core.models.checkpoint import find_folder
    return find_folder(shipped(model) or model, **hub)


def _described(path: Path, base: object) -> Path:
    """Where a model's tokenizer and recipe are: an adapter without its own uses its base's."""
    if not is_adapter(path) or (path / "tokenizer_config.json").is_file():
        return path
    from recallm_core.models.checkpoint import find_base

    return find_base(path, base, local_files_only=True)


def _check_choices(mode: str, backend: str, recipe: Recipe | None) -> None:
    """Refuses what isn't one of the choices.

    Raises:
        ValueError: One isn't.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, got {mode!r}")
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
    if recipe is not None and not isinstance(recipe, Recipe):
        raise ValueError(
            f"recipe must be a Recipe, got {type(recipe).__name__}; a recallm.json is read with "
            "Recipe.load(folder)"
        )


def _of_gguf(file: Path, backend: str, name: str, **options: Any) -> Parts:
    """The parts of a GGUF file, which llama.cpp runs.

    Raises:
        ValueError: Another backend is to run it.
    """
    if backend not in ("auto", "llama_cpp"):
        raise ValueError(
            f"backend={backend!r} can't run the GGUF file {file}; leave backend out, or give the "
            "model's safetensors folder"
        )
    from recallm_core.backends.load_gguf import load_gguf

    return Parts(*load_gguf(file, **options), name=name)


def _engine(
    path: Path, backend: str, tokenizer: str | Path | None, options: Mapping[str, Any]
) -> TransformersBackend | VllmBackend:
    """The model of a folder, ready to generate."""
    if backend == "vllm":
        from recallm_core.backends.vllm import in_process as vllm

        return vllm.load(path, tokenizer=tokenizer, **options)
    from recallm_core.backends.local import transformers

    return transformers.load(path, **options)


def _with_tokenizer(engine: TransformersBackend | VllmBackend, place: str | Path) -> HFTokenizer:
    """A model's tokenizer; vLLM's engine is then asked whether it obeys a constraint.

    Raises:
        CheckpointError: The tokenizer is another model's.
        GenerationError: The engine doesn't obey.
    """
    tokenizer = HFTokenizer.from_folder(place, eos_ids=engine.eos_ids)
    if tokenizer.vocab_size > engine.vocab_size:
        raise CheckpointError(
            f"the tokenizer has {tokenizer.vocab_size:,} ids but the model only "
            f"{engine.vocab_size:,} logits; the folder mixes two models, or its embeddings were "
            "never resized"
        )
    if isinstance(engine, RemoteBackend):
        check_processor(engine, tokenizer)
    return tokenizer


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
