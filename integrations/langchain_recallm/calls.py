"""One call of a chat model: how it is read, the generations that it is made of, their events."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage

from langchain_recallm import conversation, tool_calls
from langchain_recallm.settings import ChatSettings, merged_stops
from langchain_recallm.sources import Sources
from recallm_core import GenerationParams
from recallm_core.adapting import PARAMS, core_names, settings_of

if TYPE_CHECKING:
    from recallm_core import Event, RecaLLM


_NO_EFFECT = frozenset(
    {"stream", "model", "strict"}
)  # asked of a call by frameworks; always strict


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


def read_call(
    model: ChatSettings,
    messages: list[BaseMessage],
    stop: list[str] | None,
    options: Mapping[str, Any],
) -> Call:
    """Returns a call of a model: its messages read, its settings over the model's.

    Raises:
        TypeError: A setting is unknown.
        ValueError: The messages or a setting can't be used.
    """
    renamed = core_names(options)
    _check(model, renamed)
    documents = renamed.pop("documents", None)
    version = str(renamed.pop("output_version", None) or model.output_version or "v1")
    timeout = renamed.pop("timeout", model.timeout)
    settings = settings_of(model, renamed)
    settings["stop"] = merged_stops(model.stop, stop, renamed.get("stop"))
    parts = parts_of(messages, documents, settings["scope"], tool_calls.to_core(renamed))
    settings["scope"] = "prompt" if parts[0].talk.flat else "documents"
    deadline = None if timeout is None else time.monotonic() + timeout
    return Call(model.llm, parts, GenerationParams(**settings), version, deadline)


def _check(chat: ChatSettings, options: Mapping[str, Any]) -> None:
    model = options.get("model")
    if model is not None and model != chat.model:
        raise ValueError(
            f"a call can't change the model from {chat.model!r} to {model!r}; make another "
            "ChatRecaLLM"
        )
    fine = {
        *PARAMS,
        *_NO_EFFECT,
        *tool_calls.OPTIONS,
        "documents",
        "output_version",
        "timeout",
    }
    unknown = sorted(set(options) - fine)
    if unknown:
        raise TypeError(f"unknown settings {unknown}; known: {sorted(PARAMS)}, documents")


def write_events(call: Call, write: Callable[[Event], Iterator[Any]]) -> Iterator[Any]:
    """Yields what a writer makes of a call's events; closing it stops the model."""
    with closing(call.events()) as events:
        for event in events:
            yield from write(event)


async def awrite_events(
    call: Call, write: Callable[[Event], Iterator[Any]]
) -> AsyncGenerator[Any, None]:
    """The same for asynchronous code."""
    async with aclosing(call.aevents()) as events:
        async for event in events:
            for chunk in write(event):
                yield chunk
