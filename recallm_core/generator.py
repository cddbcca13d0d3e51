"""RecaLLM: a question and documents in, an answer with provable quotes out."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, Unpack
from weakref import WeakValueDictionary

from recallm_core.answering.context import ContextBuilder, Documents, Message, unread
from recallm_core.answering.request import (
    ChatRequest,
    chat_request,
    pairs,
    question_request,
    takes,
)
from recallm_core.answering.stream import (
    AnswerStream,
    Event,
    Finished,
    ReplayBackend,
    SettledStream,
    unread_answer,
)
from recallm_core.answers.answer import Answer
from recallm_core.backends import Backend
from recallm_core.backends.checks import FORKED
from recallm_core.decoding.grammar import OutputRules
from recallm_core.documents.document import Document
from recallm_core.errors import GenerationError
from recallm_core.locks import ForkSafeLock
from recallm_core.prompting.params import (
    GenerationParams,
    ResolvedParams,
    Settings,
    with_settings,
)
from recallm_core.prompting.prompt import Prompt
from recallm_core.prompting.recipe import Recipe
from recallm_core.prompting.resolving import resolve
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
        self._context_builder = ContextBuilder(
            tokenizer, recipe, context_length=backend.window, vocab_size=backend.vocab_size
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
                folder or hub id), ``base`` (an adapter's) and what else the backend takes.

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

    @takes(question_request)
    def answer(self, request: ChatRequest) -> Answer:  # noqa: D417
        """Answers a question from documents.

        Args:
            question: What to find out.
            documents: Documents, plain strings, or a ``CorpusIndex``. All of it is read where it
                fits the context and the recipe's ``pack_tokens``; otherwise the passages that bear
                on the question are. Where there is nothing to read (an empty list, a search that
                found nothing), the answer is an abstention, and the model isn't asked.
            params: Settings; single ones may be given by name instead.
            settings: Fields of ``GenerationParams``.

        Raises:
            ContextOverflowError: Question, history and output alone don't fit the context length.
            DocumentError: A document can't be used as it is.
            GenerationError: The backend failed.
        """
        return self._answer(request)

    @takes(chat_request)
    def chat(self, request: ChatRequest) -> Answer:  # noqa: D417
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
        return self._answer(request)

    @takes(question_request)
    def stream(self, request: ChatRequest) -> AnswerStream:
        """Like ``answer``, as events while they happen; the last one is ``Finished``."""
        return self._open(request)

    @takes(chat_request)
    def stream_chat(self, request: ChatRequest) -> AnswerStream:
        """Like ``chat``, as events while they happen."""
        return self._open(request)

    @takes(question_request)
    async def aanswer(self, request: ChatRequest) -> Answer:
        """``answer`` without blocking the event loop; cancelling it stops the generation."""
        return await self._aanswer(request)

    @takes(chat_request)
    async def achat(self, request: ChatRequest) -> Answer:
        """``chat`` without blocking the event loop; cancelling it stops the generation."""
        return await self._aanswer(request)

    @takes(question_request)
    def astream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """``stream`` for asynchronous code; leaving the loop stops the generation."""
        return self._events(request)

    @takes(chat_request)
    def astream_chat(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """``stream_chat`` for asynchronous code; leaving the loop stops the generation."""
        return self._events(request)

    def _answer(self, request: ChatRequest) -> Answer:
        with self._open(request) as stream:
            return stream.result()

    async def _aanswer(self, request: ChatRequest) -> Answer:
        async with aclosing(self._events(request)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    return event.answer
        raise GenerationError("the stream ended without an answer")

    def _open(self, request: ChatRequest) -> AnswerStream:
        """Sets the model to work."""
        output = request.output()
        prompt, sources = self._prepare(
            request.messages, request.documents, request.all_settings(), output
        )
        empty = unread(prompt, request.documents)
        if empty and (output is None or output.words_only):
            return SettledStream(unread_answer(prompt, sources, name=self.name))
        return AnswerStream(
            self.tokenizer, self.backend, prompt, sources, name=self.name, unread=empty
        )

    async def _events(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        opening = asyncio.create_task(asyncio.to_thread(self._open, request))
        try:
            stream = await asyncio.shield(opening)
            while events := await asyncio.to_thread(stream.next_events):
                for event in events:
                    yield event
        finally:
            _close_when_open(opening)

    # batches

    def answer_batch(
        self,
        questions: Iterable[tuple[str, Documents]],
        *,
        params: GenerationParams | None = None,
        **settings: Unpack[Settings],
    ) -> list[Answer]:
        """Answers many questions, which share the backend's batches; order is kept."""
        streams = self._open_all(pairs(questions), params, settings)
        try:
            return [stream.result() for stream in streams]
        finally:
            _close(streams)

    async def aanswer_batch(
        self,
        questions: Iterable[tuple[str, Documents]],
        *,
        params: GenerationParams | None = None,
        **settings: Unpack[Settings],
    ) -> list[Answer]:
        """``answer_batch`` without blocking the event loop; cancelling it stops all of them."""
        batch = list(pairs(questions))
        opening = asyncio.create_task(asyncio.to_thread(self._open_all, batch, params, settings))
        try:
            streams = await asyncio.shield(opening)
            return [await asyncio.to_thread(stream.result) for stream in streams]
        finally:
            _close_when_open(opening)

    def _open_all(
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
        replayed = ReplayBackend(token_ids, prompt.spec.eos)
        return AnswerStream(self.tokenizer, replayed, prompt, sources, name=self.name).result()

    # preparing

    def count_tokens(self, text: str) -> int:
        """Tokens of a text as this model sees it."""
        self._check_process()
        return self._context_builder.count_tokens(text)

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
            ContextOverflowError: Prompt and output don't fit the model's context length.
            GenerationError: This process was forked after the model was loaded.
            ValueError: The question is empty, or a setting is out of range.
        """
        return self._prepare(messages, documents, with_settings(params, settings), output)

    def _prepare(
        self,
        messages: Sequence[Message],
        documents: Documents | None,
        params: GenerationParams,
        output: OutputRules | None,
    ) -> tuple[Prompt, Mapping[str, Document]]:
        self._check_process()
        return self._context_builder.prepare(messages, documents, params, output)

    def resolve(
        self, params: GenerationParams | None = None, **settings: Unpack[Settings]
    ) -> ResolvedParams:
        """Returns what holds for an answer in words: the settings, then the recipe's, then ours.

        Args:
            params: Settings; single ones may be given by name instead.
            settings: Fields of ``GenerationParams``.

        Raises:
            TypeError: A setting isn't known.
            ValueError: A setting is out of range.
        """
        return resolve(with_settings(params, settings), self.recipe)

    def _check_process(self) -> None:
        """Refuses a forked child at once: the model, and what other threads held, stayed behind.

        Raises:
            GenerationError: This process was forked after the model was loaded.
        """
        if self.backend.in_process and os.getpid() != self._process:
            raise GenerationError(FORKED)


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
    arguments = f"{model}\0{sorted(options.items(), key=lambda item: item[0])!r}"
    key = hashlib.blake2b(arguments.encode("utf-8", "replace")).hexdigest()  # it may hold a secret
    with _SHARING:
        shared = _SHARED.get(key)
        if shared is None:
            shared = _SHARED[key] = RecaLLM.load(model, **options)
        return shared
