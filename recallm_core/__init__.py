"""Cited answers whose every quote is copied verbatim from a named document."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from recallm_core._version import __version__ as __version__

_HOMES = {  # the public names and where each is defined; the imports below tell type checkers
    "Answer": "answers.answer",
    "AnswerDelta": "answers.trace",
    "AnswerStream": "answering.stream",
    "AnswerText": "answers.trace",
    "CheckpointError": "errors",
    "Chunk": "documents.document",
    "Citation": "answers.answer",
    "CitationError": "errors",
    "ConstraintError": "errors",
    "ContextOverflowError": "errors",
    "CorpusIndex": "retrieval",
    "CorpusIndexError": "errors",
    "Document": "documents.document",
    "DocumentError": "errors",
    "Embedder": "retrieval.embedding",
    "Event": "answering.stream",
    "Finished": "answering.stream",
    "FunctionEmbedder": "retrieval.embedding",
    "GenerationCancelledError": "errors",
    "GenerationError": "errors",
    "GenerationParams": "prompting.params",
    "Loaded": "documents.loading",
    "Location": "documents.document",
    "MessageError": "errors",
    "MissingExtraError": "errors",
    "Pack": "packing",
    "Part": "answers.answer",
    "Passage": "documents.document",
    "PointedPrompt": "pointing",
    "PointedReader": "pointing",
    "Prompt": "prompting.prompt",
    "Reasoning": "answers.trace",
    "ReasoningDelta": "answers.trace",
    "RecaLLM": "generator",
    "RecallDelta": "answers.trace",
    "RecallEnded": "answers.trace",
    "RecallIndex": "decoding.recall_index",
    "RecallLogitsProcessor": "backends.local.logits_processor",
    "RecallMatcher": "decoding.recall_matcher",
    "RecallSpan": "answers.trace",
    "RecallStarted": "answers.trace",
    "RecallmError": "errors",
    "Recipe": "prompting.recipe",
    "ReplyError": "errors",
    "ResolvedParams": "prompting.params",
    "SchemaLimits": "pointing",
    "ScoredChunk": "documents.document",
    "ServerError": "errors",
    "Settings": "prompting.params",
    "TokenizerError": "errors",
    "ToolCall": "answers.trace",
    "ToolCallDelta": "answers.trace",
    "Trace": "answers.trace",
    "Usage": "answers.answer",
    "check_quotes": "checking",
    "load_documents": "documents.loading",
    "pack": "packing",
    "requote": "checking",
}

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from recallm_core.answering.stream import (
        AnswerStream as AnswerStream,
        Event as Event,
        Finished as Finished,
    )
    from recallm_core.backends.local.logits_processor import (
        RecallLogitsProcessor as RecallLogitsProcessor,
    )
    from recallm_core.checking import (
        check_quotes as check_quotes,
        requote as requote,
    )
    from recallm_core.answers.answer import (
        Answer as Answer,
        Citation as Citation,
        Part as Part,
        Usage as Usage,
    )
    from recallm_core.documents.document import (
        Chunk as Chunk,
        Document as Document,
        Location as Location,
        Passage as Passage,
        ScoredChunk as ScoredChunk,
    )
    from recallm_core.retrieval.embedding import (
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
        MessageError as MessageError,
        MissingExtraError as MissingExtraError,
        RecallmError as RecallmError,
        ReplyError as ReplyError,
        ServerError as ServerError,
        TokenizerError as TokenizerError,
    )
    from recallm_core.generator import (
        RecaLLM as RecaLLM,
    )
    from recallm_core.documents.loading import (
        Loaded as Loaded,
        load_documents as load_documents,
    )
    from recallm_core.packing import (
        Pack as Pack,
        pack as pack,
    )
    from recallm_core.pointing import (
        PointedPrompt as PointedPrompt,
        PointedReader as PointedReader,
        SchemaLimits as SchemaLimits,
    )
    from recallm_core.prompting.params import (
        GenerationParams as GenerationParams,
        ResolvedParams as ResolvedParams,
        Settings as Settings,
    )
    from recallm_core.prompting.prompt import (
        Prompt as Prompt,
    )
    from recallm_core.decoding.recall_index import (
        RecallIndex as RecallIndex,
    )
    from recallm_core.decoding.recall_matcher import (
        RecallMatcher as RecallMatcher,
    )
    from recallm_core.prompting.recipe import (
        Recipe as Recipe,
    )
    from recallm_core.retrieval import (
        CorpusIndex as CorpusIndex,
    )
    from recallm_core.answers.trace import (
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
    from recallm_core.inputs.extras import needs

    with needs("local", name):
        return getattr(importlib.import_module(f"recallm_core.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
