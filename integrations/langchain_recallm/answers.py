"""A core answer as LangChain content: reasoning, text with citations, metadata, usage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata

from langchain_recallm import tool_calls
from langchain_recallm.sources import Place, Sources, members_of, url_of
from recallm_core import Answer, Citation, Location, RecallSpan, Usage
from recallm_core.adapting import stable_id

PROVIDER = "recallm"

Block: TypeAlias = dict[str, Any]


def to_message(answer: Answer, sources: Sources, *, model: str, version: str) -> AIMessage:
    """Returns an answer as a message, in content blocks (``v1``) or as plain text (``v0``)."""
    blocks = to_blocks(answer, sources)
    fields: dict[str, Any] = {
        "tool_calls": tool_calls.calls_of(answer),
        "invalid_tool_calls": tool_calls.invalid_of(answer),
        "usage_metadata": usage_of(answer.usage),
        "response_metadata": {
            **stamp(version),
            **closing_metadata(answer, sources, model=model),
        },
    }
    if version == "v1":
        return AIMessage(content=blocks, **fields)  # type: ignore[arg-type]
    return AIMessage(content=answer.text, additional_kwargs=v0_kwargs(blocks), **fields)


def to_blocks(answer: Answer, sources: Sources) -> list[Block]:
    """Returns the content blocks of an answer: reasoning, text, tool calls, where there are any.

    An answer without tool calls has a text block, be it empty.
    """
    blocks: list[Block] = []
    trace = answer.trace
    if trace.reasoning:
        thinking = [span for span in trace.spans if span.section != "answer"]
        recalls = [recall for span in thinking for recall in span_blocks(span, sources)]
        extras = {"extras": {"recalls": recalls}} if recalls else {}
        blocks.append({"type": "reasoning", "reasoning": trace.reasoning, "index": 0, **extras})
    text: Block = {"type": "text", "text": answer.text, "index": len(blocks)}
    annotations = answer_annotations(answer, sources)
    if annotations:
        text["annotations"] = annotations
    calls = [dict(call) for call in tool_calls.calls_of(answer)]
    return [*blocks, *([text] if answer.text or annotations or not calls else []), *calls]


def span_blocks(span: RecallSpan, sources: Sources) -> list[Block]:
    """Returns a span of the thinking: where it stands there, and where it comes from."""
    out = []
    for place in sources.places_to_cite(span.document_id, span.start, span.end):
        start, text = span.offset + place.offset, sources.text(place)
        quoted = {"start_index": start, "end_index": start + len(text), "cited_text": text}
        out.append({**quoted, **_range(place)})
    return out


def answer_annotations(answer: Answer, sources: Sources) -> list[Block]:
    """Returns all citations of an answer as standard annotations of its text."""
    return [
        annotation
        for citation in answer.citations
        for annotation in _annotations(citation, sources, len(answer.text))
    ]


def _annotations(citation: Citation, sources: Sources, size: int) -> list[Block]:
    """One citation; a quote over two messages gives one for each."""
    whole = citation.answer_start is None or citation.answer_end is None
    start, end = (0, size) if whole else (citation.answer_start, citation.answer_end)
    out = []
    for place in sources.places_to_cite(citation.document_id, citation.start, citation.end):
        metadata = sources.documents[place.index].metadata
        block: Block = {
            "type": "citation",
            "id": _citation_id(place, start, end),
            "start_index": start,
            "end_index": end,
            "cited_text": sources.text(place),
            "extras": {
                **_range(place),
                "level": "answer" if whole else "span",
                "basis": citation.basis,
                **_details(citation, place, sources),
            },
        }
        title, url = citation.title or metadata.get("title"), url_of(metadata)
        block.update({k: v for k, v in (("title", title), ("url", url)) if isinstance(v, str)})
        out.append(block)
    return out


def _range(place: Place) -> Block:
    return {
        "document_index": place.index,
        "document_id": place.document_id,
        "start_char_index": place.start,
        "end_char_index": place.end,
    }


def _details(citation: Citation, place: Place, sources: Sources) -> Block:
    """What more is known: other occurrences, the chunks it was merged from, file, page, lines."""
    out: Block = {}
    places = sources.same_text(place, citation.occurrences)
    if len(places) > 1:
        out["occurrences"] = [_range(other) for other in places]
    document = sources.documents[place.index]
    parts = _parts(place, members_of(document))
    if parts:
        out["parts"] = parts
    for key in ("source", "page"):
        value = document.metadata.get(key, getattr(citation, key))
        if isinstance(value, str | int):
            out[key] = value
    if citation.lines is not None:
        out["lines"] = list(citation.lines)
    return out


def _parts(place: Place, members: Sequence[Any]) -> list[Block]:
    """The quote divided over the retrieved chunks that a packed document was merged from."""
    out = []
    for member in members:
        start, end = max(place.start, member["start"]), min(place.end, member["end"])
        if start < end:
            part = {
                "member_id": member.get("id"),
                "start_char_index": start - member["start"],
                "end_char_index": end - member["start"],
            }
            out.append(part)
    return out


def _citation_id(place: Place, start: int | None, end: int | None) -> str:
    return stable_id("cite", place.document_id, place.start, place.end, start, end, size=6)


def stamp(version: str) -> dict[str, Any]:
    """Returns the metadata that every chunk carries."""
    marked = {"output_version": "v1"} if version == "v1" else {}
    return {"model_provider": PROVIDER, **marked}


def closing_metadata(answer: Answer, sources: Sources, *, model: str) -> dict[str, Any]:
    """Returns the metadata that is known at the end.

    An abstention has ``abstained``, the phrase as its text and no citations; ``nearest`` then holds
    the evidence that came nearest, if there is any.
    """
    nearest = _nearest(answer, sources)
    return {
        "model_name": model,
        "finish_reason": answer.finish_reason,
        "abstained": answer.abstained,
        **({"nearest": nearest} if nearest else {}),
        "documents": sources.ids,
    }


def _nearest(answer: Answer, sources: Sources) -> list[Block]:
    """What an abstention came nearest to, which is no citation of it."""
    return [
        {"cited_text": sources.text(place), **_range(place), "basis": citation.basis}
        for citation in answer.nearest
        for place in sources.places_to_cite(citation.document_id, citation.start, citation.end)
    ]


def ranges_of(locations: Iterable[Location], sources: Sources) -> list[Block]:
    """Returns ranges of the core's documents as ranges of the call's."""
    places = (sources.places(at.document_id, at.start, at.end) for at in locations)
    return [_range(place) for listed in places for place in listed]


def usage_of(usage: Usage) -> UsageMetadata:
    """Returns the tokens spent; quoting counts apart from reasoning."""
    details = OutputTokenDetails(reasoning=usage.reasoning_tokens)
    details["recall"] = usage.recall_tokens  # type: ignore[typeddict-unknown-key]
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.prompt_tokens + usage.output_tokens,
        input_token_details=InputTokenDetails(cache_read=usage.cached_tokens),
        output_token_details=details,
    )


def v0_kwargs(blocks: Sequence[Block]) -> dict[str, Any]:
    """Returns what plain text can't hold, for ``additional_kwargs``."""
    out: dict[str, Any] = {}
    for block in blocks:
        if block["type"] == "reasoning":
            if block["reasoning"]:
                out["reasoning_content"] = block["reasoning"]
            if block.get("extras"):
                out["recalls"] = block["extras"]["recalls"]
        elif block["type"] == "text" and block.get("annotations"):
            out["citations"] = block["annotations"]
    return out


def v0_blocks(message: AIMessage) -> list[Any]:
    """Returns the standard blocks of a ``v0`` message or chunk; the inverse of ``v0_kwargs``."""
    extra = message.additional_kwargs
    if not isinstance(message.content, str):
        raise NotImplementedError  # core then passes known blocks through
    blocks: list[Block] = []
    if extra.get("reasoning_content") or extra.get("recalls"):
        block: Block = {"type": "reasoning", "reasoning": extra.get("reasoning_content", "")}
        if extra.get("recalls"):
            block["extras"] = {"recalls": extra["recalls"]}
        blocks.append({**block, "index": 0})
    calls = _call_blocks(message)
    if message.content or extra.get("citations") or not (blocks or calls):
        text: Block = {"type": "text", "text": message.content, "index": len(blocks)}
        if extra.get("citations"):
            text["annotations"] = extra["citations"]
        blocks.append(text)
    return [*blocks, *calls]


def _call_blocks(message: AIMessage) -> list[Block]:
    if isinstance(message, AIMessageChunk) and message.chunk_position != "last":
        return [{**chunk, "type": "tool_call_chunk"} for chunk in message.tool_call_chunks]
    return [dict(call) for call in message.tool_calls]
