"""RecaLLM as a LlamaIndex LLM: citable blocks in, answers with citation blocks out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    ToolCallBlock,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.types import Model

from llama_index_recallm import answers
from llama_index_recallm import messages as talk
from llama_index_recallm.settings import RULES, ModelSettings
from recallm_core import Finished, GenerationParams

if TYPE_CHECKING:
    from recallm_core import Answer, AnswerStream, Event
    from recallm_core import RecaLLM as CoreLLM


@dataclass(frozen=True, slots=True)
class _Call:
    """One call: what goes to the core, and what is needed to read its answer."""

    llm: CoreLLM
    talk: talk.Conversation
    params: GenerationParams
    rules: dict[str, Any]

    def open(self) -> AnswerStream:
        """Starts the generation."""
        turns, documents = self.talk.turns, self.talk.documents
        return self.llm.stream_chat(turns, documents, params=self.params, **self.rules)

    def aopen(self) -> Any:
        """Starts the generation, for asynchronous code; an asynchronous generator."""
        turns, documents = self.talk.turns, self.talk.documents
        return self.llm.astream_chat(turns, documents, params=self.params, **self.rules)


class RecaLLM(ModelSettings):
    """A local model whose quotes are exact slices of what it was given.

    ```python
    from llama_index.core.llms import ChatMessage, CitableBlock, TextBlock
    from llama_index_recallm import RecaLLM

    llm = RecaLLM(model="recallm-mini")
    source = CitableBlock(title="Ferry", source="ferry.txt", content="It leaves at 9:30.")
    question = TextBlock(text="When does the ferry leave?")
    response = llm.chat([ChatMessage(role="user", blocks=[source, question])])
    ```

    The message of an answer has a ``ThinkingBlock``, one ``TextBlock`` and then a ``CitationBlock``
    for each citation. Its ``additional_location_info`` says where: ``citable_index`` and
    ``block_index`` count the citable blocks of the call and their texts, ``start_char_idx`` and
    ``end_char_idx`` are a range of that text, ``answer_start`` and ``answer_end`` a range of the
    answer (left out where the quote stands for the whole answer). Without any citable block, the
    messages of the user may be quoted; then ``message_index`` takes their place. Blocks without a
    text, and tools that found nothing, are an abstention.

    ``raw`` is plain data: ``usage``, and the whole answer under ``recallm``.

    Tools are called, and pydantic classes filled, under a grammar: what comes back fits the schema.
    ``metadata`` says that the model calls functions if its chat template can show them to it. What
    a tool returns may be quoted like any document.
    """

    @classmethod
    def class_name(cls) -> str:
        """Returns the name under which the class is serialised."""
        return "RecaLLM"

    def room(self, messages: Sequence[ChatMessage]) -> int:
        """Returns how many tokens of documents fit beside some messages and the output.

        Raises:
            ContextOverflowError: Even without any document they don't fit.
        """
        engine = self.engine
        turns = talk.read(messages, scope="documents").turns
        prompt, _ = engine.prepare(turns, (), params=self._params({"scope": "documents"}))
        return engine.backend.window - len(prompt.token_ids) - prompt.params.max_new_tokens

    # one call

    def _read(self, messages: Sequence[ChatMessage], options: Mapping[str, Any]) -> _Call:
        params = self._params(options)
        conversation = talk.read(messages, scope=params.scope)
        scope: Literal["documents", "prompt"] = "prompt" if conversation.flat else "documents"
        rules = {name: options[name] for name in RULES if options.get(name) is not None}
        if rules.get("tools"):
            rules["tools"] = [_function(tool) for tool in rules["tools"]]
        engine = self._verbatim() if _reacts(conversation) else self.engine
        return _Call(engine, conversation, replace(params, scope=scope), rules)

    def _answer(self, call: _Call) -> Answer:
        with call.open() as stream:
            for event in stream:
                answers.announce(event, call.talk)
            return stream.result()

    async def _aanswer(self, call: _Call) -> Answer:
        async with aclosing(call.aopen()) as events:
            async for event in events:
                answers.announce(event, call.talk)
                if isinstance(event, Finished):
                    return event.answer
        raise AssertionError("a stream ends with Finished")

    def _response(self, answer: Answer, call: _Call, delta: str | None = None) -> ChatResponse:
        return answers.to_response(
            answer,
            call.talk,
            thinking=self.thinking_blocks,
            citations=self.citation_blocks,
            delta=delta,
        )

    def _chunks(self, writer: answers.Writer, event: Event, call: _Call) -> Iterator[ChatResponse]:
        answers.announce(event, call.talk)
        if isinstance(event, Finished):
            yield self._response(event.answer, call, delta="")
        else:
            delta = writer.add(event)
            if delta is not None:
                yield writer.chunk(*delta, thinking=self.thinking_blocks)

    # chatting

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answers the last message; settings of one call are given by name."""
        call = self._read(messages, kwargs)
        return self._response(self._answer(call), call)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """``chat`` without blocking the event loop; cancelling it stops the generation."""
        call = await asyncio.to_thread(self._read, messages, kwargs)
        return self._response(await self._aanswer(call), call)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answers in pieces: ``delta`` is answer text, ``thinking_delta`` in additional_kwargs.

        The last response is the whole one, with citations and ``raw``.
        """
        call = self._read(messages, kwargs)

        opened = call.open()

        def pieces() -> ChatResponseGen:
            writer = answers.Writer()
            with opened as stream:
                for event in stream:
                    yield from self._chunks(writer, event, call)

        return pieces()

    @llm_chat_callback()
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """``stream_chat`` for asynchronous code."""
        call = await asyncio.to_thread(self._read, messages, kwargs)

        async def pieces() -> ChatResponseAsyncGen:
            async with aclosing(self._apieces(call)) as stream:
                async for chunk in stream:
                    yield chunk

        return pieces()

    async def _apieces(self, call: _Call) -> Any:
        writer = answers.Writer()
        async with aclosing(call.aopen()) as events:
            async for event in events:
                for chunk in self._chunks(writer, event, call):
                    yield chunk

    # completing

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answers a prompt as if it were the message of a user."""
        call = self._read([ChatMessage(content=prompt)], kwargs)
        return answers.completion(self._answer(call))

    @llm_completion_callback()
    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """``complete`` without blocking the event loop."""
        call = await asyncio.to_thread(self._read, [ChatMessage(content=prompt)], kwargs)
        return answers.completion(await self._aanswer(call))

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        """``complete`` in pieces."""
        call = self._read([ChatMessage(content=prompt)], kwargs)

        opened = call.open()

        def pieces() -> CompletionResponseGen:
            writer = answers.Writer()
            with opened as stream:
                for event in stream:
                    for chunk in self._chunks(writer, event, call):
                        yield answers.to_completion(chunk)

        return pieces()

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """``stream_complete`` for asynchronous code."""
        call = await asyncio.to_thread(self._read, [ChatMessage(content=prompt)], kwargs)

        async def pieces() -> CompletionResponseAsyncGen:
            async with aclosing(self._apieces(call)) as stream:
                async for chunk in stream:
                    yield answers.to_completion(chunk)

        return pieces()

    # tools

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[Any],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        messages = list(chat_history or [])
        if user_msg is not None:
            question = ChatMessage(content=user_msg) if isinstance(user_msg, str) else user_msg
            messages.append(question)
        rules: dict[str, Any] = {"tools": list(tools)}
        if tools:
            rules["tool_choice"] = "required" if tool_required else "auto"
            rules["parallel_tool_calls"] = allow_parallel_tool_calls
        return {"messages": messages, **rules, **kwargs}

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Returns the tools that the model wants called; their arguments fit the schemas.

        Raises:
            ValueError: There are none, and ``error_on_no_tool_call`` is set.
        """
        selections = [
            ToolSelection(
                tool_id=block.tool_call_id or "",
                tool_name=block.tool_name,
                tool_kwargs=dict(block.tool_kwargs) if isinstance(block.tool_kwargs, dict) else {},
            )
            for block in response.message.blocks
            if isinstance(block, ToolCallBlock)
        ]
        if not selections and error_on_no_tool_call:
            raise ValueError("the model called no tool; set tool_required, or take its answer")
        return selections

    # structured output

    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Answers a prompt as an instance of a pydantic class, held to its schema."""
        messages = self._extend_messages(prompt.format_messages(llm=self, **prompt_args))
        schema = output_cls.model_json_schema()
        response = self.chat(messages, **{**(llm_kwargs or {}), "response_schema": schema})
        return answers.parse_answer(output_cls, response)

    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """``structured_predict`` without blocking the event loop."""
        messages = self._extend_messages(prompt.format_messages(llm=self, **prompt_args))
        schema = output_cls.model_json_schema()
        response = await self.achat(messages, **{**(llm_kwargs or {}), "response_schema": schema})
        return answers.parse_answer(output_cls, response)

    # what stream_structured_predict and as_structured_llm stream by; LlamaIndex's own way is a
    # tool call, or JSON that the prompt asks for

    def _structured_stream_call(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Any, None, None]:
        messages = self._extend_messages(prompt.format_messages(llm=self, **prompt_args))
        schema = output_cls.model_json_schema()
        chunks = self.stream_chat(messages, **{**(llm_kwargs or {}), "response_schema": schema})
        last = None
        for chunk in chunks:
            last = answers.partly_parsed(output_cls, chunk, last)
            yield last

    async def _structured_astream_call(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any, None]:
        messages = self._extend_messages(prompt.format_messages(llm=self, **prompt_args))
        schema = output_cls.model_json_schema()
        options = {**(llm_kwargs or {}), "response_schema": schema}
        chunks = await self.astream_chat(messages, **options)

        async def pieces() -> AsyncGenerator[Any, None]:
            last = None
            async for chunk in chunks:
                last = answers.partly_parsed(output_cls, chunk, last)
                yield last

        return pieces()


def _function(tool: Any) -> Any:
    """A LlamaIndex tool as the core takes it; what is one already stays."""
    metadata = getattr(tool, "metadata", None)
    return tool if metadata is None else metadata.to_openai_tool(skip_length_check=True)


def _reacts(conversation: talk.Conversation) -> bool:
    """Whether the conversation is a ReAct agent's, who parses thoughts and answers by their names.

    LlamaIndex tells an LLM nothing about that but the words of its prompt.
    """
    texts = [turn["content"] for turn in conversation.turns]
    return any("\nThought:" in text and "\nAnswer:" in text for text in texts)
