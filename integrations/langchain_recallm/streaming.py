"""Core events to LangChain chunks, and to the events of its version 3 streams."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk

from langchain_recallm import answers, tool_calls
from langchain_recallm.answers import Block
from langchain_recallm.sources import Sources
from recallm_core import (
    Answer,
    AnswerDelta,
    Event,
    Finished,
    ReasoningDelta,
    RecallDelta,
    RecallEnded,
    RecallStarted,
    ToolCallDelta,
)


class BlockWriter:
    """Turns events into pieces of content blocks; merged, they are ``answers.to_blocks``.

    Args:
        sources: The call's documents.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._indices: dict[str, int] = {}
        self._thinking = True

    @property
    def next_index(self) -> int:
        """The index that a further block gets."""
        return len(self._indices)

    def pieces(self, event: Event) -> Iterator[Block]:
        """Yields what an event adds."""
        match event:
            case ReasoningDelta(text):
                yield self._piece("reasoning", reasoning=text)
            case AnswerDelta(text):
                yield self._piece("text", text=text)
            case RecallStarted(section):
                self._thinking = section != "answer"
            case RecallDelta(text):
                key = "reasoning" if self._thinking else "text"
                yield self._piece(key, **{key: text})
            case RecallEnded(span) if span is not None and self._thinking:
                recalls = answers.span_blocks(span, self._sources)
                yield self._piece("reasoning", reasoning="", extras={"recalls": recalls})
            case ToolCallDelta(number, name, arguments, call_id):
                index = self._indices.setdefault(f"call {number}", len(self._indices))
                call = {"name": name, "args": arguments, "id": call_id, "index": index}
                yield {"type": "tool_call_chunk", **call}
            case Finished(answer):
                yield from self._last(answer)

    def _last(self, answer: Any) -> Iterator[Block]:
        annotations = answers.answer_annotations(answer, self._sources)
        if annotations:
            yield self._piece("text", text="", annotations=annotations)
        elif "text" not in self._indices and not answer.tool_calls:
            yield self._piece("text", text="")

    def _piece(self, kind: str, **fields: Any) -> Block:
        index = self._indices.setdefault(kind, len(self._indices))
        return {"type": kind, **fields, "index": index}


class ChunkWriter:
    """Turns events into message chunks."""

    def __init__(self, sources: Sources, *, model: str, version: str) -> None:
        self._writer = BlockWriter(sources)
        self._sources, self._model, self._version = sources, model, version

    def chunks(self, event: Event) -> Iterator[ChatGenerationChunk]:
        """Yields the chunks of an event; the last one carries usage and metadata."""
        for piece in self._writer.pieces(event):
            calls = [piece] if piece["type"] == "tool_call_chunk" else []
            yield self._chunk([piece], tool_call_chunks=calls)
        if isinstance(event, Finished):
            answer = event.answer
            metadata = answers.closing_metadata(answer, self._sources, model=self._model)
            cut = tool_calls.cut_chunk(answer)
            yield self._chunk(
                [],
                metadata,
                tool_call_chunks=[] if cut is None else [cut],
                usage_metadata=answers.usage_of(answer.usage),
                chunk_position="last",
            )

    def _chunk(
        self, blocks: list[Block], metadata: dict[str, Any] | None = None, **more: Any
    ) -> ChatGenerationChunk:
        stamped = {**answers.stamp(self._version), **(metadata or {})}
        if self._version == "v1":
            message = AIMessageChunk(content=blocks, response_metadata=stamped, **more)  # type: ignore[arg-type]
        else:
            text = "".join(block.get("text", "") for block in blocks)
            extra = answers.v0_kwargs(blocks)
            message = AIMessageChunk(
                content=text, additional_kwargs=extra, response_metadata=stamped, **more
            )
        return ChatGenerationChunk(message=message)


class EventWriter:
    """Turns events into those of ``stream_events(version="v3")``.

    Written natively: the bridge of langchain-core keeps one annotation of a block and merges extras
    shallowly.
    """

    def __init__(self, sources: Sources, *, model: str) -> None:
        self._writer = BlockWriter(sources)
        self._sources, self._model = sources, model
        self._open: dict[int, Block] = {}

    def start(self) -> Iterator[Any]:
        """Yields the beginning of the message; the empty id keeps the run's own."""
        metadata = {"provider": answers.PROVIDER, "model": self._model}
        yield {"event": "message-start", "role": "ai", "id": "", "metadata": metadata}

    def events(self, event: Event) -> Iterator[Any]:
        """Yields the protocol events of one event."""
        for piece in self._writer.pieces(event):
            yield from self._write(piece)
        if isinstance(event, Finished):
            yield from self._finish(*sorted(self._open))
            answer = event.answer
            yield from self._cut_off(answer)
            metadata = answers.closing_metadata(answer, self._sources, model=self._model)
            usage = answers.usage_of(answer.usage)
            yield {"event": "message-finish", "usage": usage, "metadata": metadata}

    def _write(self, piece: Block) -> Iterator[Any]:
        kind, index = piece["type"], piece["index"]
        if kind == "tool_call_chunk":
            yield from self._call(piece)
            return
        if index not in self._open:
            if kind == "text":
                yield from self._finish(*self._open)  # the reasoning is over
            self._open[index] = {"type": kind, kind: "", "index": index}
            started = {"type": kind, kind: ""}
            yield {"event": "content-block-start", "index": index, "content": started}
        block = self._open[index]
        if piece[kind]:
            block[kind] += piece[kind]
            yield _delta(index, {"type": f"{kind}-delta", kind: piece[kind]})
        if "annotations" in piece:
            block["annotations"] = piece["annotations"]
            yield _fields(index, kind, annotations=piece["annotations"])
        if "extras" in piece:
            before = block.get("extras", {}).get("recalls", ())
            block["extras"] = {"recalls": [*before, *piece["extras"]["recalls"]]}
            yield _fields(index, kind, extras=block["extras"])

    def _call(self, piece: Block) -> Iterator[Any]:
        """A tool call, which is complete when it comes."""
        index, arguments = piece["index"], piece["args"]
        if index and self._open.keys() == {0} and self._open[0]["type"] == "reasoning":
            yield from self._finish(0)
        started = {**piece, "args": ""}
        yield {"event": "content-block-start", "index": index, "content": started}
        yield _delta(index, {"type": "tool-call-delta", "args": arguments})
        named = {"name": piece["name"], "args": json.loads(arguments), "id": piece["id"]}
        call = {"type": "tool_call", **named}
        yield {"event": "content-block-finish", "index": index, "content": call}

    def _cut_off(self, answer: Answer) -> Iterator[Any]:
        """The call that the output was cut off in."""
        for call in tool_calls.invalid_of(answer):
            index = self._writer.next_index
            block = {k: v for k, v in call.items() if v is not None}
            yield {"event": "content-block-start", "index": index, "content": block}
            yield {"event": "content-block-finish", "index": index, "content": block}

    def _finish(self, *indices: int) -> Iterator[Any]:
        for index in indices:
            block = self._open.pop(index)
            yield {"event": "content-block-finish", "index": index, "content": block}


def _delta(index: int, delta: Block) -> Any:
    return {"event": "content-block-delta", "index": index, "delta": delta}


def _fields(index: int, kind: str, **fields: Any) -> Any:
    return _delta(index, {"type": "block-delta", "fields": {"type": kind, **fields}})
