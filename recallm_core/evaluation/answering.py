"""The ways to answer an item: a model under a condition, or a baseline without one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from recallm_core.answering.stream import request_of
from recallm_core.answers.answer import Answer
from recallm_core.backends import Backend, FinishReason, GenerationRequest, TokenStream
from recallm_core.decoding.constraint import Constraint, ConstraintRules, Prior
from recallm_core.evaluation.heuristic import heuristic_answer
from recallm_core.evaluation.items import Item
from recallm_core.evaluation.unconstrained import FreeReader, free_rules
from recallm_core.evidence.answer_types import typed_candidates
from recallm_core.evidence.sentence_scorer import support
from recallm_core.generator import RecaLLM
from recallm_core.prompting.params import GenerationParams
from recallm_core.prompting.prompt import Prompt
from recallm_core.retrieval.embedding import default_embedder
from recallm_core.text.lexical import sentences

_SAID_SO = 10.0  # an answer that says that nothing is there ranks below every other


@dataclass(frozen=True, slots=True)
class Quote:
    """What is offered as evidence; ``document`` is empty where no place is known."""

    text: str
    document: str
    exact: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one item.

    Attributes:
        answer: The answer's text.
        evidence: The quotes that support it.
        spans: All recalled spans of the output.
        verbatim: How many of them stand in the documents as they were given.
        abstained: Whether it counts as "the documents hold no answer".
        answerability: How much speaks for an answer in the documents; only the order counts.
        prompt_tokens: Tokens read.
        cached_tokens: Of these, tokens that a cache spared.
        output_tokens: Tokens written.
        first_token_seconds: From the call to the first token.
        seconds: From the call to the end.
        finish_reason: As in ``Answer``.
    """

    answer: str
    evidence: tuple[Quote, ...]
    spans: int = 0
    verbatim: int = 0
    abstained: bool = False
    answerability: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    first_token_seconds: float = 0.0
    seconds: float = 0.0
    finish_reason: str = "stop"


class Way(Protocol):
    """Answers items in one way."""

    def __call__(self, item: Item) -> Outcome:
        """Returns what came of an item."""


class _TimedStream:
    """A token stream that knows when its first token came; it may begin with given tokens."""

    def __init__(self, stream: TokenStream, opening: tuple[int, ...] = ()) -> None:
        self._stream = stream
        self._opening = opening
        self.first_at: float | None = None

    @property
    def cached_tokens(self) -> int:
        return self._stream.cached_tokens

    @property
    def finish_reason(self) -> FinishReason | None:
        return self._stream.finish_reason

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        return self

    def __next__(self) -> tuple[int, ...]:
        opening, self._opening = self._opening, ()
        if opening:
            return opening
        tokens = next(self._stream)
        if self.first_at is None:
            self.first_at = time.perf_counter()
        return tokens

    def close(self) -> None:
        self._stream.close()


class _Begun(ConstraintRules):
    """Rules whose sequences have written some tokens already."""

    def __init__(self, rules: ConstraintRules, opening: tuple[int, ...]) -> None:
        super().__init__(rules.spec, rules.index, rules.engine)
        self._opening = opening

    def start(self, prior: Prior | None = None) -> Constraint:
        """Returns the state after those tokens."""
        state = super().start(prior)
        for token in self._opening:
            state.consume(token)
        return state


class WatchedBackend:
    """A backend that is timed, and whose outputs can be made to begin with something.

    Attributes:
        words: Tokens that stand at the end of the prompt, as if they had been written.
        opens: Whether the mark of a span follows; it counts as output.
        stream: The last stream.
    """

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self.words: Sequence[int] = ()
        self.opens = False
        self.stream: _TimedStream | None = None

    @property
    def window(self) -> int:
        """What is left of the context length beside the words."""
        return self._inner.window - len(self.words)

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""
        return self._inner.vocab_size

    @property
    def in_process(self) -> bool:
        """As the backend says."""
        return self._inner.in_process

    def generate(self, request: GenerationRequest) -> _TimedStream:
        """Passes a request on, with the beginning of its output."""
        opening = request.rules.spec.open.ids if self.opens else ()
        begun = np.array([*self.words, *opening], dtype=np.int32)
        begun_request = replace(
            request,
            token_ids=np.concatenate([request.token_ids, begun]),
            rules=_Begun(request.rules, opening) if opening else request.rules,
        )
        self.stream = _TimedStream(self._inner.generate(begun_request), opening)
        return self.stream

    def close(self) -> None:
        """Nothing: the backend belongs to someone else."""


class ByModel:
    """A model under the constraint, with a prior by name."""

    def __init__(self, llm: RecaLLM, params: GenerationParams) -> None:
        self._backend = WatchedBackend(llm.backend)
        self._llm = RecaLLM(llm.tokenizer, self._backend, llm.recipe, name=llm.name)
        self._params = params

    def __call__(self, item: Item) -> Outcome:
        """Answers as a user would be answered, and checks every quote against its document."""
        self._backend.words = _tokens(self._llm, item.reasoning)
        self._backend.opens = item.opens
        began = time.perf_counter()
        answer = self._llm.answer(item.question, list(item.documents), params=self._params)
        ended = time.perf_counter()
        watched = self._backend.stream
        first = ended if watched is None or watched.first_at is None else watched.first_at
        texts = {d.id: d.text for d in item.documents}
        spans = [(s.document_id, s.start, s.end, s.text) for s in answer.trace.spans]
        return Outcome(
            answer=answer.text,
            evidence=tuple(
                Quote(c.text, c.document_id, texts[c.document_id][c.start : c.end] == c.text)
                for c in answer.citations
            ),
            spans=len(spans),
            verbatim=sum(texts[d][a:b] == text for d, a, b, text in spans),
            abstained=answer.abstained,
            answerability=answerability(answer),
            prompt_tokens=answer.usage.prompt_tokens,
            cached_tokens=answer.usage.cached_tokens,
            output_tokens=answer.usage.output_tokens,
            first_token_seconds=first - began,
            seconds=ended - began,
            finish_reason=answer.finish_reason,
        )


class ByFreeModel:
    """A model whose spans may hold anything; see ``unconstrained``."""

    def __init__(self, llm: RecaLLM, params: GenerationParams) -> None:
        self._llm = llm
        self._backend = WatchedBackend(llm.backend)
        self._params = replace(params, prior="none")

    def __call__(self, item: Item) -> Outcome:
        """Answers without the constraint, and looks which spans stand in a document."""
        self._backend.words = _tokens(self._llm, item.reasoning)
        self._backend.opens = item.opens
        began = time.perf_counter()
        prompt, _ = self._llm.prepare(
            [{"role": "user", "content": item.question}], item.documents, params=self._params
        )
        rules = free_rules(prompt)
        stream = self._backend.generate(request_of(prompt, self._backend, rules))
        tokens = [token for some in stream for token in some]
        ended = time.perf_counter()
        output = FreeReader(prompt, rules, self._llm.tokenizer).read(tokens)
        quotes = [_quote_of(text, item) for text in output.spans]
        return Outcome(
            answer=output.answer,
            evidence=tuple(quotes),
            spans=len(quotes),
            verbatim=sum(quote.exact for quote in quotes),
            prompt_tokens=len(prompt.token_ids),
            cached_tokens=stream.cached_tokens,
            output_tokens=output.tokens,
            first_token_seconds=(stream.first_at or ended) - began,
            seconds=ended - began,
            finish_reason=stream.finish_reason or "stop",
        )


def _tokens(llm: RecaLLM, text: str) -> list[int]:
    return llm.tokenizer.encode_plain(text).ids.tolist() if text else []


def _quote_of(text: str, item: Item) -> Quote:
    """A span as a quote of the first document that holds it, the gold one before all others."""
    documents = sorted(item.documents, key=lambda document: document.id != item.gold_id)
    holding = [d.id for d in documents if text and text in d.text]
    return Quote(text, holding[0] if holding else "", bool(holding))


def answerability(answer: Answer) -> float:
    """Returns how much speaks for the documents holding an answer.

    That is ``Answer.support``. Without a prior it is ``sentence_scorer.support`` of what was
    recalled while thinking (all spans where none was): words and meaning shared with the question.
    An answer marked as abstained ranks below all others.
    """
    return _fit(answer) - _SAID_SO * answer.abstained


def _fit(answer: Answer) -> float:
    if answer.support is not None:
        return answer.support
    thought = [span for span in answer.trace.spans if span.section != "answer"]
    spans = thought or list(answer.trace.spans)
    title = answer.sources[spans[-1].document_id].title if spans else None
    texts = [span.text for span in spans]
    return support(answer.question, texts, title, embedder=default_embedder())


class ByPrior:
    """A prior alone: the sentence that it likes best, and a piece of it by the question's type."""

    def __init__(self, llm: RecaLLM, params: GenerationParams) -> None:
        self._llm = llm
        self._params = params

    def __call__(self, item: Item) -> Outcome:
        """Answers from the scores that the prior gives to the places of the prompt."""
        prompt, _ = self._llm.prepare(
            [{"role": "user", "content": item.question}], item.documents, params=self._params
        )
        best = _likeliest(prompt)
        if best is None:
            return Outcome("", ())
        passage, start, end = best
        source = prompt.passages[passage]
        sentence = source.text[start:end]
        first, last = next(typed_candidates(item.question, sentence), (0, len(sentence)))
        fit = support(item.question, [sentence], source.title, embedder=default_embedder())
        quote = Quote(sentence, source.document_id, True)
        return Outcome(sentence[first:last], (quote,), answerability=fit)


def _likeliest(prompt: Prompt) -> tuple[int, int, int] | None:
    """The sentence (passage, start, end) in which the prior would have a span begin."""
    prior = prompt.spec.prior
    if prior is None or not len(prior):
        return None
    at = int(np.argmax(np.where(prompt.spec.can_start, prior, -np.inf)))
    for run in prompt.runs:
        if at < len(run.starts):
            text = prompt.passages[run.passage].text
            place = int(run.ends[at]) - 1
            holding = [(a, b) for a, b in sentences(text) if a <= place < b]
            return (run.passage, *holding[0]) if holding else None
        at -= len(run.starts)
    return None


class ByHeuristic:
    """The baseline to beat; see ``heuristic``."""

    def __call__(self, item: Item) -> Outcome:
        """Answers from words alone."""
        texts = [document.text for document in item.documents]
        titles = [document.title for document in item.documents]
        guess = heuristic_answer(item.question, texts, titles)
        if guess is None:
            return Outcome("", ())
        document = item.documents[guess.passage]
        sentence = document.text[guess.start : guess.end]
        fit = support(item.question, [sentence], document.title, embedder=default_embedder())
        return Outcome(guess.answer, (Quote(sentence, document.id, True),), answerability=fit)
