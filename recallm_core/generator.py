"""RecaLLM: a question and documents in, an answer with provable quotes out."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, Unpack
from weakref import WeakValueDictionary

from recallm_core.answering.context import Documents, Message, Preparer, unread
from recallm_core.answering.stream import (
    AnswerStream,
    Event,
    Finished,
    Replayed,
    SettledStream,
    unread_answer,
)
from recallm_core.answers.answer import Answer
from recallm_core.backends import Backend
from recallm_core.backends.checks import FORKED
from recallm_core.decoding.grammar import OutputRules, tool_spec
from recallm_core.documents.document import Document
from recallm_core.errors import DocumentError, GenerationError
from recallm_core.locks import ForkSafeLock
from recallm_core.prompting.builder import Prompt
from recallm_core.prompting.params import GenerationParams, Settings, with_settings
from recallm_core.prompting.recipe import Recipe
from recallm_core.tokenization.tokenizer import Tokenizer

_SHARED: WeakValueDictionary[str, RecaLLM] = WeakValueDictionary()
_SHARING = ForkSafeLock()


class RecaLLM:
    """A model that answers with verbatim, located quotes.

    Use ``RecaLLM.load``; the constructor puts ready parts together (tests, own backends).

    Args:
        tokenizer: The model's tokenizer.
        backend: Runs the model.
        recipe: How the model is driven.
        name: Shown in answers.
    """

    def __init__(
        self, tokenizer: Tokenizer, backend: Backend, recipe: Recipe, *, name: str = "model"
    ) -> None:
        self.tokenizer = tokenizer
        self.backend = backend
        self.recipe = recipe
        self.name = name
        self._preparer = Preparer(
            tokenizer, recipe, window=backend.window, vocab_size=backend.vocab_size
        )
        self._process = os.getpid()

    @classmethod
    def load(cls, model: str | os.PathLike[str] = "recallm-mini", **options: Any) -> Self:
        """Loads a model.

        Args:
            model: ``recallm-mini`` (shipped), a local folder, a hub id, a GGUF file,
                ``ollama:NAME``, or the address of a server (``recallm serve``).
            options: ``mode`` (``auto``, ``trained`` or ``prompted``), ``recipe``, ``backend``
                (``auto``, ``transformers``, ``vllm`` or ``llama_cpp``), ``gguf`` (which file of a
                folder or hub id), ``device``, ``dtype`` and what else the backend's ``load`` takes.

        Raises:
            CheckpointError: The folder is missing, unsafe, or of a kind that can't be loaded.
            TokenizerError: The tokenizer can't give exact offsets.
            MissingExtraError: vLLM, llama.cpp, or what a served model needs, isn't installed.
            ServerError: A server can't be reached, or doesn't hold its output to the constraint.
            ValueError: An argument is of the wrong kind.
        """
        from recallm_core.backends.load import load

        tokenizer, backend, recipe, name = load(model, **options)
        return cls(tokenizer, backend, recipe, name=name)

    def __repr__(self) -> str:
        return f"RecaLLM({self.name!r}, mode={self.recipe.mode!r}, window={self.backend.window:,})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Frees the model."""
        self.backend.close()

    # asking

    def answer(
        self,
        question: str,
        documents: Documents,
        *,
        params: GenerationParams | None = None,
        **settings: Unpack[Settings],
    ) -> Answer:
        """Answers a question from documents.

        Args:
            question: What to find out.
            documents: Documents, plain strings, or a ``CorpusIndex``. All of it is read where it
                fits the window; otherwise the passages that bear on the question are. Where there
                is nothing to read (an empty list, a search that found nothing), the answer is an
                abstention, and the model isn't asked.
            params: Settings; single ones may be given by name instead.
            settings: Fields of ``GenerationParams``.

        Raises:
            ContextOverflowError: Question, history and output alone don't fit the model's window.
            DocumentError: A document can't be used as it is.
            GenerationError: The backend failed.
        """
        return self.chat(*_asked(question, documents), params=params, **settings)

    def chat(
        self,
        messages: Sequence[Message],
        documents: Documents | None = None,
        *,
        tools: Sequence[Any] | None = None,
        tool_choice: str | None = None,
        response_schema: Any = None,
        parallel_tool_calls: bool = True,
        params: GenerationParams | None = None,
        **settings: Unpack[Settings],
    ) -> Answer:
        """Continues a conversation over documents; like ``answer``, with a history.

        Args:
            messages: ``{"role": "user" | "assistant" | "system", "content": text}``, the last one
                from the user.
            documents: What may be quoted; None: this conversation has no documents. A list that
                is given and empty is a search that found nothing, as for ``answer``; the model is
                then asked only where it may call tools or has to fit a schema.
            tools: What the model may call: ``{"type": "function", "function": {"name": ...,
                "description": ..., "parameters": JSON schema}}``; the calls come back in
                ``answer.tool_calls`` and fit the schemas.
            tool_choice: ``auto`` (the default), ``required``, ``none`` or a tool's name.
            response_schema: JSON schema that the answer has to fit; ``{}`` is any JSON. Quotes are
                then recalled while the model thinks.
            parallel_tool_calls: Whether more than one tool may be called at once.
            params: Settings; single ones may be given by name instead.
            settings: Fields of ``GenerationParams``.
        """
        with self.stream_chat(
            messages,
            documents,
            tools=tools,
            tool_choice=tool_choice,
            response_schema=response_schema,
            parallel_tool_calls=parallel_tool_calls,
            params=params,
            **settings,
        ) as stream:
            return stream.result()

    def stream(
        self,
        question: str,
        documents: Documents,
        *,
        params: GenerationParams | None = None,
        **settings: Unpack[Settings],
    ) -> AnswerStream:
        """Like ``answer``, as events while they happen; the last one is ``Finished``."""
        return self.stream_chat(*_asked(question, documents), params=params, **settings)

    def stream_chat(
        self,
        messages: Sequence[Message],
        documents: Documents | None = None,
        *,
        tools: Sequence[Any] | None = None,
        tool_choice: str | None = None,
        response_schema: Any = None,
        parallel_tool_calls: bool = True,
        params: GenerationParams | None = None,
        **settings: Unpack[Settings],
    ) -> AnswerStream:
        """Like ``chat``, as events while they happen."""
        output = _output(tools, tool_choice, response_schema, parallel_tool_calls)
        prompt, sources = self.prepare(
            messages, documents, params=params, output=output, **settings
        )
        empty = unread(prompt, documents)
        if empty and (output is None or output.words_only):
            return SettledStream(unread_answer(prompt, sources, name=self.name))
        return AnswerStream(
            self.tokenizer, self.backend, prompt, sources, name=self.name, unread=empty
        )

    def answer_batch(
        self,
        questions: Iterable[tuple[str, Documents]],
        *,
        params: GenerationParams | None = None,
        **settings: Unpack[Settings],
    ) -> list[Answer]:
        """Answers many questions, which share the backend's batches; order is kept."""
        streams = self._opened(_pairs(questions), params, settings)
        try:
            return [stream.result() for stream in streams]
        finally:
            _close(streams)

    def _opened(
        self,
        questions: Iterable[tuple[str, Documents]],
        params: GenerationParams | None,
        settings: Settings,
    ) -> list[AnswerStream]:
        """The streams of some questions; where one can't be opened, none is left open."""
        streams: list[AnswerStream] = []
        try:
            for question, documents in questions:
                streams.append(self.stream(question, documents, params=params, **settings))
        except BaseException:
            _close(streams)
            raise
        return streams

    async def aanswer(
        self,
        question: str,
        documents: Documents,
        *,
        params: GenerationParams | None = None,
        **settings: Unpack[Settings],
    ) -> Answer:
        """``answer`` without blocking the event loop; cancelling it stops the generation."""
        return await self.achat(*_asked(question, documents), params=params, **settings)

    async def aanswer_batch(
        self,
        questions: Iterable[tuple[str, Documents]],
        *,
        params: GenerationParams | None = None,
        **settings: Unpack[Settings],
    ) -> list[Answer]:
        """``answer_batch`` without blocking the event loop; cancelling it stops all of them."""
        pairs = list(_pairs(questions))
        opening = asyncio.create_task(asyncio.to_thread(self._opened, pairs, params, settings))
        try:
            streams = await asyncio.shield(opening)
            return [await asyncio.to_thread(stream.result) for stream in streams]
        finally:
            _close_when_open(opening)

    async def achat(
        self,
        messages: Sequence[Message],
        documents: Documents | None = None,
        *,
        tools: Sequence[Any] | None = None,
        tool_choice: str | None = None,
        response_schema: Any = None,
        parallel_tool_calls: bool = True,
        params: GenerationParams | None = None,
        **settings: Unpack[Settings],
    ) -> Answer:
        """``chat`` without blocking the event loop; cancelling it stops the generation."""
        events = self.astream_chat(
            messages,
            documents,
            tools=tools,
            tool_choice=tool_choice,
            response_schema=response_schema,
            parallel_tool_calls=parallel_tool_calls,
            params=params,
            **settings,
        )
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Finished):
                    return event.answer
        raise GenerationError("the stream ended without an answer")

    def astream(
        self,
        question: str,
        documents: Documents,
        *,
        params: GenerationParams | None = None,
        **settings: Unpack[Settings],
    ) -> AsyncGenerator[Event, None]:
        """``stream`` for asynchronous code."""
        return self.astream_chat(*_asked(question, documents), params=params, **settings)

    async def astream_chat(
        self,
        messages: Sequence[Message],
        documents: Documents | None = None,
        *,
        tools: Sequence[Any] | None = None,
        tool_choice: str | None = None,
        response_schema: Any = None,
        parallel_tool_calls: bool = True,
        params: GenerationParams | None = None,
        **settings: Unpack[Settings],
    ) -> AsyncGenerator[Event, None]:
        """``stream_chat`` for asynchronous code; leaving the loop stops the generation."""
        opening = asyncio.create_task(
            asyncio.to_thread(
                self.stream_chat,
                messages,
                documents,
                tools=tools,
                tool_choice=tool_choice,
                response_schema=response_schema,
                parallel_tool_calls=parallel_tool_calls,
                params=params,
                **settings,
            )
        )
        try:
            stream = await asyncio.shield(opening)
            while events := await asyncio.to_thread(stream.next_events):
                for event in events:
                    yield event
        finally:
            _close_when_open(opening)

    # your own loop

    def checked_answer(
        self, prompt: Prompt, sources: Mapping[str, Document], token_ids: Iterable[int]
    ) -> Answer:
        """Returns the checked answer that an output of your own generating loop is.

        Args:
            prompt: What was continued, from ``prepare``; a ``RecallLogitsProcessor`` over
                ``prompt.rules`` holds the loop to it.
            sources: The documents, from ``prepare``.
            token_ids: The output, without the prompt; what follows its end is left out.

        Raises:
            GenerationError: A token isn't legal where it stands: nothing held the loop.
        """
        replayed = Replayed(token_ids, prompt.spec.eos)
        return AnswerStream(self.tokenizer, replayed, prompt, sources, name=self.name).result()

    # preparing

    def count_tokens(self, text: str) -> int:
        """Tokens of a text as this model sees it."""
        self._check_process()
        return self._preparer.count_tokens(text)

    def prepare(
        self,
        messages: Sequence[Message],
        documents: Documents | None = None,
        *,
        params: GenerationParams | None = None,
        output: OutputRules | None = None,
        **settings: Unpack[Settings],
    ) -> tuple[Prompt, Mapping[str, Document]]:
        """Builds the prompt, and the documents its quotes come from, without calling the model.

        Tools and schemas are given as ``output``; the other arguments are those of ``chat``.

        Raises:
            ContextOverflowError: Prompt and output don't fit the window.
            GenerationError: This process was forked after the model was loaded.
            ValueError: The question is empty, or a setting is out of range.
        """
        self._check_process()
        chosen = with_settings(params, settings)
        return self._preparer.prepare(messages, documents, chosen, output)

    def _check_process(self) -> None:
        """Refuses a forked child at once: the model, and what other threads held, stayed behind.

        Raises:
            GenerationError: This process was forked after the model was loaded.
        """
        if self.backend.in_process and os.getpid() != self._process:
            raise GenerationError(FORKED)


def _asked(question: str, documents: Documents) -> tuple[list[Message], Documents]:
    """A question and its documents as ``chat`` takes them.

    Raises:
        ValueError: The question is no text.
        DocumentError: There are no documents: here, they are never left out.
    """
    if not isinstance(question, str):
        raise ValueError(
            f"the question must be a str, got {type(question).__name__}; a call looks like "
            "answer(question, documents)"
        )
    if documents is None:
        raise DocumentError(
            "documents must be a list of Document or str, got None; an empty list says that a "
            "search found nothing, and chat(messages) asks without documents"
        )
    return [{"role": "user", "content": question}], documents


def _pairs(questions: Any) -> Iterator[tuple[str, Documents]]:
    """The pairs of a batch, checked before the model runs.

    Raises:
        ValueError: It isn't a list of pairs.
    """
    wanted = "questions must be a list of (question, documents) pairs"
    if isinstance(questions, str | bytes | Mapping) or not isinstance(questions, Iterable):
        raise ValueError(f"{wanted}, got one {type(questions).__name__}")
    given = list(questions)
    for number, pair in enumerate(given):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            size = f" of {len(pair)}" if isinstance(pair, list | tuple) else ""
            raise ValueError(f"{wanted}; number {number} is a {type(pair).__name__}{size}")
    return iter(given)


def _output(
    tools: Sequence[Any] | None, choice: str | None, schema: Any, parallel: bool
) -> OutputRules | None:
    """What the answer has to look like; None: words."""
    if not tools and schema is None:
        if choice not in (None, "auto", "none"):
            raise ValueError(f"tool_choice {choice!r} needs tools")
        return None
    if tools is not None and not isinstance(tools, Iterable):
        raise ValueError(f"tools must be a list, got {type(tools).__name__}")
    specs = tuple(tool_spec(tool) for tool in tools or ())
    return OutputRules(specs, choice or "auto", schema, parallel)


def _close(streams: Iterable[AnswerStream]) -> None:
    for stream in streams:
        stream.close()


def _close_when_open(opening: asyncio.Task[Any]) -> None:
    """Closes what a task opens: a stream or a list of them; at once, or when it is done."""
    if opening.done():
        _close_late(opening)
    else:
        opening.add_done_callback(_close_late)


def _close_late(opening: asyncio.Task[Any]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opened = opening.result()
        _close(opened if isinstance(opened, list) else [opened])


def load_shared(model: str | os.PathLike[str] = "recallm-mini", **options: Any) -> RecaLLM:
    """Returns a loaded model; the same one for equal arguments while anyone holds it.

    Args:
        model: As in ``RecaLLM.load``.
        options: As in ``RecaLLM.load``.

    Raises:
        CheckpointError: The model can't be loaded.
    """
    told = f"{model}\0{sorted(options.items(), key=lambda item: item[0])!r}"
    key = hashlib.blake2b(told.encode("utf-8", "replace")).hexdigest()  # a key to a server is in it
    with _SHARING:
        found = _SHARED.get(key)
        if found is None:
            found = RecaLLM.load(model, **options)
            _SHARED[key] = found
        return found
