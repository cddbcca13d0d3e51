"""One answer as it comes: the model's tokens in, events and at last the checked answer out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from recallm_core.abstention import Judge
from recallm_core.backends import Backend, GenerationRequest, Sampling, TokenStream
from recallm_core.citations import Answer
from recallm_core.constraint import Prior
from recallm_core.documents import Document
from recallm_core.errors import GenerationCancelledError, GenerationError, RecallmError
from recallm_core.holding import AnswerGate
from recallm_core.prompt import Prompt
from recallm_core.reader_prior import ReaderPrior
from recallm_core.span_prior import SentencePrior
from recallm_core.tokenizer import Tokenizer
from recallm_core.trace import ToolCallDelta, TraceEvent
from recallm_core.trace_parser import TraceParser


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
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        backend: Backend,
        prompt: Prompt,
        sources: Mapping[str, Document],
        *,
        name: str,
    ) -> None:
        self._name = name
        self._prompt = prompt
        self._sources = sources
        parser = self._parser = TraceParser(prompt, tokenizer)
        self._judge = Judge(prompt, sources)
        self._gate = AnswerGate(self._judge, lambda: parser.trace)
        self._tokens: TokenStream = backend.generate(_request(prompt, backend))
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
                found = self._parser.feed(tokens) if tokens else []
                events: list[Event] = [*self._gate.let_through(found)]
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
        events: list[Event] = [*self._gate.let_through(self._parser.finish())]
        if self._parser.stopped or self._parser.ended:
            reason = "stop"
        self._answer = self._make_answer(reason)
        return [*events, *self._gate.end(self._answer), Finished(self._answer)]

    def _make_answer(self, reason: str) -> Answer:
        trace = self._parser.trace
        calls = self._parser.tool_calls
        found = self._judge.verdict(trace, calls=bool(calls))
        return Answer(
            text=found.text,
            citations=found.citations,
            abstained=found.abstained,
            nearest=found.nearest,
            trace=trace,
            usage=self._parser.usage(cached_tokens=self._tokens.cached_tokens),
            finish_reason="tool_calls" if calls and reason == "stop" else reason,
            tool_calls=calls,
            cut_call=self._parser.cut_call,
            question=self._prompt.question,
            model=self._name,
            sources=self._sources,
            support=found.support,
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
