"""ChatRecaLLM: a LangChain chat model whose answers carry checked citations."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterator,
    Callable,
    Iterator,
    Sequence,
)
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import (
    LanguageModelInput,
)
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.block_translators import register_translator
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_recallm import answers, structured, tool_calls
from langchain_recallm.blocks import content_of
from langchain_recallm.calls import Call, awrite_events, read_call, write_events
from langchain_recallm.settings import ChatSettings
from langchain_recallm.streaming import ChunkWriter, EventWriter

if TYPE_CHECKING:
    pass

register_translator(answers.PROVIDER, answers.v0_blocks, answers.v0_blocks)


class ChatRecaLLM(ChatSettings):
    """Answers from documents, with quotes that are exact slices of them.

    Documents are given beside the messages, in them, or by tools:

    ```python
    from langchain_core.documents import Document
    from langchain_recallm import ChatRecaLLM, message_citations

    model = ChatRecaLLM(model="recallm-mini")
    message = model.invoke("When does the ferry leave?", documents=[Document("It leaves at 9.")])
    message.text
    message_citations(message)
    ```

    The content is a ``reasoning`` block, whose ``extras["recalls"]`` are the quotes made while
    thinking, and a ``text`` block, whose ``annotations`` are citations. In a citation,
    ``start_index`` and ``end_index`` are a range of the answer; the range of the source is in
    ``extras``: ``documents[document_index].page_content[start_char_index:end_char_index]`` is
    ``cited_text``, always. ``response_metadata["documents"]`` lists the ids that
    ``document_index`` counts.

    Without any document, the messages of the user may be quoted, as documents ``message:0`` and so
    on. Documents that are given and empty, such as a search that found nothing, are an abstention.
    """

    def get_token_ids(self, text: str) -> list[int]:
        """Returns the token ids of a text; nothing in it is a control token."""
        ids: list[int] = self.llm.tokenizer.encode_plain(text).ids.tolist()
        return ids

    def get_num_tokens(self, text: str) -> int:
        """Returns how many tokens a text has for this model."""
        return self.llm.count_tokens(text)

    def get_num_tokens_from_messages(
        self,
        messages: Sequence[BaseMessage],
        tools: Sequence[Any] | None = None,
    ) -> int:
        """Returns about how many tokens messages have, their documents included."""
        llm = self.llm
        total = 0
        for number, message in enumerate(messages):
            content = content_of(message, number)
            texts = [content.text, *(document.page_content for document in content.documents)]
            total += 4 + sum(llm.count_tokens(text) for text in texts)
        return total

    # one call

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: dict[str, Any] | str | bool | None = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Returns this model with tools that it may call; calls fit their schemas by decoding.

        Args:
            tools: Functions, tools, Pydantic classes, or descriptions of them.
            tool_choice: ``any``, ``auto``, ``none``, a tool's name, or True for ``any``.
            parallel_tool_calls: Whether several may be called at once; they may by default.
            kwargs: Further settings of a call.
        """
        bound: dict[str, Any] = {"tools": [convert_to_openai_tool(tool) for tool in tools]}
        choice = tool_calls.choice(tool_choice)
        if choice is not None:
            bound["tool_choice"] = choice
        if parallel_tool_calls is not None:
            bound["parallel_tool_calls"] = parallel_tool_calls
        return self.bind(**bound, **kwargs)

    def with_structured_output(
        self,
        schema: Any = None,
        *,
        method: Literal["json_schema", "function_calling", "json_mode"] = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Returns a model whose answers are values of a schema, enforced while decoding.

        Args:
            schema: A Pydantic class, a ``TypedDict``, a JSON schema or a tool.
            method: ``json_schema`` (the answer is the value, and its text keeps citations),
                ``function_calling`` (a tool call is) or ``json_mode``.
            include_raw: Return ``raw``, ``parsed`` and ``parsing_error``.
            strict: Not needed; schemas are always enforced.
            kwargs: Further settings of a call.
        """
        return structured.structured_model(
            self, schema, method=method, include_raw=include_raw, options=kwargs
        )

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = read_call(self, messages, stop, kwargs)
        with closing(call.events()) as events:
            *_, last = events
        return self._result(call, last)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = await asyncio.to_thread(read_call, self, messages, stop, kwargs)
        last = None
        async with aclosing(call.aevents()) as events:
            async for event in events:
                last = event
        return await asyncio.to_thread(self._result, call, last)

    def _result(self, call: Call, last: Any) -> ChatResult:
        """The message of a call whose last event this is, which is ``Finished``."""
        message = answers.to_message(
            last.answer, call.sources, model=self.model, version=call.version
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        call = read_call(self, messages, stop, kwargs)
        writer = ChunkWriter(call.sources, model=self.model, version=call.version)
        yield from write_events(call, writer.chunks)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        call = await asyncio.to_thread(read_call, self, messages, stop, kwargs)
        writer = ChunkWriter(call.sources, model=self.model, version=call.version)
        async with aclosing(awrite_events(call, writer.chunks)) as chunks:
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
        call = read_call(self, messages, stop, kwargs)
        writer = EventWriter(call.sources, model=self.model)
        yield from writer.start()
        yield from write_events(call, writer.events)

    async def _astream_chat_model_events(
        self,
        messages: list[BaseMessage],
        *,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        """The same for asynchronous code; looked for apart from the other."""
        call = await asyncio.to_thread(read_call, self, messages, stop, kwargs)
        writer = EventWriter(call.sources, model=self.model)
        for first in writer.start():
            yield first
        async with aclosing(awrite_events(call, writer.events)) as events:
            async for event in events:
                yield event
