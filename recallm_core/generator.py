"""RecaLLM: a question and documents in, an answer with provable quotes out."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from types import MappingProxyType, TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from recallm_core import conversation
from recallm_core.abstention import abstained, evidence_support, says_nothing
from recallm_core.backends import Backend, GenerationRequest, Sampling, TokenStream
from recallm_core.citations import Answer
from recallm_core.constraint import Prior
from recallm_core.documents import Document, DocumentSet, Passage, check_text, collect
from recallm_core.errors import (
    ContextOverflowError,
    GenerationCancelledError,
    GenerationError,
    RecallmError,
)
from recallm_core.grammar import OutputRules, tool_spec
from recallm_core.linking import resolve
from recallm_core.packing import Pack, pack_everything
from recallm_core.params import GenerationParams
from recallm_core.prompt import Prompt, PromptBuilder
from recallm_core.reader_prior import ReaderPrior
from recallm_core.recipe import Recipe
from recallm_core.retrieval import CorpusIndex
from recallm_core.retrieval.packs import DEFAULT_BUDGET
from recallm_core.span_prior import SentencePrior
from recallm_core.tokenizer import Tokenizer
from recallm_core.trace import ToolCallDelta, TraceEvent
from recallm_core.trace_parser import TraceParser

_MOST_AT_ONCE = 10_000_000  # characters that are indexed for a single question: some 20 s
_SAMPLE = 50_000

Message = Mapping[str, str]


@runtime_checkable
class Packable(Protocol):
    """What packs its own documents for a question, such as a ``CorpusIndex``."""

    @property
    def documents(self) -> Mapping[str, Document]:
        """The full texts by id."""

    def pack_report(
        self,
        question: str,
        token_budget: int,
        count: Callable[[str], int],
        *,
        overhead: Callable[[Passage], int],
    ) -> Pack:
        """The most useful passages within a budget."""


Documents = Iterable[Document | str] | DocumentSet | Packable


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a stream: the complete, checked answer."""

    answer: Answer


Event = TraceEvent | ToolCallDelta | Finished


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
        self._builder = PromptBuilder(tokenizer, recipe, vocab_size=backend.vocab_size)
        self._building = threading.RLock()  # guards the builder's cache

    @classmethod
    def load(cls, model: str | os.PathLike[str] = "recallm-mini", **options: Any) -> RecaLLM:
        """Loads a model.

        Args:
            model: ``recallm-mini`` (shipped), a local folder, a hub id, or the address of a server
                (``recallm serve``).
            options: ``mode`` (``auto``, ``trained`` or ``prompted``), ``recipe``, ``backend``
                (``transformers`` or ``vllm``), ``device``, ``dtype`` and what else the backend's
                ``load`` takes.

        Raises:
            CheckpointError: The folder is missing, unsafe, or of a kind that can't be loaded.
            TokenizerError: The tokenizer can't give exact offsets.
            MissingExtraError: vLLM, or what a served model needs, isn't installed.
            ServerError: A server can't be reached, or doesn't hold its output to the constraint.
            ValueError: An argument is of the wrong kind.
        """
        from recallm_core.loader import load

        return load(model, **options)

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
        **settings: Any,
    ) -> Answer:
        """Answers a question from documents.

        Args:
            question: What to find out.
            documents: Documents, plain strings, or a ``CorpusIndex``. All of it is read where it
                fits the window; otherwise the passages that bear on the question are.
            params: Settings; single ones may be given by name instead.
            settings: Fields of ``GenerationParams``.

        Raises:
            ContextOverflowError: Question, history and output alone don't fit the model's window.
            DocumentError: A document can't be used as it is.
            GenerationError: The backend failed.
        """
        return self.chat(_ask(question), documents, params=params, **settings)

    def chat(
        self,
        messages: Sequence[Message],
        documents: Documents = (),
        *,
        tools: Sequence[Any] | None = None,
        tool_choice: str | None = None,
        response_schema: Any = None,
        parallel_tool_calls: bool = True,
        params: GenerationParams | None = None,
        **settings: Any,
    ) -> Answer:
        """Continues a conversation over documents; like ``answer``, with a history.

        Args:
            messages: ``{"role": "user" | "assistant" | "system", "content": text}``, the last one
                from the user.
            documents: What may be quoted.
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
        **settings: Any,
    ) -> AnswerStream:
        """Like ``answer``, as events while they happen; the last one is ``Finished``."""
        return self.stream_chat(_ask(question), documents, params=params, **settings)

    def stream_chat(
        self,
        messages: Sequence[Message],
        documents: Documents = (),
        *,
        tools: Sequence[Any] | None = None,
        tool_choice: str | None = None,
        response_schema: Any = None,
        parallel_tool_calls: bool = True,
        params: GenerationParams | None = None,
        **settings: Any,
    ) -> AnswerStream:
        """Like ``chat``, as events while they happen."""
        output = _output(tools, tool_choice, response_schema, parallel_tool_calls)
        prompt, sources = self.prepare(
            messages, documents, params=params, output=output, **settings
        )
        return AnswerStream(self, prompt, sources)

    def answer_batch(
        self,
        questions: Iterable[tuple[str, Documents]],
        *,
        params: GenerationParams | None = None,
        **settings: Any,
    ) -> list[Answer]:
        """Answers many questions, which share the backend's batches; order is kept."""
        streams: list[AnswerStream] = []
        try:
            for question, documents in _pairs(questions):
                streams.append(self.stream(question, documents, params=params, **settings))
            return [stream.result() for stream in streams]
        finally:
            for stream in streams:
                stream.close()

    async def aanswer(
        self,
        question: str,
        documents: Documents,
        *,
        params: GenerationParams | None = None,
        **settings: Any,
    ) -> Answer:
        """``answer`` without blocking the event loop; cancelling it stops the generation."""
        return await self.achat(_ask(question), documents, params=params, **settings)

    async def achat(
        self,
        messages: Sequence[Message],
        documents: Documents = (),
        *,
        tools: Sequence[Any] | None = None,
        tool_choice: str | None = None,
        response_schema: Any = None,
        parallel_tool_calls: bool = True,
        params: GenerationParams | None = None,
        **settings: Any,
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
        **settings: Any,
    ) -> AsyncGenerator[Event, None]:
        """``stream`` for asynchronous code."""
        return self.astream_chat(_ask(question), documents, params=params, **settings)

    async def astream_chat(
        self,
        messages: Sequence[Message],
        documents: Documents = (),
        *,
        tools: Sequence[Any] | None = None,
        tool_choice: str | None = None,
        response_schema: Any = None,
        parallel_tool_calls: bool = True,
        params: GenerationParams | None = None,
        **settings: Any,
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
        stream: AnswerStream | None = None
        try:
            stream = await asyncio.shield(opening)
            while True:
                events = await asyncio.to_thread(stream.next_events)
                if not events:
                    return
                for event in events:
                    yield event
        finally:
            if stream is not None:
                stream.close()
            else:
                opening.add_done_callback(_close_late)

    # preparing

    def count_tokens(self, text: str) -> int:
        """Tokens of a text as this model sees it."""
        check_text(text, "the text to count")
        with self._building:
            return self._builder.count(text)

    def _build(
        self,
        messages: Sequence[Message],
        passages: Sequence[Passage],
        chosen: GenerationParams,
        output: OutputRules | None = None,
    ) -> Prompt:
        with self._building:
            return self._builder.build(messages, passages, chosen, output)

    def prepare(
        self,
        messages: Sequence[Message],
        documents: Documents = (),
        *,
        params: GenerationParams | None = None,
        output: OutputRules | None = None,
        **settings: Any,
    ) -> tuple[Prompt, Mapping[str, Document]]:
        """Builds the prompt, and the documents its quotes come from, without calling the model.

        Tools and schemas are given as ``output``; the other arguments are those of ``chat``.

        Raises:
            ContextOverflowError: Prompt and output don't fit the window.
            ValueError: The question is empty, or a setting is out of range.
        """
        chosen = _params(params, settings)
        messages = _checked_messages(messages)
        passages, sources = self._passages(messages, documents, chosen, output)
        prompt = self._build(messages, passages, chosen, output)
        self._check_window(prompt)
        return prompt, _quotable(prompt, passages, sources)

    def _passages(
        self,
        messages: Sequence[Message],
        documents: Documents,
        chosen: GenerationParams,
        output: OutputRules | None,
    ) -> tuple[tuple[Passage, ...], Mapping[str, Document]]:
        budget = self._budget(messages, chosen, output)
        if isinstance(documents, Packable):
            return self._packed(documents, messages, budget).passages, documents.documents
        found = documents if isinstance(documents, DocumentSet) else collect(documents)
        sources = {document.id: document for document in found}
        pack = pack_everything(
            found,
            token_budget=budget,
            count=self.count_tokens,
            overhead=self._overhead,
        )
        if pack is None:
            self._check_size(found, budget)
            pack = self._packed(CorpusIndex.build(found), messages, budget)
        return pack.passages, sources

    def _check_size(self, documents: DocumentSet, budget: int) -> None:
        """Refuses what takes too long to index for a single question.

        Raises:
            ContextOverflowError: With an estimate of the tokens.
        """
        size = sum(len(document.text) for document in documents)
        if size > _MOST_AT_ONCE:
            sample = max(documents, key=lambda d: len(d.text)).text[:_SAMPLE]
            tokens = size * self.count_tokens(sample) // len(sample)
            window = self.backend.window
            raise ContextOverflowError(tokens + window - budget, 0, window)

    def _packed(self, index: Packable, messages: Sequence[Message], budget: int) -> Pack:
        """The passages that bear on the last question, within what the window leaves."""
        question = [m["content"] for m in messages if m.get("role") == "user"][-1]
        budget = min(DEFAULT_BUDGET, budget)
        known = {"tokens_key": self.tokenizer.fingerprint} if isinstance(index, CorpusIndex) else {}
        return index.pack_report(
            question, budget, self.count_tokens, overhead=self._overhead, **known
        )

    def _overhead(self, passage: Passage) -> int:
        with self._building:
            return self._builder.overhead(passage.title, document_id=passage.document_id)

    def _budget(
        self,
        messages: Sequence[Message],
        chosen: GenerationParams,
        output: OutputRules | None,
    ) -> int:
        """Tokens for passages: the window less wording, history and output.

        Raises:
            ContextOverflowError: Even without any passage the prompt doesn't fit.
        """
        empty = self._build(messages, (), chosen, output)
        self._check_window(empty)
        reserve = len(empty.token_ids) + (empty.params.max_new_tokens or 0)
        return self.backend.window - reserve

    def _check_window(self, prompt: Prompt) -> None:
        reserve = prompt.params.max_new_tokens or 0
        if len(prompt.token_ids) + reserve > self.backend.window:
            raise ContextOverflowError(len(prompt.token_ids), reserve, self.backend.window)


class AnswerStream:
    """The events of one answer; iterate, then take ``result``. Closing it stops the model."""

    def __init__(self, llm: RecaLLM, prompt: Prompt, sources: Mapping[str, Document]) -> None:
        self._llm = llm
        self._prompt = prompt
        self._sources = sources
        self._parser = TraceParser(prompt, llm.tokenizer)
        self._tokens: TokenStream = llm.backend.generate(_request(prompt, llm.backend))
        self._waiting: list[Event] = []
        self._answer: Answer | None = None
        self._over = False

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        if not self._waiting:
            self._waiting = self.next_events()
        if not self._waiting:
            raise StopIteration
        return self._waiting.pop(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def next_events(self) -> list[Event]:
        """Blocks until something happens and returns it; nothing once the answer is complete.

        Raises:
            GenerationError: The backend failed, or let something illegal through.
        """
        while not self._over:
            try:
                tokens = self._next_tokens()
                if self._over:  # closed meanwhile, from another thread
                    break
                events: list[Event] = list(self._parser.feed(tokens)) if tokens else []
                if not tokens or self._parser.stopped or self._parser.ended:
                    events.extend(self._finish())
            except BaseException:
                self.close()
                raise
            if events:
                return events
        return []

    def _next_tokens(self) -> tuple[int, ...]:
        """The next tokens of the backend; none: it is over."""
        try:
            return next(self._tokens, ())
        except RecallmError:
            raise
        except Exception as error:
            raise GenerationError(
                f"the backend failed while it generated: {type(error).__name__}: {error}"
            ) from error

    def _finish(self) -> list[Event]:
        reason = self._tokens.finish_reason or "stop"
        self._tokens.close()
        self._over = True
        events: list[Event] = list(self._parser.finish())
        if self._parser.stopped or self._parser.ended:
            reason = "stop"
        self._answer = self._make_answer(reason)
        return [*events, Finished(self._answer)]

    def _make_answer(self, reason: str) -> Answer:
        trace = self._parser.trace
        calls = self._parser.tool_calls
        said = says_nothing(trace, self._prompt.recipe.abstain)
        fit = evidence_support(self._prompt, trace)
        citations = resolve(trace, self._prompt.passages, self._sources, fallback=not said)
        return Answer(
            text=trace.answer,
            citations=citations,
            abstained=not calls and abstained(self._prompt, trace, citations, said=said, fit=fit),
            trace=trace,
            usage=self._parser.usage(cached_tokens=self._tokens.cached_tokens),
            finish_reason="tool_calls" if calls and reason == "stop" else reason,
            tool_calls=calls,
            cut_call=self._parser.cut_call,
            question=self._prompt.question,
            model=self._llm.name,
            sources=self._sources,
            support=fit,
        )

    def result(self) -> Answer:
        """Runs the stream to its end and returns the answer."""
        while not self._over:
            self.next_events()
        if self._answer is None:
            raise GenerationCancelledError("the stream was closed before the answer was complete")
        return self._answer

    def close(self) -> None:
        """Stops the model; safe to call at any time."""
        self._over = True
        self._tokens.close()


_PRIORS: Mapping[str | None, Callable[[Prompt], Prior]] = {
    "sentences": SentencePrior,
    "reader": ReaderPrior,
}


def _request(prompt: Prompt, backend: Backend) -> GenerationRequest:
    settings = prompt.params
    prior = None
    if settings.prior in _PRIORS and backend.in_process:
        prior = _PRIORS[settings.prior](prompt)
    return GenerationRequest(
        token_ids=prompt.token_ids,
        rules=prompt.rules,
        sampling=Sampling(
            max_new_tokens=settings.max_new_tokens or 1024,
            temperature=0.6 if settings.temperature is None else settings.temperature,
            top_p=0.95 if settings.top_p is None else settings.top_p,
            seed=settings.seed,
        ),
        prior=prior,
        prefix_length=prompt.prefix_length,
    )


def _ask(question: str) -> list[Message]:
    if not isinstance(question, str):
        raise ValueError(
            f"the question must be a str, got {type(question).__name__}; a call looks like "
            "answer(question, documents)"
        )
    return [{"role": "user", "content": question}]


def _params(params: GenerationParams | None, settings: Mapping[str, Any]) -> GenerationParams:
    base = GenerationParams() if params is None else params
    if not isinstance(base, GenerationParams):
        raise TypeError(
            f"params must be GenerationParams, got {type(base).__name__}; single settings may be "
            "given by name instead, for instance temperature=0"
        )
    unknown = sorted(set(settings) - set(GenerationParams.__slots__))
    if unknown:
        raise TypeError(f"unknown settings {unknown}; known: {sorted(GenerationParams.__slots__)}")
    return replace(base, **settings)


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


def _checked_messages(messages: Any) -> list[Message]:
    """The messages as a list that can be gone through more than once.

    Raises:
        ValueError: They are no conversation, or ask nothing.
        DocumentError: A content has a lone surrogate.
    """
    listed = isinstance(messages, Iterable) and not isinstance(messages, str | bytes | Mapping)
    given: list[Any] = list(messages) if listed else [messages]
    odd = given if not listed else [each for each in given if not isinstance(each, Mapping)]
    if odd:
        raise ValueError(
            'messages must be a list of {"role": ..., "content": ...}, got '
            f"{'' if not listed else 'a list with '}{type(odd[0]).__name__}; to ask a plain "
            "question use answer()"
        )
    asked = [each.get("content") for each in given if each.get("role") == "user"]
    if (
        asked
        and (asked[-1] is None or isinstance(asked[-1], str))
        and not (asked[-1] or "").strip()
    ):
        raise ValueError("the question is empty; ask something in the last user message")
    conversation.checked(given)
    return given


def _quotable(
    prompt: Prompt, passages: Sequence[Passage], documents: Mapping[str, Document]
) -> Mapping[str, Document]:
    """The documents that the prompt's passages, and the duplicates dropped for them, are from."""
    found: dict[str, Document] = {}
    for passage in passages:
        for key in (passage.document_id, *(copy.document_id for copy in passage.duplicates)):
            if key in documents:
                found[key] = documents[key]
    given = set(passages)
    for message in prompt.passages:  # messages are quotable in the whole-prompt scope
        if message not in given:
            found[message.document_id] = Document(message.text, message.document_id)
    return MappingProxyType(found)


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


def _close_late(opening: asyncio.Task[AnswerStream]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
