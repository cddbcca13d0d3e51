"""Runs any causal language model of transformers: batched, streamed, cancellable, prefix-cached."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from recallm_core.backends.local.engine import Engine
from recallm_core.backends.local.engine_backend import EngineBackend
from recallm_core.backends.local.prefix_cache import PrefixCache
from recallm_core.backends.local.runner import choose_runner
from recallm_core.errors import CheckpointError
from recallm_core.inputs.arguments import shown, whole_number
from recallm_core.inputs.kernels import bound_kernels
from recallm_core.inputs.memory import memory_bytes
from recallm_core.models import SHIPPED, shipped
from recallm_core.models.adapters import Adapter, is_adapter, read_adapter
from recallm_core.models.checkpoint import (
    choose_device,
    context_length_of,
    find_base,
    find_folder,
    load_model,
)

DRAFT_TOKENS = 16


class TransformersBackend(EngineBackend):
    """A model of transformers behind one worker thread; safe to call from many threads.

    Args:
        model: A causal language model in evaluation mode; from now on only this object calls it.
        window: Its context length: tokens that it can attend to; None: from its config.
        max_batch: Sequences generated at once; further requests wait.
        max_kv_bytes: Bytes of keys and values that running sequences may take together; None: half
            of the accelerator's free memory, or a quarter of the machine's.
        prefix_cache_bytes: Bytes kept of prompts that were read, for later ones that begin alike;
            0 turns it off, None: half of what running sequences may take.
        prefill_chunk: Prompt tokens read at once; None: 512 on a CPU, 2048 elsewhere.
        draft_tokens: Tokens proposed at once inside a copy; 0 turns drafting off.
        batches: Whether it is known that reading several sequences at once doesn't change the
            model; otherwise that is tried.

    Raises:
        CheckpointError: The config names no context length and none was given.
    """

    def __init__(
        self,
        model: Any,
        *,
        window: int | None = None,
        max_batch: int = 8,
        max_kv_bytes: int | None = None,
        prefix_cache_bytes: int | None = None,
        prefill_chunk: int | None = None,
        draft_tokens: int = DRAFT_TOKENS,
        batches: bool = False,
    ) -> None:
        if window is not None:
            window = whole_number("window", window, 2, 1 << 40)
        max_batch = whole_number("max_batch", max_batch, 1)
        draft_tokens = whole_number("draft_tokens", draft_tokens)
        for name, low, value in (
            ("prefill_chunk", 1, prefill_chunk),
            ("max_kv_bytes", 0, max_kv_bytes),
            ("prefix_cache_bytes", 0, prefix_cache_bytes),
        ):
            if value is not None:
                whole_number(name, value, low)
        context_length = window or context_length_of(model.config)
        if context_length is None:
            raise CheckpointError(
                f"the config of {type(model).__name__} names no max_position_embeddings; "
                "say how many tokens the model can attend to with window=..."
            )
        self.window: int = context_length
        self.model = model
        device: torch.device = model.get_input_embeddings().weight.device
        bound_kernels()
        with torch.inference_mode():
            runner, self.vocab_size = choose_runner(model, context_length, batches=batches)
        self.batched: bool = runner.can_rollback
        kv_bytes = _free_bytes(device) if max_kv_bytes is None else max_kv_bytes
        cache_bytes = kv_bytes // 2 if prefix_cache_bytes is None else prefix_cache_bytes
        self.prefix_cache = PrefixCache(cache_bytes if runner.can_rollback else 0)
        engine = Engine(
            runner,
            self.prefix_cache,
            max_batch=max_batch,
            max_bytes=kv_bytes,
            prefill_chunk=prefill_chunk or (512 if device.type == "cpu" else 2048),
            draft_tokens=draft_tokens,
        )
        self._run(engine)

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end an output, as the checkpoint's generation config names them."""
        named = self.model.generation_config.eos_token_id
        listed = named if isinstance(named, list | tuple) else [named]
        return tuple(i for i in listed if type(i) is int and i >= 0)

    def close(self) -> None:
        """Ends all streams and frees the caches; safe to call twice."""
        super().close()
        self.prefix_cache.clear()


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) // 2
    return memory_bytes() // 4


_DTYPES = ("auto", "float32", "bfloat16", "float16")


def load(
    path_or_id: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    revision: str | None = None,
    local_files_only: bool = False,
    quantization: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    attention: Literal["sdpa", "eager"] | None = None,
    **settings: Any,
) -> TransformersBackend:
    """Loads a model folder or hub id; no code of the checkpoint runs, and no pickle is read.

    Args:
        path_or_id: A local folder, or a hub id, of a model or of an adapter (LoRA).
        base: The folder or hub id of the model that an adapter goes on; None: the one that it
            names.
        device: ``auto`` takes the fastest there is.
        dtype: ``auto`` is the checkpoint's own type; on a CPU float32, where it fits.
        revision: A branch, tag or commit of a hub id.
        local_files_only: Never ask the hub.
        quantization: A quantisation config of transformers, passed through.
        model_kwargs: Further arguments of ``from_pretrained``, such as ``device_map``.
        attention: The attention kernel; None: transformers' choice.
        settings: Arguments of ``TransformersBackend``.

    Raises:
        CheckpointError: The model is missing, incomplete, unsafe or of an unknown kind.
        ValueError: A device, type or argument can't be used.
    """
    if not isinstance(dtype, torch.dtype):
        if dtype not in _DTYPES:
            raise ValueError(f"dtype must be a torch.dtype or one of {_DTYPES}, got {dtype!r}")
        dtype = dtype if dtype == "auto" else getattr(torch, dtype)
    _check_settings(settings)
    if model_kwargs is not None and not isinstance(model_kwargs, Mapping):
        raise ValueError(f"model_kwargs must be a mapping, got {shown(model_kwargs)}")
    kwargs = dict(model_kwargs or {})
    if quantization is not None:
        kwargs["quantization_config"] = quantization
    if attention is not None:
        kwargs["attn_implementation"] = attention
    for name in ("trust_remote_code", "use_safetensors", "config"):
        if name in kwargs:
            raise ValueError(f"{name} can't be set: models load safely or not at all")
    folder: Path = find_folder(path_or_id, revision=revision, local_files_only=local_files_only)
    adapter, folder = _apart(folder, base, local_files_only)
    model = load_model(
        folder,
        device=choose_device(device),
        dtype=dtype,
        model_kwargs=kwargs,
        adapter=adapter,
    )
    if _known_to_batch(model, folder) and not kwargs:
        settings = {"batches": True, **settings}
    return TransformersBackend(model, **settings)


def _apart(folder: Path, base: object, local: bool) -> tuple[Adapter | None, Path]:
    """An adapter and the folder of its base; a whole model has no adapter."""
    if is_adapter(folder):
        return read_adapter(folder), find_base(folder, base, local_files_only=local)
    if base is not None:
        raise ValueError(
            f"base goes with an adapter, and {folder} holds a whole model; leave it out"
        )
    return None, folder


def _known_to_batch(model: Any, folder: Path) -> bool:
    """Whether it is a shipped model as a test has tried it, so that nobody else has to."""
    as_tried = model.dtype == torch.float32 and model.device.type == "cpu"
    return as_tried and folder in map(shipped, SHIPPED)


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Refuses a misspelt argument before any weight is read.

    Raises:
        TypeError: An argument isn't known.
    """
    names = inspect.signature(TransformersBackend).parameters.keys() - {"model"}
    unknown = sorted(settings.keys() - names)
    if unknown:
        named = ("attention", "base", "device", "dtype", "local_files_only", "model_kwargs")
        known = sorted({*names, *named, "quantization", "revision"})
        raise TypeError(
            f"unknown options {unknown}; known: {known}. What transformers' from_pretrained takes "
            "goes into model_kwargs={...}; code of a checkpoint is never run"
        )
