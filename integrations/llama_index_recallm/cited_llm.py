"""Any LlamaIndex LLM with cited answers: it points at numbered sentences, we quote them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
    ThinkingBlock,
)
from llama_index.core.bridge.pydantic import ConfigDict, Field
from llama_index.core.llms.llm import LLM

import recallm_core as recallm
from llama_index_recallm import answers
from llama_index_recallm import messages as talk
from llama_index_recallm.llms import RecaLLM
from llama_index_recallm.replies import ending_of, usage_of
from recallm_core.adapting import estimated_tokens

Ask: TypeAlias = Callable[[dict[str, Any]], Mapping[str, Any]]

_SHARE = 0.8  # of the room; numbers and quotation marks take the rest


def cited(
    llm: LLM,
    *,
    ask: Ask | None = None,
    limits: recallm.SchemaLimits | str | None = None,
    outside: Literal["raise", "match"] = "raise",
    max_input_tokens: int | None = None,
) -> CitedLLM:
    """Returns an LLM whose answers from documents are cited, whatever model writes them.

    The sentences of citable blocks are numbered in the prompt and the model replies in JSON that
    names them. Its numbers become exact slices, ``basis`` ``pointed``. Where nothing can be cited
    it is the model as it was. Every engine of this package takes it:

    ```python
    from llama_index.llms.openai import OpenAI
    from llama_index_recallm import RecaLLMQueryEngine, cited

    engine = RecaLLMQueryEngine.build(index, cited(OpenAI(model="gpt-5-mini")))
    engine.query(question).citations
    ```

    Args:
        llm: Any LLM.
        ask: From a JSON schema to the settings of ``chat`` that hold the model to it; None: what
            OpenAI, its like and Ollama take. Others are asked in words alone; the reply is checked
            all the same.
        limits: What its schemas may hold, or the name of a provider that is so limited; None: by
            the name of the LLM's class.
        outside: What becomes of a reply that isn't what was asked for: ``raise`` a ``ReplyError``,
            or ``match``: its words are cited only where the documents hold them.
        max_input_tokens: Tokens of a prompt, at most; None: what the window of the LLM's
            ``metadata`` leaves beside its output. Blocks that don't fit are cut to what bears on
            the question, and ``raw["recallm"]["left_out"]`` has the ranges that it wasn't shown.

    Raises:
        TypeError: It is no LLM.
    """
    if not isinstance(llm, LLM) or isinstance(llm, RecaLLM):
        raise TypeError(
            f"llm must be an LLM of LlamaIndex that doesn't cite by itself, got "
            f"{type(llm).__name__}"
        )
    known = recallm.SchemaLimits.of(limits) if isinstance(limits, str) else limits
    return CitedLLM(
        llm=llm, ask=ask, limits=known, outside=outside, max_input_tokens=max_input_tokens
    )


class CitedLLM(LLM):
    """An LLM around another one; made by ``cited``.

    A response has the blocks and the ``raw`` that those of ``RecaLLM`` have.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    llm: LLM = Field(description="The LLM that is asked.")
    ask: Ask | None = Field(default=None, exclude=True)
    limits: recallm.SchemaLimits | None = Field(default=None, exclude=True)
    outside: Literal["raise", "match"] = "raise"
    max_input_tokens: int | None = Field(default=None, gt=0)

    @classmethod
    def class_name(cls) -> str:
        """Returns the name under which the class is serialised."""
        return "CitedLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What is true of the LLM; tools are for the one inside."""
        return self.llm.metadata.model_copy(update={"is_function_calling_model": False})

    def count_tokens(self, text: str) -> int:
        """Returns about how many tokens a text has, rather too many than too few."""
        return estimated_tokens(text)

    @property
    def most_tokens(self) -> int:
        """Tokens of a prompt, at most."""
        known = self.metadata
        window = known.context_window - max(known.num_output, 0)
        return max(min(window, self.max_input_tokens or window), 1)

    def room(self, messages: Sequence[ChatMessage]) -> int:
        """Returns about how many tokens of documents fit beside some messages and the output."""
        turns = [{"role": "user", "content": message.content or ""} for message in messages]
        bare = recallm.PointedPrompt.of(turns, ()).size(self.count_tokens)
        return max(int((self.most_tokens - bare) * _SHARE), 0)

    @property
    def _inner_llm(self) -> LLM:
        """The LLM inside, which tells the handlers that an engine gave to this one."""
        manager = self.callback_manager
        if manager.handlers and self.llm.callback_manager is not manager:
            self.llm.callback_manager = manager
        return self.llm

    # one call

    def _call(self, messages: Sequence[ChatMessage], options: Mapping[str, Any]) -> _Call | None:
        """What is asked; None where there is nothing to cite.

        Raises:
            ValueError: The answer is to be an object.
        """
        settings = {key: value for key, value in options.items() if key != "scope"}
        if settings.get("response_schema") is not None:
            raise ValueError(
                "a cited answer can't be an object of another class; leave output_cls out, or give "
                "it to the LLM itself"
            )
        conversation = talk.read(messages, scope="documents")
        if conversation.documents is None:
            return None
        prompt = recallm.PointedPrompt.within(
            self.most_tokens,
            conversation.turns,
            conversation.documents,
            count=self.count_tokens,
        )
        schema = prompt.schema(self.limits or recallm.SchemaLimits.of(self.llm.class_name()))
        schema_settings = (
            _settings(self.llm.class_name(), schema) if self.ask is None else self.ask(schema)
        )
        return _Call(self, conversation, prompt, {**settings, **schema_settings})

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answers the last message."""
        call = self._call(messages, kwargs)
        if call is None:
            return self._inner_llm.chat(messages, **_inner_settings(kwargs))
        if not call.prompt.sentences:
            return call.nothing()
        return call.whole(self._inner_llm.chat(call.turns, **call.settings))

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """``chat`` without blocking the event loop."""
        call = await asyncio.to_thread(self._call, messages, kwargs)
        if call is None:
            return await self._inner_llm.achat(messages, **_inner_settings(kwargs))
        if not call.prompt.sentences:
            return call.nothing()
        return call.whole(await self._inner_llm.achat(call.turns, **call.settings))

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answers in pieces; the last response is the whole one, with citations and ``raw``."""
        call = self._call(messages, kwargs)
        if call is None:
            return self._inner_llm.stream_chat(messages, **_inner_settings(kwargs))
        if not call.prompt.sentences:
            return iter([call.nothing()])  # type: ignore[return-value]
        chunks = self._inner_llm.stream_chat(call.turns, **call.settings)

        def pieces() -> ChatResponseGen:
            hearing = _Hearing(call)
            for chunk in chunks:
                yield from hearing.take(chunk)
            yield from hearing.finish()

        return pieces()

    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """``stream_chat`` without blocking the event loop."""
        call = await asyncio.to_thread(self._call, messages, kwargs)
        if call is None:
            return await self._inner_llm.astream_chat(messages, **_inner_settings(kwargs))
        sentences = call.prompt.sentences
        chunks = (
            await self._inner_llm.astream_chat(call.turns, **call.settings) if sentences else None
        )

        async def pieces() -> ChatResponseAsyncGen:
            if chunks is None:
                yield call.nothing()
                return
            hearing = _Hearing(call)
            async for chunk in chunks:
                for piece in hearing.take(chunk):
                    yield piece
            for piece in hearing.finish():
                yield piece

        return pieces()

    # a completion has no documents, so it is the LLM's own

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Completes a text, without citations."""
        return self._inner_llm.complete(prompt, formatted=formatted, **kwargs)

    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """``complete`` without blocking the event loop."""
        return await self._inner_llm.acomplete(prompt, formatted=formatted, **kwargs)

    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        """Completes a text in pieces, without citations."""
        return self._inner_llm.stream_complete(prompt, formatted=formatted, **kwargs)

    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """``stream_complete`` without blocking the event loop."""
        return await self._inner_llm.astream_complete(prompt, formatted=formatted, **kwargs)


AnsweringLLM: TypeAlias = RecaLLM | CitedLLM
"""What the engines of this package answer with."""


@dataclass(frozen=True, slots=True)
class _Call:
    """One call: what the inner LLM is sent, and what is needed to read its reply."""

    outer: CitedLLM
    conversation: talk.Conversation
    prompt: recallm.PointedPrompt
    settings: Mapping[str, Any]

    @property
    def turns(self) -> list[ChatMessage]:
        """The messages to send."""
        turns = self.prompt.turns
        return [ChatMessage(role=MessageRole(t["role"]), content=t["content"]) for t in turns]

    @property
    def model(self) -> str:
        """The name of the model."""
        return self.outer.llm.metadata.model_name

    def whole(self, response: ChatResponse) -> ChatResponse:
        """The response that a whole reply is."""
        answer = self.prompt.answer(
            response.message.content or "",
            outside=self.outer.outside,
            usage=usage_of(response),
            finish_reason=ending_of(response),
            model=self.model,
            reasoning=_thoughts(response.message),
        )
        return self.response(answer)

    def nothing(self) -> ChatResponse:
        """The abstention of documents without a sentence; also as the only piece of a stream."""
        answer = self.prompt.nothing(model=self.model)
        return self.response(answer, delta=answer.text)

    def response(self, answer: recallm.Answer, delta: str | None = None) -> ChatResponse:
        """An answer as a response, with the ranges of blocks that it wasn't shown."""
        response = answers.to_response(
            answer, self.conversation, thinking=True, citations=True, delta=delta
        )
        raw: Any = response.raw
        raw[answers.RAW]["left_out"] = [asdict(at) for at in self.prompt.left_out]
        return response


class _Hearing:
    """Turns the pieces of an inner stream into ours."""

    def __init__(self, call: _Call) -> None:
        self._call = call
        self._reader = call.prompt.reader(outside=call.outer.outside)
        self._writer = answers.Writer()
        self._shown = 0
        self._usage: recallm.Usage | None = None
        self._ending = "stop"

    def take(self, chunk: ChatResponse) -> Iterator[ChatResponse]:
        """Yields what a piece of the reply adds."""
        self._usage = usage_of(chunk) or self._usage
        self._ending = "length" if ending_of(chunk) == "length" else self._ending
        thought = chunk.additional_kwargs.get("thinking_delta")
        if isinstance(thought, str) and thought:
            yield self._piece(recallm.ReasoningDelta(thought))
        text = self._reader.feed(chunk.delta or "")
        if text:
            self._shown += len(text)
            yield self._piece(recallm.AnswerDelta(text))

    def finish(self) -> Iterator[ChatResponse]:
        """Yields the rest, then the whole response."""
        answer = self._reader.finish(
            usage=self._usage,
            finish_reason=self._ending,
            model=self._call.model,
            reasoning="".join(self._writer.reasoning),
        )
        rest = answer.text[self._shown :]
        if rest:
            yield self._piece(recallm.AnswerDelta(rest))
        yield self._call.response(answer, delta="")

    def _piece(self, event: Any) -> ChatResponse:
        text, reasoning = self._writer.add(event) or ("", "")
        return self._writer.chunk(text, reasoning, thinking=True)


def _inner_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the inner LLM knows."""
    return {key: value for key, value in options.items() if key not in ("scope", "response_schema")}


def _settings(name: str, schema: dict[str, Any]) -> Mapping[str, Any]:
    """What holds the LLMs of some classes to a schema, as settings of a call."""
    kind = name.casefold()
    if "ollama" in kind:
        return {"format": schema}
    if "openai" in kind and "responses" not in kind:
        named = {"name": schema["title"], "schema": schema, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": named}}
    return {}


def _thoughts(message: ChatMessage) -> str:
    blocks = [block for block in message.blocks if isinstance(block, ThinkingBlock)]
    return "".join(block.content or "" for block in blocks)
