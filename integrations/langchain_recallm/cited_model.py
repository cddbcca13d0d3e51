"""Any LangChain chat model with cited answers: it points at numbered sentences, we quote them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import (
    BaseChatModel,
    LangSmithParams,
    LanguageModelInput,
    ModelProfile,
)
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils import from_env
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field

import recallm_core as recallm
from langchain_recallm import answers
from langchain_recallm.pointed_calls import Listener, PointedCall, Room, build_prompt
from langchain_recallm.streaming import ChunkWriter, EventWriter
from recallm_core.adapting import estimated_tokens

_TOOLS = ("tools", "tool_choice", "parallel_tool_calls")
_STRICT = ("openai", "azure")  # hold to a schema only where they are told to


def cited(
    model: BaseChatModel,
    *,
    limits: recallm.SchemaLimits | str | None = None,
    outside: Literal["raise", "match"] = "raise",
    token_budget: int | None = None,
    max_input_tokens: int | None = None,
    count_tokens: Callable[[str], int] | None = None,
    **structured: Any,
) -> CitedChatModel:
    """Returns a chat model whose answers cite the documents, whatever model writes them.

    The sentences of the documents are numbered in the prompt and the model replies in JSON that
    names them, held to a schema where it can be. Its numbers become exact slices, ``basis``
    ``pointed``. Documents come as they do to ``ChatRecaLLM``, and so do the answers:

    ```python
    from langchain_openai import ChatOpenAI
    from langchain_recallm import cited, message_citations

    message = cited(ChatOpenAI(model="gpt-5-mini")).invoke(question, documents=documents)
    message_citations(message)
    ```

    Args:
        model: Any chat model. One without ``with_structured_output`` is asked in words alone.
        limits: What its schemas may hold, or the name of a provider that is so limited; None: by
            the model's provider.
        outside: What becomes of a reply that isn't what was asked for: ``raise`` a ``ReplyError``,
            or ``match``: its words are cited only where the documents hold them.
        token_budget: How much is packed where the documents are a ``CorpusIndex``.
        max_input_tokens: Tokens of a prompt, at most. Documents that don't fit are cut to what
            bears on the question, and ``response_metadata["left_out"]`` has the ranges that the
            model wasn't shown. None: what the model's ``profile`` says; nothing is cut where it
            says nothing.
        count_tokens: Counts the tokens of a text; None: the model's ``custom_get_token_ids``, else
            an estimate that is rather too high. No tokenizer is ever fetched for it.
        structured: Options of the model's ``with_structured_output``, such as ``method``.

    Raises:
        TypeError: It is no chat model.
    """
    if not isinstance(model, BaseChatModel):
        raise TypeError(
            f"model must be a chat model, got {type(model).__name__}; wrap the model itself first, "
            "then bind settings to what cited() returns"
        )
    known = recallm.SchemaLimits.of(limits) if isinstance(limits, str) else limits
    return CitedChatModel(
        chat_model=model,
        limits=known,
        outside=outside,
        token_budget=token_budget,
        max_input_tokens=max_input_tokens,
        count_tokens=count_tokens,
        structured=structured,
    )


class CitedChatModel(BaseChatModel):
    """A chat model around another one; made by ``cited``."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    chat_model: BaseChatModel
    """The model that is asked."""
    limits: recallm.SchemaLimits | None = None
    """What its schemas may hold; None: by its provider."""
    outside: Literal["raise", "match"] = "raise"
    """What becomes of a reply that isn't what was asked for."""
    token_budget: int | None = None
    """How much is packed of an index; None: what fits, or as ``CorpusIndex.pack`` has it."""
    max_input_tokens: int | None = Field(default=None, gt=0)
    """Tokens of a prompt, at most; None: what the model's profile says."""
    count_tokens: Callable[[str], int] | None = Field(default=None, exclude=True)
    """Counts the tokens of a text; None: the model's own counter where it is given one."""
    structured: dict[str, Any] = Field(default_factory=dict)
    """Options of ``with_structured_output``."""
    output_version: str | None = Field(default_factory=from_env("LC_OUTPUT_VERSION", default="v1"))
    """``v1``: standard content blocks; ``v0``: plain text, the rest in ``additional_kwargs``."""

    @property
    def _llm_type(self) -> str:
        return f"cited-{self.chat_model._llm_type}"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        names = ("limits", "outside", "token_budget", "max_input_tokens", "structured")
        return {**self.chat_model._identifying_params, **{n: getattr(self, n) for n in names}}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = self.chat_model._get_ls_params(stop=stop, **kwargs)
        params.setdefault("ls_model_name", self._llm_type)
        return params

    @property
    def _provider(self) -> str:
        return str(self.chat_model._get_ls_params().get("ls_provider") or "")

    @property
    def _name(self) -> str:
        return str(self.chat_model._get_ls_params().get("ls_model_name") or self._llm_type)

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: Any = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Returns this model with tools; where the inner one calls none, it is asked to answer.

        Args:
            tools: As the inner model takes them.
            tool_choice: As the inner model takes it.
            parallel_tool_calls: Whether several may be called at once.
            kwargs: Further settings of a call.
        """
        choices = {"tool_choice": tool_choice, "parallel_tool_calls": parallel_tool_calls}
        bound = {key: value for key, value in choices.items() if value is not None}
        return self.bind(tools=[convert_to_openai_tool(t) for t in tools], **bound, **kwargs)

    def with_structured_output(self, schema: Any = None, **kwargs: Any) -> Any:
        """Refuses: an object of another class has no place for citations.

        Raises:
            NotImplementedError: Always; it says what to do instead.
        """
        raise NotImplementedError(
            "a cited answer can't be an object of another class: its citations would be lost, and "
            "documents that hold no answer with them; ask the model itself for the object, or use "
            "ChatRecaLLM, whose objects keep their citations"
        )

    # tokens are those of the model inside

    def get_token_ids(self, text: str) -> list[int]:
        """Returns the tokens of a text."""
        return self.chat_model.get_token_ids(text)

    def get_num_tokens(self, text: str) -> int:
        """Returns how many tokens a text has."""
        return self.chat_model.get_num_tokens(text)

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Returns how many tokens some messages have."""
        if tools is None:
            return self.chat_model.get_num_tokens_from_messages(messages)
        return self.chat_model.get_num_tokens_from_messages(messages, tools)

    # one call

    def _call(
        self, messages: list[BaseMessage], stop: list[str] | None, options: Mapping[str, Any]
    ) -> tuple[PointedCall, str]:
        """Reads a call; returns it with the version of its output."""
        settings = dict(options)
        documents = settings.pop("documents", None)
        version = str(settings.pop("output_version", None) or self.output_version or "v1")
        tools = {key: settings.pop(key) for key in _TOOLS if key in settings}
        prompt, sources = build_prompt(messages, documents, self._room)
        call = PointedCall(
            model=self.chat_model,
            prompt=prompt,
            sources=sources,
            limits=self.limits or recallm.SchemaLimits.of(self._provider),
            outside=self.outside,
            structured=self._schema_options(),
            settings=settings if stop is None else {**settings, "stop": stop},
            name=self._name,
            tools=tools if tools.get("tools") else {},
            messages=messages,
        )
        return call, version

    @property
    def _room(self) -> Room:
        profile: Mapping[str, Any] = self.chat_model.profile or {}
        told = self.max_input_tokens or profile.get("max_input_tokens")
        return Room(told, self._count, self.token_budget)

    @property
    def _count(self) -> Callable[[str], int]:
        """What counts tokens without asking anyone: a hosted model's own may ask its maker."""
        ids_of = self.chat_model.custom_get_token_ids
        if self.count_tokens is not None:
            return self.count_tokens
        return estimated_tokens if ids_of is None else lambda text: len(ids_of(text))

    def _resolve_model_profile(self) -> ModelProfile | None:
        """What is true of the model inside; langchain-core looks for this name."""
        return self.chat_model.profile

    def _schema_options(self) -> dict[str, Any]:
        strict = any(name in self._provider for name in _STRICT)
        return {**({"strict": True} if strict else {}), **self.structured}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call, version = self._call(messages, stop, kwargs)
        listener = Listener(call)
        with closing(call.events(listener, streaming=False)) as events:
            *_, last = events
        return self._result(last, call, listener, version)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call, version = await asyncio.to_thread(self._call, messages, stop, kwargs)
        listener = Listener(call)
        last = None
        async with aclosing(call.aevents(listener, streaming=False)) as events:
            async for event in events:
                last = event
        return self._result(last, call, listener, version)

    def _result(self, last: Any, call: PointedCall, listener: Listener, version: str) -> ChatResult:
        message = answers.to_message(last.answer, call.sources, model=self._name, version=version)
        message.usage_metadata = listener.usage
        message.response_metadata = listener.joint(message.response_metadata)
        return ChatResult(generations=[ChatGeneration(message=message)])

    # streams

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        call, version = self._call(messages, stop, kwargs)
        writer = ChunkWriter(call.sources, model=self._name, version=version)
        yield from _write_events(call, lambda event, heard: _chunks(writer, event, heard))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        call, version = await asyncio.to_thread(self._call, messages, stop, kwargs)
        writer = ChunkWriter(call.sources, model=self._name, version=version)
        written = _awrite_events(call, lambda event, heard: _chunks(writer, event, heard))
        async with aclosing(written) as chunks:
            async for chunk in chunks:
                yield chunk

    def _stream_chat_model_events(
        self,
        messages: list[BaseMessage],
        *,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[Any]:
        """The events of ``stream_events(version="v3")``; langchain-core looks for this name."""
        call, _ = self._call(messages, stop, kwargs)
        writer = EventWriter(call.sources, model=self._name)
        yield from writer.start()
        yield from _write_events(call, lambda event, heard: _protocol(writer, event, heard))

    async def _astream_chat_model_events(
        self,
        messages: list[BaseMessage],
        *,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        """The same for asynchronous code; looked for apart from the other."""
        call, _ = await asyncio.to_thread(self._call, messages, stop, kwargs)
        writer = EventWriter(call.sources, model=self._name)
        for first in writer.start():
            yield first
        written = _awrite_events(call, lambda event, heard: _protocol(writer, event, heard))
        async with aclosing(written) as events:
            async for event in events:
                yield event


_Write = Callable[[Any, Listener], Iterator[Any]]


def _write_events(call: PointedCall, write: _Write) -> Iterator[Any]:
    listener = Listener(call)
    with closing(call.events(listener, streaming=True)) as events:
        for event in events:
            yield from write(event, listener)


async def _awrite_events(call: PointedCall, write: _Write) -> AsyncGenerator[Any, None]:
    listener = Listener(call)
    async with aclosing(call.aevents(listener, streaming=True)) as events:
        async for event in events:
            for piece in write(event, listener):
                yield piece


def _chunks(writer: ChunkWriter, event: Any, listener: Listener) -> Iterator[ChatGenerationChunk]:
    """The chunks of an event; the last one has the model's own usage and metadata."""
    for chunk in writer.chunks(event):
        message: Any = chunk.message
        if message.chunk_position == "last":
            message.usage_metadata = listener.usage
            message.response_metadata = listener.joint(message.response_metadata)
        yield chunk


def _protocol(writer: EventWriter, event: Any, listener: Listener) -> Iterator[Any]:
    for written in writer.events(event):
        if written["event"] == "message-finish":
            metadata = listener.joint(written["metadata"])
            usage = {} if listener.usage is None else {"usage": listener.usage}
            bare = {key: value for key, value in written.items() if key != "usage"}
            yield {**bare, **usage, "metadata": metadata}
        else:
            yield written
