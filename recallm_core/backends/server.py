"""A model behind a vLLM server over HTTP: token ids out and in, streamed, cancellable, pooled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import aclosing
from typing import Any

from recallm_core.backends import FinishReason, GenerationRequest, Sampling
from recallm_core.backends.checks import check_request
from recallm_core.backends.connection import Connection
from recallm_core.backends.stream import EngineStream, Job
from recallm_core.backends.wire import COMPLETIONS_PATH, Piece, completion, events, read_event
from recallm_core.errors import (
    ConstraintError,
    GenerationCancelledError,
    RecallmError,
    ServerError,
)

_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class ServerBackend:
    """A served model; safe to call from many threads, its requests share the server's batches.

    ``recallm_core.models.served.connect`` makes one from an address, and checks the server.

    Args:
        connection: The way to the server.
        model: The name under which the model is served.
        window: Tokens that it can attend to, input and output together.
        vocab_size: Width of its logits.
        cache_salt: Only requests with the same salt share the server's prefix cache.
    """

    in_process = False

    def __init__(
        self,
        connection: Connection,
        *,
        model: str,
        window: int,
        vocab_size: int,
        cache_salt: str | None = None,
    ) -> None:
        self.connection = connection
        self.model = model
        self.window = window
        self.vocab_size = vocab_size
        self.about: dict[str, str] = {}
        """What is known of the server: ``engine``, ``runner``, ``model``, ``release``."""
        self._salt = cache_salt

    def __repr__(self) -> str:
        return f"ServerBackend({self.connection.url!r}, model={self.model!r})"

    def generate(self, request: GenerationRequest) -> EngineStream:
        """Sends a request and returns its stream at once; failures are raised by the stream.

        Raises:
            ContextOverflowError: Prompt and output don't fit the window.
            ConstraintError: The rules are for another vocabulary, or want a prior recomputed.
            ValueError: The prompt is empty, or a sampling value is out of range.
        """
        check_request(request, vocab_size=self.vocab_size, window=self.window)
        if request.prior is not None:
            raise ConstraintError(
                "a prior that is recomputed after each recall needs the model in this process; "
                "leave GenerationRequest.prior out and the static scores of the spec are used"
            )
        job = _ServedJob(request)
        stream = EngineStream(job, self)
        job.future = self.connection.start(self._generate(job, self._body(request)))
        return stream

    async def _generate(self, job: _ServedJob, body: bytes) -> None:
        """Fills one stream; runs on the connection's loop."""
        try:
            await self._fill(job, body)
        except asyncio.CancelledError:
            job.end(
                None, GenerationCancelledError("the server's connection was closed before the end")
            )
            raise
        except RecallmError as error:
            job.end(None, error)
        except Exception as error:  # a fault of this library: nobody must wait for ever
            job.end(
                None, ServerError(f"reading the answer failed: {type(error).__name__}: {error}")
            )

    def _body(self, request: GenerationRequest) -> bytes:
        spec = request.rules.spec
        return json.dumps(
            completion(
                self.model,
                request.token_ids.tolist(),
                request.sampling,
                eos=spec.eos,
                spec=spec.to_json(),
                cache_salt=self._salt,
            )
        ).encode()

    async def _fill(self, job: _ServedJob, body: bytes) -> None:
        prompt: list[int] = job.request.token_ids.tolist()
        eos = job.request.rules.spec.eos
        left = job.request.sampling.max_new_tokens
        echoed, reason = False, None
        last: list[int] = []
        async with aclosing(self._pieces(body, len(prompt))) as pieces:
            async for piece in pieces:
                if piece.prompt is not None:
                    echoed = _check_echo(piece.prompt, prompt)
                if piece.cached_tokens is not None:
                    job.cached_tokens = piece.cached_tokens
                tokens = _with_end(piece, eos)
                left -= len(tokens)
                if left < 0:
                    raise ServerError("the server generated more tokens than it was asked for")
                if tokens and not echoed:
                    raise ServerError(_NO_ECHO)
                reason = piece.finish_reason or reason
                if reason is None:
                    job.push(list(tokens))
                else:  # held until the stream has ended: who has it all stops listening
                    last.extend(tokens)
        if reason not in _REASONS:
            raise ServerError(
                f"the server ended the output with {str(reason)[:40]!r} instead of 'stop' or "
                "'length': it gave the request up; look at its log"
            )
        job.push(last)
        job.end(_REASONS[reason])

    async def _pieces(self, body: bytes, prompt_tokens: int) -> Any:
        """The events of one answer."""
        connection = self.connection
        async with (
            connection.opened("POST", COMPLETIONS_PATH, body) as response,
            aclosing(connection.pieces(response)) as data,
            aclosing(events(data, prompt_tokens=prompt_tokens)) as found,
        ):
            async for event in found:
                yield read_event(event, vocab_size=self.vocab_size)

    def complete(
        self, prompt: Sequence[int], count: int, *, spec: str | None, **more: Any
    ) -> list[int]:
        """Returns what the server greedily makes of a prompt, with or without a constraint.

        Blocks; for looking at a server, not for answers: nothing is replayed here.
        """
        sampling = Sampling(max_new_tokens=count, temperature=0.0, top_p=1.0)
        plain = completion(self.model, prompt, sampling, eos=(), spec=spec, **more)
        body = json.dumps(plain | {"cache_salt": self._salt} if self._salt else plain).encode()

        async def read() -> list[int]:
            async with aclosing(self._pieces(body, len(prompt))) as pieces:
                return [token async for piece in pieces for token in piece.tokens]

        return self.connection.start(read()).result()

    def close(self) -> None:
        """Ends all streams and closes the connections; safe to call twice."""
        self.connection.close()


class _ServedJob(Job):
    """A job whose cancelling also closes the connection of its request."""

    future: Future[None] | None = None

    def cancel(self) -> None:
        super().cancel()
        if self.future is not None:
            self.future.cancel()


_NO_ECHO = (
    "the server doesn't say which prompt it understood (prompt_token_ids with return_token_ids), "
    "so its output can't be tied to the documents; it needs vLLM 0.31 or newer"
)


def _check_echo(understood: tuple[int, ...], prompt: list[int]) -> bool:
    """Whether the server continued the very prompt; over any other, recall stays closed."""
    if list(understood) != prompt:
        raise ServerError(
            f"the server continued another prompt than it was sent ({len(understood):,} tokens "
            f"instead of {len(prompt):,}), so nothing could be recalled; turn off what truncates "
            "or rewrites prompts between here and there"
        )
    return True


def _with_end(piece: Piece, eos: Sequence[int]) -> tuple[int, ...]:
    """The new ids; an end-of-sequence id that the server named apart is put at their end."""
    named = piece.stop_id
    if named is None or named not in eos or piece.tokens[-1:] == (named,):
        return piece.tokens
    return (*piece.tokens, named)
