"""Cited answers whose every quote is copied verbatim from a named document."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Answer": "citations",
    "AnswerDelta": "trace",
    "AnswerText": "trace",
    "Citation": "citations",
    "CorpusIndex": "retrieval",
    "Document": "documents",
    "Finished": "generator",
    "GenerationParams": "params",
    "Passage": "documents",
    "RecaLLM": "generator",
    "Reasoning": "trace",
    "ReasoningDelta": "trace",
    "RecallDelta": "trace",
    "RecallEnded": "trace",
    "RecallIndex": "recall_index",
    "RecallMatcher": "recall_index",
    "RecallSpan": "trace",
    "RecallStarted": "trace",
    "RecallmError": "errors",
    "Recipe": "recipe",
    "ToolCallDelta": "trace",
    "Trace": "trace",
    "Usage": "citations",
    "check_quotes": "checking",
    "load_documents": "loading",
}

__all__ = [
    "Answer",
    "AnswerDelta",
    "AnswerText",
    "Citation",
    "CorpusIndex",
    "Document",
    "Finished",
    "GenerationParams",
    "Passage",
    "Reasoning",
    "ReasoningDelta",
    "RecaLLM",
    "RecallDelta",
    "RecallEnded",
    "RecallIndex",
    "RecallMatcher",
    "RecallSpan",
    "RecallStarted",
    "RecallmError",
    "Recipe",
    "ToolCallDelta",
    "Trace",
    "Usage",
    "__version__",
    "check_quotes",
    "load_documents",
]

if TYPE_CHECKING:
    from recallm_core.answer_stream import Finished
    from recallm_core.checking import check_quotes
    from recallm_core.citations import Answer, Citation, Usage
    from recallm_core.documents import Document, Passage
    from recallm_core.errors import RecallmError
    from recallm_core.generator import RecaLLM
    from recallm_core.loading import load_documents
    from recallm_core.params import GenerationParams
    from recallm_core.recall_index import RecallIndex, RecallMatcher
    from recallm_core.recipe import Recipe
    from recallm_core.retrieval import CorpusIndex
    from recallm_core.trace import (
        AnswerDelta,
        AnswerText,
        Reasoning,
        ReasoningDelta,
        RecallDelta,
        RecallEnded,
        RecallSpan,
        RecallStarted,
        ToolCallDelta,
        Trace,
    )


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used; importing the package loads nothing heavy."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'recallm_core' has no attribute {name!r}")
    return getattr(importlib.import_module(f"recallm_core.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
