"""Runs GGUF files by llama.cpp in this process: batched, streamed, cancellable, prefix-cached."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recallm_core.backends.local.engine import Engine
from recallm_core.backends.local.engine_backend import EngineBackend
from recallm_core.backends.local.llama_cpp_library import KV_TYPES, Model
from recallm_core.backends.local.llama_cpp_runner import LlamaRunner
from recallm_core.backends.local.prefix_cache import PrefixCache
from recallm_core.errors import CheckpointError
from recallm_core.inputs.arguments import shown, whole_number
from recallm_core.inputs.gguf_header import read_header
from recallm_core.inputs.memory import memory_bytes
from recallm_core.tokenization.gguf_vocabulary import NORMAL

DRAFT_TOKENS = 16
_MOST_BATCH = 64
_MOST_THREADS = 8  # more seldom pay for one model
_PREFILL_CHUNK = 512


class LlamaCppBackend(EngineBackend):
    """A GGUF model behind one worker thread; safe to call from many threads.

    Args:
        path: The file; of a split model its first.
        window: The context length, in tokens; None: as many as the model's makers say.
        max_batch: Sequences generated at once; further requests wait.
        max_kv_bytes: Bytes of keys and values that running sequences may take together; None: a
            quarter of the machine's memory. They are taken as they are needed.
        prefix_cache_bytes: Bytes kept of prompts that were read, for later ones that begin alike;
            0 turns it off, None: half of what running sequences may take.
        prefill_chunk: Prompt tokens read at once, at most; pieces take about a second.
        draft_tokens: Tokens proposed at once inside a copy; 0 turns drafting off.
        threads: Threads of a pass; None: ``OMP_NUM_THREADS``, or half of the processors that this
            process may use, eight at most. More than there are free cores makes passes slower.
        kv_type: What keys and values are kept in: ``f16``, ``q8_0`` (half the memory, nearly the
            same words) or ``f32``.
        gpu_layers: Layers that an accelerator takes, where llama.cpp was built for one.

    Raises:
        CheckpointError: The file is damaged, or of a kind that can't be run.
        MissingExtraError: llama.cpp isn't installed.
        ValueError: A setting is out of range.
    """

    def __init__(
        self,
        path: Path,
        *,
        window: int | None = None,
        max_batch: int = 8,
        max_kv_bytes: int | None = None,
        prefix_cache_bytes: int | None = None,
        prefill_chunk: int = _PREFILL_CHUNK,
        draft_tokens: int = DRAFT_TOKENS,
        threads: int | None = None,
        kv_type: str = "f16",
        gpu_layers: int = -1,
    ) -> None:
        window = None if window is None else whole_number("window", window, 2, 1 << 24)
        max_batch = whole_number("max_batch", max_batch, 1, _MOST_BATCH)
        prefill_chunk = whole_number("prefill_chunk", prefill_chunk, 1, 1 << 13)
        draft_tokens = whole_number("draft_tokens", draft_tokens, 0, 256)
        gpu_layers = whole_number("gpu_layers", gpu_layers, -1, 1 << 14)
        threads = _threads() if threads is None else whole_number("threads", threads, 1, 512)
        _check_kv_type(kv_type)
        kv_bytes = _bytes("max_kv_bytes", max_kv_bytes, memory_bytes() // 4)
        cache_bytes = _bytes("prefix_cache_bytes", prefix_cache_bytes, kv_bytes // 2)
        self.header, self.model = read_header(path), Model(path, gpu_layers=gpu_layers)
        self.window: int = window or self.model.context_length
        self.vocab_size: int = self.model.vocab_size
        try:
            self._check_tokens()
            runner = self._runner(
                kv_bytes + cache_bytes,
                rows=max_batch,
                step_tokens=draft_tokens + 1,
                prefill_chunk=prefill_chunk,
                threads=threads,
                kv_type=kv_type,
                kept_bytes=cache_bytes,
            )
        except BaseException:
            self.model.close()
            raise
        self.batched: bool = runner.can_rollback
        engine = Engine(
            runner,
            PrefixCache(0),  # the runner has its own
            max_batch=max_batch,
            max_bytes=kv_bytes,
            prefill_chunk=prefill_chunk,
            draft_tokens=draft_tokens,
        )
        self._run(engine)

    def _runner(self, most_bytes: int, **settings: Any) -> LlamaRunner:
        def most_cells(token_bytes: int) -> int:
            """The running sequences, one of them whole at least, and the newest beginning."""
            return self.window + most_bytes // max(token_bytes, 1)

        return LlamaRunner(self.model, most_cells=most_cells, **settings)

    def _check_tokens(self) -> None:
        tokens = len(self.header.texts("tokenizer.ggml.tokens"))
        if tokens != self.vocab_size:
            raise CheckpointError(
                f"{self.header.path} lists {tokens:,} tokens, but llama.cpp counts "
                f"{self.vocab_size:,}; download it again"
            )

    @property
    def control_ids(self) -> list[int]:
        """Ids that text can't produce, as llama.cpp has them."""
        return self.model.controls()

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end an output, but for those that llama.cpp only takes for such by spelling."""
        kinds = self.header.numbers("tokenizer.ggml.token_type")
        plain = kinds == NORMAL if len(kinds) else []
        return tuple(i for i in self.model.ends() if not (len(plain) and plain[i]))


def _check_kv_type(kv_type: str) -> None:
    if kv_type not in KV_TYPES:
        raise ValueError(f"kv_type must be one of {sorted(KV_TYPES)}, got {shown(kv_type)}")


def _bytes(name: str, value: int | None, usual: int) -> int:
    return usual if value is None else whole_number(name, value)


def _threads() -> int:
    """Threads that are likely to have a core of their own on a machine that does other work too."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and int(threads) > 0:
        return int(threads)
    usable = getattr(os, "sched_getaffinity", None)
    processors = len(usable(0)) if usable else os.cpu_count() or 1
    return max(1, min(processors // 2, _MOST_THREADS))


def load(path: Path, **settings: Any) -> LlamaCppBackend:
    """Loads a GGUF file; its header is checked before llama.cpp sees it.

    Args:
        path: The file.
        settings: Arguments of ``LlamaCppBackend``.

    Raises:
        CheckpointError: The file is missing, damaged or of an unknown kind.
        MissingExtraError: llama.cpp isn't installed.
        TypeError: A setting isn't known.
    """
    _check_settings(settings)
    return LlamaCppBackend(path, **settings)


def _check_settings(settings: Mapping[str, Any]) -> None:
    known = inspect.signature(LlamaCppBackend).parameters.keys() - {"path"}
    unknown = sorted(settings.keys() - known)
    if unknown:
        raise TypeError(
            f"unknown options {unknown} for a GGUF file; known: {sorted(known)}. device and dtype "
            "are what the file and the build of llama.cpp say"
        )
