"""Core events to LangChain chunks, and to the events of its version 3 streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk

from langchain_recallm import answers
from langchain_recallm.answers import Block
from langchain_recallm.sources import Sources
from recallm_core.generator import Event, Finished
from recallm_core.trace import (
    AnswerDelta,
    ReasoningDelta,
    RecallDelta,
    RecallEnded,
    RecallStarted,
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

    def pieces(self, event: Event) -> Iterator[Block]:
        """Yields what an event adds."""
        match event:
            case ReasoningDelta(text):
                yield self._piece("reasoning", reasoning=text)
            case AnswerDelta(text):
                yield self._piece("text", text=text)
            case RecallStarted(section):
                self._thinking = section == "thinking"
            case RecallDelta(text):
                key = "reasoning" if self._thinking else "text"
                yield self._piece(key, **{key: text})
            case RecallEnded(span) if span is not None and self._thinking:
                recalls = answers.recalled(span, self._sources)
                yield self._piece("reasoning", reasoning="", extras={"recalls": recalls})
            case Finished(answer):
                yield from self._last(answer)

    def _last(self, answer: Any) -> Iterator[Block]:
        found = answers.cited(answer, self._sources)
        if found:
            yield self._piece("text", text="", annotations=found)
        elif "text" not in self._indices:
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
            yield self._chunk([piece])
        if isinstance(event, Finished):
            answer = event.answer
            metadata = answers.closing_metadata(answer, self._sources, model=self._model)
            yield self._chunk(
                [],
                metadata,
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
            kept = answers.v0_kwargs(blocks)
            message = AIMessageChunk(
                content=text, additional_kwargs=kept, response_metadata=stamped, **more
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
        self._open: Block | None = None

    def start(self) -> Iterator[Any]:
        """Yields the beginning of the message; the empty id keeps the run's own."""
        metadata = {"provider": answers.PROVIDER, "model": self._model}
        yield {"event": "message-start", "role": "ai", "id": "", "metadata": metadata}

    def events(self, event: Event) -> Iterator[Any]:
        """Yields the protocol events of one event."""
        for piece in self._writer.pieces(event):
            yield from self._write(piece)
        if isinstance(event, Finished):
            yield from self._finish_block()
            answer = event.answer
            metadata = answers.closing_metadata(answer, self._sources, model=self._model)
            usage = answers.usage_of(answer.usage)
            yield {"event": "message-finish", "usage": usage, "metadata": metadata}

    def _write(self, piece: Block) -> Iterator[Any]:
        kind, index = piece["type"], piece["index"]
        if self._open is not None and self._open["index"] != index:
            yield from self._finish_block()
        if self._open is None:
            self._open = {"type": kind, kind: "", "index": index}
            started = {"type": kind, kind: ""}
            yield {"event": "content-block-start", "index": index, "content": started}
        if piece[kind]:
            self._open[kind] += piece[kind]
            delta = {"type": f"{kind}-delta", kind: piece[kind]}
            yield {"event": "content-block-delta", "index": index, "delta": delta}
        if "annotations" in piece:
            self._open["annotations"] = piece["annotations"]
            yield self._fields(index, kind, annotations=piece["annotations"])
        if "extras" in piece:
            recalls = [
                *self._open.get("extras", {}).get("recalls", ()),
                *piece["extras"]["recalls"],
            ]
            self._open["extras"] = {"recalls": recalls}
            yield self._fields(index, kind, extras=self._open["extras"])

    @staticmethod
    def _fields(index: int, kind: str, **fields: Any) -> Any:
        delta = {"type": "block-delta", "fields": {"type": kind, **fields}}
        return {"event": "content-block-delta", "index": index, "delta": delta}

    def _finish_block(self) -> Iterator[Any]:
        if self._open is not None:
            block, self._open = self._open, None
            yield {"event": "content-block-finish", "index": block["index"], "content": block}
