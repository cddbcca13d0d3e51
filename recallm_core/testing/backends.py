"""Backends without a model: one follows a script, one says anything that is legal."""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from recallm_core.backends import FinishReason, GenerationRequest
from recallm_core.decoding.constraint import Constraint, Mask
from recallm_core.errors import GenerationError
from recallm_core.locks import ForkSafeLock
from recallm_core.testing.scripts import follow
from recallm_core.testing.tokenizer import ByteTokenizer

Script = str | Callable[[str], str]


class _Backend:
    """What the stand-ins have in common: a tokenizer, a context length, and a record of their use.

    Attributes:
        requests: Every request, in order.
        closed_streams: How many streams were closed, or dropped, before their end.
    """

    in_process = True

    def __init__(
        self,
        *,
        tokenizer: ByteTokenizer | None = None,
        window: int = 1_000_000,
        tokens_per_chunk: int = 1,
        fail_after: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer or ByteTokenizer()
        self.vocab_size = self.tokenizer.vocab_size
        self.window = window
        self.requests: list[GenerationRequest] = []
        self.closed_streams = 0
        self.chunk = max(1, tokens_per_chunk)
        self.fail_after = fail_after
        self._lock = ForkSafeLock()

    def generate(self, request: GenerationRequest) -> ScriptedStream:
        """Starts a stream; nothing is computed before it is read."""
        with self._lock:
            self.requests.append(request)
            number = len(self.requests) - 1
        return ScriptedStream(self, request, self._tokens(request, number))

    def _tokens(self, request: GenerationRequest, number: int) -> Iterator[int]:
        raise NotImplementedError

    def note_closed(self) -> None:
        """Counts a stream that was closed early."""
        with self._lock:
            self.closed_streams += 1

    def close(self) -> None:
        """Nothing to free."""


class ScriptedBackend(_Backend):
    """A model that follows a script as far as the constraint lets it.

    Args:
        script: What to say, or a function of the question's prompt text that returns it. Control
            tokens are written out: ``<|start_recall|>words of a document<|end_recall|></think>The
            answer.``; a model driven by text marks writes its own marks in their place. Anything
            after the script is end-of-sequence. Where the constraint forbids a token of the script,
            it is skipped; a span that can't be closed yet goes on along the nearest legal token
            until it may close. Where the evidence policy forces a span open that the script
            doesn't have, the stand-in quotes the first sentence that it may, and goes on.
            JSON (of a schema, or a tool call) may have any white space between
            its values; where it doesn't fit otherwise, ``GenerationError`` names the place.
        tokenizer: Its tokenizer.
        window: The context length: tokens of input and output together.
        tokens_per_chunk: How many tokens a stream yields at once.
        fail_after: Raise after this many tokens, to test error handling.
    """

    def __init__(self, script: Script = "", **options: Any) -> None:
        super().__init__(**options)
        self._script = script

    def _tokens(self, request: GenerationRequest, number: int) -> Iterator[int]:
        script = self._script
        if not isinstance(script, str):
            known = (self.tokenizer.token_bytes(t) or b"" for t in request.token_ids.tolist())
            script = script(b"".join(known).decode("utf-8", "replace"))
        return follow(request.rules.start(request.prior), script, self.tokenizer)


class RandomBackend(_Backend):
    """A model that says anything that is legal: seeded, uniform over the legal tokens.

    Args:
        seed: Equal seeds and equal requests in equal order give equal outputs; the seed of a
            request's sampling replaces it.
        marks: How often it goes for a mark (opening, closing, end of thinking) where it could;
            uniform choice alone would hardly ever write one.
        tokenizer: Its tokenizer.
        window: The context length: tokens of input and output together.
        tokens_per_chunk: How many tokens a stream yields at once.
        fail_after: Raise after this many tokens, to test error handling.
    """

    def __init__(self, seed: int = 0, *, marks: float = 0.1, **options: Any) -> None:
        super().__init__(**options)
        self._seed = seed
        self._marks = marks

    def _tokens(self, request: GenerationRequest, number: int) -> Iterator[int]:
        seed = request.sampling.seed
        source = random.Random(f"{self._seed}:{number}" if seed is None else seed)
        return random_walk(request.rules.start(request.prior), source, marks=self._marks)


class ScriptedStream:
    """The tokens of one request to a stand-in."""

    cached_tokens = 0

    def __init__(
        self, backend: _Backend, request: GenerationRequest, tokens: Iterator[int]
    ) -> None:
        self.finish_reason: FinishReason | None = None
        self._backend = backend
        self._left = request.sampling.max_new_tokens
        self._tokens = tokens
        self._given = 0
        self._drop = weakref.finalize(self, backend.note_closed)
        self._drop.atexit = False

    def __iter__(self) -> ScriptedStream:
        return self

    def __next__(self) -> tuple[int, ...]:
        out: list[int] = []
        while self.finish_reason is None and len(out) < self._backend.chunk:
            if self._given == self._backend.fail_after:
                raise GenerationError("the stand-in failed, as it was told to")
            token = next(self._tokens, None)
            if token is None:
                self._end("stop")
                break
            self._given += 1
            out.append(token)
            if token in self._backend.tokenizer.eos_ids:
                self._end("stop")
            elif self._given >= self._left:
                self._end("length")
        if not out:
            raise StopIteration
        return tuple(out)

    def _end(self, reason: FinishReason) -> None:
        if self.finish_reason is None:
            self.finish_reason = reason
        self._drop.detach()

    def close(self) -> None:
        """Ends the stream."""
        if self.finish_reason is None:
            self.finish_reason = "cancelled"
        self._drop()


def random_walk(
    constraint: Constraint, source: random.Random, *, marks: float = 0.1
) -> Iterator[int]:
    """Consumes and yields random legal tokens until the end of the output.

    Args:
        constraint: Where to walk from; it moves along.
        source: The randomness.
        marks: How often a mark is begun where that is legal.
    """
    spec = constraint.rules.spec
    goals = [*[spec.open.ids] * 8, spec.close.ids, spec.eos[:1]]
    if spec.think_close is not None:
        goals.append(spec.think_close.ids)
    plan: list[int] = []
    while not constraint.done:
        mask = constraint.mask()
        if not plan and source.random() < marks:
            plan = list(spec.close.ids if constraint.in_span else source.choice(goals))
        token = plan.pop(0) if plan else -1
        if token < 0 or not mask.allows(token):
            plan = []
            token = _any_legal(mask, spec.vocab_size, source)
        constraint.consume(token)
        yield token


def _any_legal(mask: Mask, vocab_size: int, source: random.Random) -> int:
    if mask.only is not None:
        return int(source.choice(mask.only))
    while True:
        token = source.randrange(vocab_size)
        if mask.allows(token):
            return token
