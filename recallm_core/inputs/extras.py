"""Packages that only some uses need: which extra brings them, and the error that names it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from recallm_core.errors import MissingExtraError

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "local": ("torch", "transformers", "tokenizers", "safetensors", "llguidance"),
    "server": ("httpx2", "transformers", "tokenizers", "safetensors", "llguidance"),
    "index": ("faiss", "tokenizers", "safetensors"),
    "vllm": ("vllm", "torch", "transformers", "tokenizers", "safetensors", "llguidance"),
    "mcp": ("mcp", "uvicorn", "anyio", "pydantic"),
    "files": ("openpyxl", "striprtf"),
    "ui": ("starlette", "uvicorn"),
    "llama-cpp": ("llama_cpp", "faiss", "tokenizers", "safetensors", "llguidance"),
    "grpo": (
        "trl",
        "peft",
        "datasets",
        "accelerate",
        "matplotlib",
        "torch",
        "transformers",
        "tokenizers",
        "safetensors",
    ),
    "train": ("accelerate", "matplotlib", "torch", "transformers", "tokenizers", "safetensors"),
    "eval": ("matplotlib", "torch", "transformers", "tokenizers", "safetensors"),
}
"""By extra: the modules that are imported with its help."""


def install(extra: str) -> str:
    """Returns the command that brings an extra.

    Args:
        extra: One of ``EXTRAS``.
    """
    return f"pip install 'recallm-core[{extra}]'"


@contextmanager
def needs(extra: str, purpose: str) -> Iterator[None]:
    """Imports inside it may fail for want of an extra, and then say so.

    Args:
        extra: Brings what is imported inside.
        purpose: What it is for, as the beginning of a sentence.

    Raises:
        MissingExtraError: A module of the extra isn't installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in EXTRAS[extra]:
            raise
        raise MissingExtraError(
            f"{purpose} needs {error.name}, which isn't installed: {install(extra)}"
        ) from error
