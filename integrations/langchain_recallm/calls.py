"""One call of a chat model: the generations that it is made of, and their events."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage

from langchain_recallm import conversation
from langchain_recallm.sources import Sources
from recallm_core.prompting.params import GenerationParams

if TYPE_CHECKING:
    from recallm_core.answering.stream import Event
    from recallm_core.generator import RecaLLM


@dataclass(frozen=True, slots=True)
class Part:
    """What one generation of a call is asked for."""

    talk: conversation.Conversation
    output: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One call: what goes to the core, and what is needed to read its answer.

    Tools and a schema never hold in one generation. So if both are given, there are two parts: the
    second follows where the first calls no tool.
    """

    llm: RecaLLM
    parts: tuple[Part, ...]
    params: GenerationParams
    version: str
    deadline: float | None

    @property
    def sources(self) -> Sources:
        """The call's documents."""
        return self.parts[0].talk.sources

    def events(self) -> Generator[Event, None, None]:
        """The events of the generation that answers; closing this stops the model."""
        for part in self.parts[:-1]:
            events = list(self._part(part))
            if _calls_tools(events):
                yield from events
                return
        yield from self._part(self.parts[-1])

    def _part(self, part: Part) -> Generator[Event, None, None]:
        talk = part.talk
        with self.llm.stream_chat(
            talk.turns, talk.documents, params=self.params, **part.output
        ) as stream:
            for event in stream:
                self._check_time()
                yield event

    async def aevents(self) -> AsyncGenerator[Event, None]:
        """The same for asynchronous code."""
        for part in self.parts[:-1]:
            async with aclosing(self._apart(part)) as first:
                collected = [event async for event in first]
            if _calls_tools(collected):
                for event in collected:
                    yield event
                return
        async with aclosing(self._apart(self.parts[-1])) as events:
            async for event in events:
                yield event

    async def _apart(self, part: Part) -> AsyncGenerator[Event, None]:
        talk = part.talk
        async with aclosing(
            self.llm.astream_chat(talk.turns, talk.documents, params=self.params, **part.output)
        ) as events:
            async for event in events:
                self._check_time()
                yield event

    def _check_time(self) -> None:
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise TimeoutError(
                "the model took longer than the timeout; raise it or lower max_tokens"
            )


def _calls_tools(events: Sequence[Event]) -> bool:
    answer = getattr(events[-1], "answer", None) if events else None
    return bool(answer is not None and (answer.tool_calls or answer.cut_call is not None))


def parts_of(
    messages: Sequence[BaseMessage], documents: Any, scope: str | None, output: dict[str, Any]
) -> tuple[Part, ...]:
    """Returns what is generated: once; or with tools and, if none is called, with the schema."""
    schema = {k: output[k] for k in ("response_schema",) if k in output}
    tools = {k: v for k, v in output.items() if k not in schema}
    plain = conversation.read(messages, documents, scope=scope)
    if not tools:
        return (Part(plain, schema),)
    with_tools = conversation.read(messages, documents, scope=scope, with_tools=True)
    first = Part(with_tools, tools)
    if not schema:
        return (first,)
    return first, Part(replace(plain, sources=with_tools.sources), schema)
