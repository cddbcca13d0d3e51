"""Offline stand-ins with which people test their own chains, under the true constraint.

``scripted_llm`` gives a ``RecaLLM`` whose model is a script: what it would like to say. The
decoding constraint is the real one, so a quote that isn't in the documents can't be produced even
by a script that asks for it. ``random_llm`` says anything that is legal.
"""

from __future__ import annotations

from typing import Any

from recallm_core.generator import RecaLLM
from recallm_core.prompting.recipe import Recipe, trained_recipe
from recallm_core.testing.backends import (
    RandomBackend,
    Script,
    ScriptedBackend,
    ScriptedStream,
    random_walk,
)
from recallm_core.testing.tokenizer import (
    CLOSE,
    CONTROL,
    EOS,
    OPEN,
    THINK,
    THINK_END,
    TURN,
    ByteTokenizer,
)

__all__ = [
    "CLOSE",
    "CONTROL",
    "EOS",
    "OPEN",
    "THINK",
    "THINK_END",
    "TURN",
    "ByteTokenizer",
    "RandomBackend",
    "Script",
    "ScriptedBackend",
    "ScriptedStream",
    "random_llm",
    "random_walk",
    "scripted_llm",
]


def scripted_llm(
    script: Script = "", *, recipe: Recipe | None = None, **backend_options: Any
) -> RecaLLM:
    """Returns a ``RecaLLM`` that follows a script under the true constraint.

    Args:
        script: See ``ScriptedBackend``.
        recipe: How the model is driven; a trained one by default.
        backend_options: Further arguments of ``ScriptedBackend``.
    """
    return _llm(ScriptedBackend(script, **backend_options), recipe, "scripted")


def random_llm(seed: int = 0, *, recipe: Recipe | None = None, **backend_options: Any) -> RecaLLM:
    """Returns a ``RecaLLM`` that says anything that the true constraint lets through.

    Args:
        seed: See ``RandomBackend``.
        recipe: How the model is driven; a trained one by default.
        backend_options: Further arguments of ``RandomBackend``.
    """
    return _llm(RandomBackend(seed, **backend_options), recipe, "random")


def _llm(backend: ScriptedBackend | RandomBackend, recipe: Recipe | None, name: str) -> RecaLLM:
    recipe_in_use = recipe or trained_recipe(sampling={"temperature": 0.0})
    return RecaLLM(backend.tokenizer, backend, recipe_in_use, name=name)
