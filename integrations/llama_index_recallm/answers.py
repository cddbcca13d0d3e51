"""What the core answers, as LlamaIndex messages, completions, stream pieces and events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CitationBlock,
    CompletionResponse,
    ContentBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.bridge.pydantic import ValidationError
from llama_index.core.program.utils import process_streaming_objects
from llama_index.core.types import Model
from llama_index_instrumentation import get_dispatcher

from llama_index_recallm import messages as talk
from llama_index_recallm.events import RecallSpanEvent
from recallm_core import (
    AnswerDelta,
    ReasoningDelta,
    RecallDelta,
    RecallEnded,
    RecallStarted,
)
from recallm_core.errors import GenerationError

if TYPE_CHECKING:
    from recallm_core import Answer, Event

dispatcher = get_dispatcher(__name__)

RAW = "recallm"
"""Key of ``ChatResponse.raw`` under which the whole answer stands as plain data."""


def to_response(
    answer: Answer,
    conversation: talk.Conversation,
    *,
    thinking: bool,
    citations: bool,
    delta: str | None = None,
) -> ChatResponse:
    """Returns an answer as a response.

    Args:
        answer: The answer.
        conversation: What was asked; says where quotes come from.
        thinking: Whether to show the thinking.
        citations: Whether to append citation blocks.
        delta: For the last piece of a stream.
    """
    blocks: list[ContentBlock] = []
    if thinking and answer.trace.reasoning:
        blocks.append(_thinking_block(answer, conversation))
    blocks.append(TextBlock(text=answer.text))
    if citations:
        blocks.extend(_citation_blocks(answer, conversation))
    blocks.extend(
        ToolCallBlock(tool_call_id=call.id, tool_name=call.name, tool_kwargs=dict(call.arguments))
        for call in answer.tool_calls
    )
    message = ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks)
    return ChatResponse(message=message, raw=_raw(answer), delta=delta)


def parse_answer(output_cls: type[Model], response: ChatResponse) -> Model:
    """Returns the object that an answer under a schema is.

    Raises:
        GenerationError: The answer was cut off, or breaks a rule that the schema can't say.
    """
    raw = response.raw if isinstance(response.raw, dict) else {}
    try:
        return output_cls.model_validate_json(response.message.content or "")
    except ValidationError as error:
        cut = raw.get("finish_reason") == "length"
        why = "was cut off; raise max_tokens" if cut else f"doesn't validate ({error})"
        raise GenerationError(f"the answer for {output_cls.__name__} {why}") from error


def partly_parsed(output_cls: type[Model], chunk: ChatResponse, last: Any) -> Any:
    """Returns what a piece of a streamed answer under a schema holds so far.

    The last piece gives the object; one before it an instance of the class, or of LlamaIndex's
    flexible one, whose fields may still be None. ``last`` is what the piece before gave.

    Raises:
        GenerationError: The answer was cut off, or breaks a rule that the schema can't say.
    """
    if chunk.raw is not None:
        return parse_answer(output_cls, chunk)
    return process_streaming_objects(chunk, output_cls, None if last is None else [last])


@dataclass(slots=True)
class Writer:
    """What has been streamed so far."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    thinking: bool = True

    def add(self, event: Event) -> tuple[str, str] | None:
        """Takes an event; returns what it adds to the answer and to the thinking."""
        match event:
            case ReasoningDelta(text):
                return self._add("", text)
            case AnswerDelta(text):
                return self._add(text, "")
            case RecallStarted(section):
                self.thinking = section != "answer"
            case RecallDelta(text):
                return self._add("", text) if self.thinking else self._add(text, "")
        return None

    def _add(self, text: str, reasoning: str) -> tuple[str, str]:
        if text:
            self.text.append(text)
        if reasoning:
            self.reasoning.append(reasoning)
        return text, reasoning

    def chunk(self, text: str, reasoning: str, *, thinking: bool) -> ChatResponse:
        """Returns one piece of a stream, with all that came before in its message."""
        blocks: list[ContentBlock] = []
        if thinking and self.reasoning:
            blocks.append(ThinkingBlock(content="".join(self.reasoning)))
        blocks.append(TextBlock(text="".join(self.text)))
        extra = {"thinking_delta": reasoning} if thinking and reasoning else {}
        return ChatResponse(
            message=ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks),
            delta=text,
            additional_kwargs=extra,
        )


def announce(event: Event, conversation: talk.Conversation) -> None:
    """Tells handlers of a quote that is complete."""
    if isinstance(event, RecallEnded) and event.span is not None:
        span = event.span
        for place in conversation.places(span.document_id, span.start, span.end):
            at = place.location
            dispatcher.event(
                RecallSpanEvent(
                    text=span.text[place.offset : place.offset + place.size],
                    source=place.source,
                    start_char_idx=at["start_char_idx"],
                    end_char_idx=at["end_char_idx"],
                    section=span.section,
                )
            )


def _thinking_block(answer: Answer, conversation: talk.Conversation) -> ThinkingBlock:
    """The thinking, with the quotes made in it."""
    recalls = [
        {
            "text": span.text[place.offset : place.offset + place.size],
            "offset": span.offset + place.offset,
            "source": place.source,
            **place.location,
        }
        for span in answer.trace.spans
        if span.section != "answer"
        for place in conversation.places(span.document_id, span.start, span.end)
    ]
    return ThinkingBlock(
        content=answer.trace.reasoning,
        num_tokens=answer.usage.reasoning_tokens + answer.usage.recall_tokens,
        additional_information={"recalls": recalls} if recalls else {},
    )


def _citation_blocks(answer: Answer, conversation: talk.Conversation) -> Iterator[CitationBlock]:
    """One block per citation; a quote over two messages gives one for each.

    What a block can't hold (its location is made of whole numbers), the basis, is in ``raw``.
    """
    for citation in answer.citations:
        answered = {"answer_start": citation.answer_start, "answer_end": citation.answer_end}
        extra = {key: value for key, value in answered.items() if value is not None}
        for place in conversation.places(citation.document_id, citation.start, citation.end):
            text = citation.text[place.offset : place.offset + place.size]
            yield CitationBlock(
                cited_content=TextBlock(text=text),
                source=place.source,
                title=place.title,
                additional_location_info={**place.location, **extra},
            )


def _raw(answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "model": answer.model,
        "finish_reason": answer.finish_reason,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.prompt_tokens + usage.output_tokens,
        },
        RAW: answer.to_dict(),
    }


def completion(answer: Answer) -> CompletionResponse:
    """Returns an answer as a completion."""
    return CompletionResponse(text=answer.text, raw=_raw(answer))


def to_completion(chunk: ChatResponse) -> CompletionResponse:
    """Returns a piece of a chat as a piece of a completion."""
    return CompletionResponse(
        text=chunk.message.content or "",
        delta=chunk.delta,
        raw=chunk.raw,
        additional_kwargs=dict(chunk.additional_kwargs),
    )
