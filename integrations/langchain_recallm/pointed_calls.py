"""One call of a model that points at sentences: what it is sent, and what its reply becomes."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
)
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.runnables import (
    Runnable,
    RunnableBinding,
    RunnableConfig,
    RunnableLambda,
    RunnableSequence,
)

import recallm_core as recallm
from langchain_recallm import conversation
from langchain_recallm.answers import ranges_of
from langchain_recallm.blocks import content_of
from langchain_recallm.documents import documents_to_text
from langchain_recallm.sources import Sources
from recallm_core.adapting import Count

_MESSAGES = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}
_CUT = frozenset(("length", "max_tokens", "max_output_tokens", "model_length"))
_ENDINGS = ("finish_reason", "stop_reason", "done_reason")
# The inner call is part of ours: told of twice, its tokens would count twice and its JSON be shown.
_UNTOLD = RunnableConfig(callbacks=[])


@dataclass(frozen=True, slots=True)
class Room:
    """How much a model may be sent.

    Attributes:
        max_input_tokens: Tokens of a prompt; None: nobody says, and nothing is cut.
        count: Tokens of a text.
        token_budget: How much of an index is packed; None: as much as fits, or as
            ``CorpusIndex.pack`` has it.
    """

    max_input_tokens: int | None
    count: Count
    token_budget: int | None


def build_prompt(
    messages: Sequence[BaseMessage], documents: Any, room: Room
) -> tuple[recallm.PointedPrompt, Sources]:
    """Returns the prompt of a call, and its documents as the caller knows them.

    Without any document the user's messages are numbered, as ``message:0`` and so on; words that
    rest on none of them are an answer then. Where the prompt has a limit it is kept, and
    ``left_out`` of the prompt says what of the documents the model isn't shown.
    """
    talk = conversation.read(messages, documents)
    turns = talk.turns
    if talk.flat:
        users = [str(turn["content"]) for turn in turns if turn["role"] == "user"]
        texts = [recallm.Document(text, f"message:{n}") for n, text in enumerate(users)]
        return _prompt(turns, texts, room, owes_evidence=False), talk.sources
    if hasattr(talk.documents, "pack"):
        return _of_index(turns, talk.documents, room), talk.sources
    return _prompt(turns, talk.documents or (), room, owes_evidence=True), talk.sources


def _prompt(
    turns: Sequence[Any], documents: Any, room: Room, *, owes_evidence: bool
) -> recallm.PointedPrompt:
    if room.max_input_tokens is None:
        return recallm.PointedPrompt.of(turns, documents, owes_evidence=owes_evidence)
    return recallm.PointedPrompt.within(
        room.max_input_tokens, turns, documents, count=room.count, owes_evidence=owes_evidence
    )


def _of_index(turns: Sequence[Any], index: Any, room: Room) -> recallm.PointedPrompt:
    fits = room.max_input_tokens is not None and isinstance(index, recallm.CorpusIndex)
    if fits and room.token_budget is None:
        return _prompt(turns, index, room, owes_evidence=True)
    question = next((str(t["content"]) for t in reversed(turns) if t["role"] == "user"), "")
    passages = index.pack(question, room.token_budget)
    return recallm.PointedPrompt(turns, passages, index.documents)


@dataclass(frozen=True, slots=True)
class PointedCall:
    """One call.

    Attributes:
        model: The model that is asked.
        prompt: What it is asked.
        sources: The call's documents.
        limits: What its schemas may hold.
        outside: What becomes of a reply that isn't of the schema.
        structured: Options of ``with_structured_output``.
        settings: Settings of the call that are the model's own.
        name: The model's.
        tools: What ``bind_tools`` is given, where tools are offered.
        messages: The messages as they came.
    """

    model: BaseChatModel
    prompt: recallm.PointedPrompt
    sources: Sources
    limits: recallm.SchemaLimits
    outside: Any
    structured: Mapping[str, Any]
    settings: Mapping[str, Any]
    name: str
    tools: Mapping[str, Any]
    messages: Sequence[BaseMessage]

    def events(self, listener: Listener, *, streaming: bool) -> Generator[Any, None, None]:
        """The core's events of the answer; closing this stops the model."""
        if self.tools:
            model, settings = self._calling()
            calling = model.invoke(self._readable_messages(), _UNTOLD, **settings)
            if calling.tool_calls:
                yield from listener.calls(calling)
                return
        if not self.prompt.sentences:
            yield from listener.nothing()
            return
        model, settings = self._asking(listener)
        if streaming:
            for chunk in model.stream(self._turns(), _UNTOLD, **settings):
                yield from listener.take(chunk)
        else:
            yield from listener.take(model.invoke(self._turns(), _UNTOLD, **settings))
        yield from listener.finish()

    async def aevents(self, listener: Listener, *, streaming: bool) -> AsyncGenerator[Any, None]:
        """The same for asynchronous code."""
        async with aclosing(self._replies(listener, streaming=streaming)) as replies:
            async for reply in replies:
                for event in reply:
                    yield event

    async def _replies(
        self, listener: Listener, *, streaming: bool
    ) -> AsyncGenerator[Iterator[Any], None]:
        if self.tools:
            model, settings = self._calling()
            calling = await model.ainvoke(self._readable_messages(), _UNTOLD, **settings)
            if calling.tool_calls:
                yield listener.calls(calling)
                return
        if not self.prompt.sentences:
            yield listener.nothing()
            return
        model, settings = self._asking(listener)
        if streaming:
            async for chunk in model.astream(self._turns(), _UNTOLD, **settings):
                yield listener.take(chunk)
        else:
            yield listener.take(await model.ainvoke(self._turns(), _UNTOLD, **settings))
        yield listener.finish()

    def _turns(self) -> list[BaseMessage]:
        return [_MESSAGES[turn["role"]](turn["content"]) for turn in self.prompt.turns]

    def _readable_messages(self) -> list[BaseMessage]:
        return [_readable(message) for message in self.messages]

    def _calling(self) -> tuple[Runnable[Any, Any], dict[str, Any]]:
        return _unbind(self.model.bind_tools(**self.tools), self.settings)

    def _asking(self, listener: Listener) -> tuple[Runnable[Any, Any], dict[str, Any]]:
        """The model and its settings for the schema, without what would parse its reply.

        A model that takes no schema is told the form in words alone, as every model is.
        """
        schema = self.prompt.schema(self.limits)
        try:
            bound = self.model.with_structured_output(schema, **self.structured)
        except NotImplementedError:
            return self.model, dict(self.settings)
        asking = getattr(bound, "first", None)
        if not isinstance(asking, Runnable):
            whole = self.model.with_structured_output(schema, include_raw=True, **self.structured)
            return RunnableSequence(whole, RunnableLambda(_raw)), dict(self.settings)
        model, settings = _unbind(asking, self.settings)
        listener.by_tool = bool(settings.get("tools"))
        return model, settings


def _unbind(
    runnable: Runnable[Any, Any], settings: Mapping[str, Any]
) -> tuple[Runnable[Any, Any], dict[str, Any]]:
    """What a binding binds, with its settings: a binding would tell the caller's callbacks."""
    joint = dict(settings)
    while isinstance(runnable, RunnableBinding):
        joint = {**runnable.kwargs, **joint}
        runnable = runnable.bound
    return runnable, joint


def _raw(result: Any) -> Any:
    return result["raw"]


class Listener:
    """Turns the messages of a model that points into events of the core.

    Attributes:
        by_tool: Whether the reply comes as the arguments of a tool call.
        usage: What the model says that it spent.
        metadata: What else it says.
    """

    def __init__(self, call: PointedCall) -> None:
        self.by_tool = False
        self.usage: UsageMetadata | None = None
        self.metadata: dict[str, Any] = {}
        self._call = call
        self._reader = call.prompt.reader(outside=call.outside)
        self._thoughts: list[str] = []
        self._aside: list[str] = []  # words beside a tool call, or a refusal
        self._replied = False
        self._shown = 0

    def joint(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Returns our metadata over the model's own, which knows its name best.

        ``left_out`` has the ranges of documents that didn't fit, if any.
        """
        name = self.metadata.get("model_name")
        named = {"model_name": name} if isinstance(name, str) and name else {}
        ranges = ranges_of(self._call.prompt.left_out, self._call.sources)
        left_out = {"left_out": ranges} if ranges else {}
        return {**self.metadata, **metadata, **named, **left_out}

    def take(self, message: BaseMessage) -> Iterator[Any]:
        """Yields what a message, or a piece of one, adds."""
        if not isinstance(message, AIMessage):
            raise TypeError(f"the model must return messages, got {type(message).__name__}")
        self._note(message)
        thought = _reasoning_text(message)
        if thought:
            self._thoughts.append(thought)
            yield recallm.ReasoningDelta(thought)
        text = _arguments(message) if self.by_tool else str(message.text)
        self._aside += [str(message.text)] if self.by_tool else [_refusal(message)]
        yield from self._feed(text)

    def finish(self) -> Iterator[Any]:
        """Yields the rest, as the model has nothing more to say.

        Raises:
            ReplyError: The reply isn't what was asked for.
        """
        if not self._replied:
            yield from self._feed("".join(self._aside))
        answer = self._reader.finish(
            usage=_usage(self.usage),
            finish_reason=_ending(self.metadata),
            model=self._call.name,
            reasoning="".join(self._thoughts),
        )
        yield from self._last(answer)

    def nothing(self) -> Iterator[Any]:
        """Yields the abstention of documents without a sentence."""
        yield from self._last(self._call.prompt.nothing(model=self._call.name))

    def calls(self, message: AIMessage) -> Iterator[Any]:
        """Yields the tool calls of a message."""
        self._note(message)
        text = str(message.text)
        if text:
            yield recallm.AnswerDelta(text)
        for number, call in enumerate(message.tool_calls):
            arguments = json.dumps(call["args"], ensure_ascii=False)
            yield recallm.ToolCallDelta(number, call["name"], arguments, call["id"])
        calls = (recallm.ToolCall(c["name"], c["args"], c["id"]) for c in message.tool_calls)
        trace = recallm.Trace((recallm.AnswerText(text),) if text else ())
        yield recallm.Finished(
            recallm.Answer(
                text=text,
                citations=(),
                abstained=False,
                trace=trace,
                usage=_usage(self.usage),
                finish_reason="tool_calls",
                tool_calls=tuple(calls),
                model=self._call.name,
            )
        )

    def _feed(self, text: str) -> Iterator[Any]:
        self._replied = self._replied or bool(text)
        shown = self._reader.feed(text)
        self._shown += len(shown)
        if shown:
            yield recallm.AnswerDelta(shown)

    def _last(self, answer: recallm.Answer) -> Iterator[Any]:
        if answer.text[self._shown :]:
            yield recallm.AnswerDelta(answer.text[self._shown :])
        yield recallm.Finished(answer)

    def _note(self, message: AIMessage) -> None:
        if message.usage_metadata is not None:
            self.usage = add_usage(self.usage, message.usage_metadata)
        self.metadata |= message.response_metadata


def _arguments(message: AIMessage) -> str:
    """The arguments of a message's tool call, or the piece of them that a chunk has."""
    if isinstance(message, AIMessageChunk):
        return "".join(chunk["args"] or "" for chunk in message.tool_call_chunks)
    if message.tool_calls:
        return json.dumps(message.tool_calls[0]["args"], ensure_ascii=False)
    return "".join(call["args"] or "" for call in message.invalid_tool_calls)


def _refusal(message: AIMessage) -> str:
    refusal = message.additional_kwargs.get("refusal")
    return refusal if isinstance(refusal, str) else ""


def _reasoning_text(message: AIMessage) -> str:
    if isinstance(message.content, str) and not message.additional_kwargs:
        return ""
    blocks = [block for block in message.content_blocks if block["type"] == "reasoning"]
    return "".join(str(block.get("reasoning", "")) for block in blocks)


def _ending(metadata: Mapping[str, Any]) -> str:
    reasons = [str(metadata.get(key) or "").casefold() for key in _ENDINGS]
    return "length" if _CUT.intersection(reasons) else "stop"


def _usage(usage: UsageMetadata | None) -> recallm.Usage:
    """The model's count as the core counts."""
    if usage is None:
        return recallm.Usage()
    reasoning = usage.get("output_token_details", {}).get("reasoning") or 0
    return recallm.Usage(
        prompt_tokens=usage["input_tokens"],
        cached_tokens=usage.get("input_token_details", {}).get("cache_read") or 0,
        reasoning_tokens=reasoning,
        answer_tokens=max(usage["output_tokens"] - reasoning, 0),
    )


def _readable(message: BaseMessage) -> BaseMessage:
    """A message with the texts of its document blocks in words, which every model reads."""
    content = content_of(message)
    if isinstance(message.content, str) or not content.documents:
        return message
    words = "\n\n".join(filter(None, (documents_to_text(content.documents), content.text)))
    return message.model_copy(update={"content": words})
