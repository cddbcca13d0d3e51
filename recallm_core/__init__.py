"""Cited answers whose every quote is copied verbatim from a named document."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from recallm_core._version import __version__ as __version__

_HOMES = {  # the public names and where each is defined; the imports below tell type checkers
    "Answer": "citations",
    "AnswerDelta": "trace",
    "AnswerStream": "answer_stream",
    "AnswerText": "trace",
    "CheckpointError": "errors",
    "Chunk": "documents",
    "Citation": "citations",
    "CitationError": "errors",
    "ConstraintError": "errors",
    "ContextOverflowError": "errors",
    "CorpusIndex": "retrieval",
    "CorpusIndexError": "errors",
    "Document": "documents",
    "DocumentError": "errors",
    "Embedder": "embedding",
    "Event": "answer_stream",
    "Finished": "answer_stream",
    "FunctionEmbedder": "embedding",
    "GenerationCancelledError": "errors",
    "GenerationError": "errors",
    "GenerationParams": "params",
    "Loaded": "loading",
    "Location": "documents",
    "MissingExtraError": "errors",
    "Pack": "packing",
    "Part": "citations",
    "Passage": "documents",
    "Prompt": "prompt",
    "Reasoning": "trace",
    "ReasoningDelta": "trace",
    "RecaLLM": "generator",
    "RecallDelta": "trace",
    "RecallEnded": "trace",
    "RecallIndex": "recall_index",
    "RecallLogitsProcessor": "backends.logits_processor",
    "RecallMatcher": "recall_index",
    "RecallSpan": "trace",
    "RecallStarted": "trace",
    "RecallmError": "errors",
    "Recipe": "recipe",
    "ScoredChunk": "documents",
    "ServerError": "errors",
    "Settings": "params",
    "TokenizerError": "errors",
    "ToolCall": "trace",
    "ToolCallDelta": "trace",
    "Trace": "trace",
    "Usage": "citations",
    "check_quotes": "checking",
    "load_documents": "loading",
    "pack": "packing",
}

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from recallm_core.answer_stream import (
        AnswerStream as AnswerStream,
        Event as Event,
        Finished as Finished,
    )
    from recallm_core.backends.logits_processor import (
        RecallLogitsProcessor as RecallLogitsProcessor,
    )
    from recallm_core.checking import (
        check_quotes as check_quotes,
    )
    from recallm_core.citations import (
        Answer as Answer,
        Citation as Citation,
        Part as Part,
        Usage as Usage,
    )
    from recallm_core.documents import (
        Chunk as Chunk,
        Document as Document,
        Location as Location,
        Passage as Passage,
        ScoredChunk as ScoredChunk,
    )
    from recallm_core.embedding import (
        Embedder as Embedder,
        FunctionEmbedder as FunctionEmbedder,
    )
    from recallm_core.errors import (
        CheckpointError as CheckpointError,
        CitationError as CitationError,
        ConstraintError as ConstraintError,
        ContextOverflowError as ContextOverflowError,
        CorpusIndexError as CorpusIndexError,
        DocumentError as DocumentError,
        GenerationCancelledError as GenerationCancelledError,
        GenerationError as GenerationError,
        MissingExtraError as MissingExtraError,
        RecallmError as RecallmError,
        ServerError as ServerError,
        TokenizerError as TokenizerError,
    )
    from recallm_core.generator import (
        RecaLLM as RecaLLM,
    )
    from recallm_core.loading import (
        Loaded as Loaded,
        load_documents as load_documents,
    )
    from recallm_core.packing import (
        Pack as Pack,
        pack as pack,
    )
    from recallm_core.params import (
        GenerationParams as GenerationParams,
        Settings as Settings,
    )
    from recallm_core.prompt import (
        Prompt as Prompt,
    )
    from recallm_core.recall_index import (
        RecallIndex as RecallIndex,
        RecallMatcher as RecallMatcher,
    )
    from recallm_core.recipe import (
        Recipe as Recipe,
    )
    from recallm_core.retrieval import (
        CorpusIndex as CorpusIndex,
    )
    from recallm_core.trace import (
        AnswerDelta as AnswerDelta,
        AnswerText as AnswerText,
        Reasoning as Reasoning,
        ReasoningDelta as ReasoningDelta,
        RecallDelta as RecallDelta,
        RecallEnded as RecallEnded,
        RecallSpan as RecallSpan,
        RecallStarted as RecallStarted,
        ToolCall as ToolCall,
        ToolCallDelta as ToolCallDelta,
        Trace as Trace,
    )


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used; importing the package loads nothing heavy."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'recallm_core' has no attribute {name!r}")
    return getattr(importlib.import_module(f"recallm_core.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
