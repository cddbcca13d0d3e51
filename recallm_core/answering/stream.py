"""One answer as it comes: the model's tokens in, events and at last the checked answer out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from recallm_core.answering.holding import AnswerGate
from recallm_core.answers.abstention import Judge
from recallm_core.answers.answer import Answer, Usage
from recallm_core.answers.trace import AnswerDelta, AnswerText, ToolCallDelta, Trace, TraceEvent
from recallm_core.answers.trace_parser import TraceParser
from recallm_core.backends import (
    Backend,
    FinishReason,
    GenerationRequest,
    Sampling,
    TokenStream,
)
from recallm_core.decoding.constraint import ConstraintRules
from recallm_core.documents.document import Document
from recallm_core.errors import GenerationCancelledError, GenerationError, RecallmError
from recallm_core.prompting.prompt import Prompt
from recallm_core.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a stream: the complete, checked answer."""

    answer: Answer


Event = TraceEvent | ToolCallDelta | Finished


class AnswerStream:
    """The events of one answer; iterate, then take ``result``. Closing it stops the model.

    Args:
        tokenizer: The model's.
        backend: Runs the model; it begins at once.
        prompt: What it continues.
        sources: The documents, by id, that quotes are resolved in.
        name: The model's, shown in the answer.
        unread: Whether documents were given and hold nothing to read: then words are no answer.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        backend: Backend,
        prompt: Prompt,
        sources: Mapping[str, Document],
        *,
        name: str,
        unread: bool = False,
    ) -> None:
        self._name = name
        self._unread = unread
        self._prompt = prompt
        self._sources = sources
        parser = self._parser = TraceParser(prompt, tokenizer)
        self._judge = Judge(prompt, sources)
        self._gate = AnswerGate(self._judge, lambda: parser.trace)
        self._tokens: TokenStream = backend.generate(request_of(prompt, backend))
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
                parsed = self._parser.feed(tokens) if tokens else []
                events: list[Event] = [*self._gate.let_through(parsed)]
                if not tokens or self._parser.has_stopped or self._parser.has_ended:
                    events.extend(self._finish())
            except BaseException:
                self.close()
                raise
            if events:
                return events
        return []

    def _next_tokens(self) -> tuple[int, ...]:
        """The backend's next tokens; an empty tuple means that generation has finished."""
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
        events: list[Event] = [*self._gate.let_through(self._parser.finish())]
        if self._parser.has_stopped or self._parser.has_ended:
            reason = "length" if self._parser.has_looped else "stop"
        self._answer = self._make_answer(reason)
        if self._unread and not self._answer.tool_calls:
            self._answer = self._without_evidence(self._answer)
        return [*events, *self._gate.end(self._answer), Finished(self._answer)]

    def _without_evidence(self, answer: Answer) -> Answer:
        """An answer over nothing: no words of the model's, but JSON where that was asked for."""
        grammar = self._prompt.spec.grammar
        as_json = grammar is not None and grammar.answer is not None
        text = answer.text if as_json or answer.cut_call else self._prompt.recipe.abstain[0]
        return replace(answer, text=text, abstained=True, citations=())

    def _make_answer(self, reason: str) -> Answer:
        trace = self._parser.trace
        calls = self._parser.tool_calls
        verdict = self._judge.verdict(trace, calls=bool(calls))
        return Answer(
            text=verdict.text,
            citations=verdict.citations,
            abstained=verdict.abstained,
            nearest=verdict.nearest,
            trace=trace,
            usage=self._parser.usage(cached_tokens=self._tokens.cached_tokens),
            finish_reason="tool_calls" if calls and reason == "stop" else reason,
            tool_calls=calls,
            cut_call=self._parser.cut_call,
            question=self._prompt.question,
            model=self._name,
            sources=self._sources,
            support=verdict.support,
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


class SettledStream(AnswerStream):
    """The events of an answer that is known without the model: its text, then ``Finished``.

    Args:
        answer: The answer.
    """

    def __init__(self, answer: Answer) -> None:
        self._waiting = [AnswerDelta(answer.text), Finished(answer)]
        self._answer = answer
        self._over = True

    def next_events(self) -> list[Event]:
        """Returns what hasn't been handed out."""
        events, self._waiting = self._waiting, []
        return events

    def close(self) -> None:
        """Drops what hasn't been handed out."""
        self._waiting = []


class ReplayBackend:
    """A backend, and its one stream, whose output is known: that of somebody's own loop.

    Args:
        token_ids: The output.
        eos: What ends it; anything behind the first is padding.
    """

    in_process, window, vocab_size, cached_tokens = False, 0, 0, 0

    def __init__(self, token_ids: Iterable[int], eos: Sequence[int]) -> None:
        tokens = [int(token) for token in token_ids]
        end = next((n for n, token in enumerate(tokens, 1) if token in eos), None)
        self.finish_reason: FinishReason = "length" if end is None else "stop"
        self._rest = tokens[:end]

    def generate(self, request: GenerationRequest) -> ReplayBackend:
        """Returns itself."""
        return self

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        return self

    def __next__(self) -> tuple[int, ...]:
        tokens, self._rest = tuple(self._rest), []
        if not tokens:
            raise StopIteration
        return tokens

    def close(self) -> None:
        """Drops what is left."""
        self._rest = []


def unread_answer(prompt: Prompt, sources: Mapping[str, Document], *, name: str) -> Answer:
    """Returns the answer where documents were given and hold nothing to read: an abstention."""
    phrase = prompt.recipe.abstain[0]
    return Answer(
        text=phrase,
        citations=(),
        abstained=True,
        trace=Trace((AnswerText(phrase),)),
        usage=Usage(),
        finish_reason="stop",
        question=prompt.question,
        model=name,
        sources=sources,
    )


def request_of(
    prompt: Prompt, backend: Backend, rules: ConstraintRules | None = None
) -> GenerationRequest:
    """Returns what is asked of a backend.

    Args:
        prompt: What it continues.
        backend: The backend; one in this process has the evidence scored again after each quote.
        rules: Hold the output instead of the prompt's; then nothing is scored.
    """
    params, evidence = prompt.params, prompt.evidence
    rescores = rules is None and evidence is not None and backend.in_process
    return GenerationRequest(
        token_ids=prompt.token_ids,
        rules=rules or prompt.rules,
        sampling=Sampling(params.max_new_tokens, params.temperature, params.top_p, params.seed),
        prior=evidence.bias if evidence is not None and rescores else None,
        prefix_length=prompt.prefix_length,
    )
