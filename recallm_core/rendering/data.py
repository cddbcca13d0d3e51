"""An answer as plain data with stable keys."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from recallm_core.answers.answer import Answer, Citation
from recallm_core.answers.trace import AnswerText, Reasoning, RecallSpan, Segment
from recallm_core.documents.document import Document, Location
from recallm_core.rendering.links import quote_url
from recallm_core.rendering.visible import HOSTILE

SCHEMA = 1  # raised when a key changes its meaning or goes; new keys don't raise it


def to_dict(answer: Answer) -> dict[str, Any]:
    """Returns the answer as dictionaries, lists, strings and numbers.

    Offsets are code points, half-open; ``utf16_range`` and ``utf8_range`` give the same quote in
    other units. Sources are named, their texts left out.
    """
    return {
        "schema": SCHEMA,
        "question": answer.question,
        "model": answer.model,
        "text": answer.text,
        "abstained": answer.abstained,
        "support": answer.support,
        "finish_reason": answer.finish_reason,
        "citations": [_citation_entry(answer, n, c) for n, c in enumerate(answer.citations, 1)],
        "nearest": [_citation_entry(answer, n, c) for n, c in enumerate(answer.nearest, 1)],
        "tool_calls": [
            {"name": call.name, "arguments": _plain(call.arguments), "id": call.id}
            for call in answer.tool_calls
        ],
        "usage": {
            "prompt_tokens": answer.usage.prompt_tokens,
            "cached_tokens": answer.usage.cached_tokens,
            "reasoning_tokens": answer.usage.reasoning_tokens,
            "recall_tokens": answer.usage.recall_tokens,
            "answer_tokens": answer.usage.answer_tokens,
            "output_tokens": answer.usage.output_tokens,
        },
        "trace": [_segment(segment) for segment in answer.trace.segments],
        "sources": [
            {
                "document_id": key,
                "title": document.title,
                "source": document.source_map.origin if document.source_map else None,
                "characters": len(document.text),
            }
            for key, document in answer.sources.items()
        ],
    }


def answer_schema() -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of what ``to_dict`` returns."""
    text = files("recallm_core.rendering").joinpath("answer.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def to_json(value: Mapping[str, Any] | Sequence[Any], *, ascii_only: bool = False) -> str:
    """Returns one JSON value that is safe to show in a terminal.

    Characters that could act there are escaped, so a parser gets exactly the same text back.
    """
    text = json.dumps(value, ensure_ascii=ascii_only, indent=2)
    return HOSTILE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def _citation_entry(answer: Answer, number: int, citation: Citation) -> dict[str, Any]:
    return citation_data(number, citation, answer.sources.get(citation.document_id))


def citation_data(
    number: int, citation: Citation, document: Document | None = None
) -> dict[str, Any]:
    """Returns one citation as plain data; its document, where at hand, makes its link exact."""
    return {
        "number": number,
        "document_id": citation.document_id,
        "title": citation.title,
        "source": citation.source,
        "url": quote_url(citation, document),
        "lines": _pair(citation.lines),
        "page": citation.page,
        "place": citation.place,
        "start": citation.start,
        "end": citation.end,
        "text": citation.text,
        "basis": citation.basis,
        "answer_start": citation.answer_start,
        "answer_end": citation.answer_end,
        "ambiguous": citation.ambiguous,
        "occurrences": [_location(o) for o in citation.occurrences],
        "parts": [
            {"start": p.start, "end": p.end, "text": p.text, "member_id": p.member_id}
            for p in citation.parts
        ],
        "utf16_range": _pair(citation.utf16_range),
        "utf8_range": _pair(citation.utf8_range),
    }


def _location(location: Location) -> dict[str, Any]:
    return {
        "document_id": location.document_id,
        "start": location.start,
        "end": location.end,
    }


def _segment(segment: Segment) -> dict[str, Any]:
    match segment:
        case Reasoning(text):
            return {"type": "reasoning", "text": text}
        case AnswerText(text):
            return {"type": "answer", "text": text}
        case RecallSpan():
            return {
                "type": "recall",
                "section": segment.section,
                "document_id": segment.document_id,
                "start": segment.start,
                "end": segment.end,
                "text": segment.text,
                "tokens": segment.tokens,
                "occurrences": [_location(o) for o in segment.occurrences],
            }


def _pair(pair: tuple[int, int] | None) -> list[int] | None:
    return None if pair is None else list(pair)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
