"""What is the same wherever vLLM runs: requests out, checked token ids back into streams.

The constraint is obeyed in vLLM's workers. What comes back is checked here, and the caller replays
every token, so a fault there is an error here and never a false quote.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from typing import Any, ClassVar

from recallm_core.backends import FinishReason, GenerationRequest, Sampling
from recallm_core.backends.checks import check_request
from recallm_core.backends.stream import EngineStream, Job
from recallm_core.backends.vllm.wire import OutputChunk
from recallm_core.errors import (
    ConstraintError,
    GenerationCancelledError,
    GenerationError,
    RecallmError,
)

_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class RemoteBackend(ABC):
    """A model that vLLM runs; safe to call from many threads, requests share vLLM's batches.

    Args:
        window: Its context length: tokens that it can attend to, input and output together.
        vocab_size: Width of its logits.
    """

    in_process = False
    error: ClassVar[type[GenerationError]] = GenerationError
    """What is raised where vLLM fails, or doesn't keep to what it was asked for."""
    who: ClassVar[str] = "vLLM"
    """How messages call it."""
    fix: ClassVar[str]
    """What to do where the constraint isn't obeyed."""

    def __init__(self, *, window: int, vocab_size: int) -> None:
        self.window = window
        self.vocab_size = vocab_size
        self.about: dict[str, str] = {}
        """What is known of it: ``engine``, ``runner``, ``model``, ``release``."""

    @property
    @abstractmethod
    def where(self) -> str:
        """Names the engine or the server, for error messages."""

    @abstractmethod
    def start(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Runs a coroutine where ``chunks`` may be read.

        Raises:
            GenerationCancelledError: The backend was closed.
        """

    @abstractmethod
    def prepare(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        eos: Sequence[int],
        spec: str | None,
        **more: Any,
    ) -> Any:
        """Returns a request in the form that ``chunks`` takes.

        Args:
            prompt: Token ids.
            sampling: How tokens are chosen.
            eos: Ids that end the output.
            spec: The constraint as JSON; None: none.
            more: Further sampling parameters of vLLM.
        """

    @abstractmethod
    def chunks(self, prepared: Any) -> AsyncGenerator[OutputChunk, None]:
        """Yields the output of one request as it comes; closing this ends it in the engine.

        Raises:
            GenerationError: It fails, or is refused.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends all streams and frees what was held; safe to call twice."""

    def generate(self, request: GenerationRequest) -> EngineStream:
        """Sends a request and returns its stream at once; failures are raised by the stream.

        Raises:
            ContextOverflowError: Prompt and output don't fit the context length.
            ConstraintError: The rules are for another vocabulary, or want a prior recomputed.
            ValueError: The prompt is empty, or a sampling value is out of range.
        """
        check_request(request, vocab_size=self.vocab_size, context_length=self.window)
        if request.prior is not None:
            raise ConstraintError(
                "a prior that is recomputed after each recall needs the model in this process; "
                "leave GenerationRequest.prior out and the static scores of the spec are used"
            )
        job = _RemoteJob(request)
        stream = EngineStream(job, self)
        spec = request.rules.spec
        more = {} if request.log_probs is None else {"logprobs": 0}  # of the chosen token alone
        prepared = self.prepare(
            request.token_ids.tolist(), request.sampling, eos=spec.eos, spec=spec.to_json(), **more
        )
        job.future = self.start(self._generate(job, prepared))
        closed = GenerationCancelledError(f"{self.who} was closed before the end")
        job.future.add_done_callback(lambda _: job.end(None, closed))  # else it has ended by now
        return stream

    async def _generate(self, job: _RemoteJob, prepared: Any) -> None:
        """Fills one stream; runs on the backend's loop."""
        try:
            await self._fill(job, prepared)
        except RecallmError as error:
            job.end(None, error)
        except Exception as error:  # a fault of this library: nobody must wait for ever
            failed = f"reading the answer failed: {type(error).__name__}: {error}"
            job.end(None, self.error(failed))

    async def _fill(self, job: _RemoteJob, prepared: Any) -> None:
        prompt: list[int] = job.request.token_ids.tolist()
        eos = job.request.rules.spec.eos
        tokens_left = job.request.sampling.max_new_tokens
        echoed, reason = False, None
        last: list[int] = []
        async with aclosing(self.chunks(prepared)) as chunks:
            async for chunk in chunks:
                if chunk.prompt is not None:
                    echoed = self._check_echo(chunk.prompt, prompt)
                if chunk.cached_tokens is not None:
                    job.cached_tokens = chunk.cached_tokens
                self._tell(job.request, chunk)
                tokens = _with_end(chunk, eos)
                tokens_left -= len(tokens)
                if tokens_left < 0:
                    raise self.error(f"{self.who} generated more tokens than it was asked for")
                if tokens and not echoed:
                    raise self.error(f"{self.who} {_NO_ECHO}")
                reason = chunk.finish_reason or reason
                if reason is None:
                    job.push(list(tokens))
                else:  # held until the stream has ended: who has it all stops listening
                    last.extend(tokens)
        if reason not in _REASONS:
            raise self.error(
                f"{self.who} ended the output with {str(reason)[:40]!r} instead of 'stop' or "
                "'length': it gave the request up; look at its log"
            )
        job.push(last)
        job.end(_REASONS[reason])

    def _tell(self, request: GenerationRequest, chunk: OutputChunk) -> None:
        """Hands on the log-probabilities of new ids; that of an end named apart isn't told."""
        if request.log_probs is None:
            return
        if len(chunk.log_probs) != len(chunk.tokens):
            raise self.error(
                f"{self.who} doesn't tell the log-probability of each token (logprobs): it told "
                f"{len(chunk.log_probs)} of {len(chunk.tokens)}"
            )
        for log_prob in chunk.log_probs:
            request.log_probs(log_prob)

    def _check_echo(self, understood: tuple[int, ...], prompt: list[int]) -> bool:
        """Whether the very prompt was continued; over any other, recall stays closed."""
        if list(understood) != prompt:
            raise self.error(
                f"{self.who} continued another prompt than it was sent ({len(understood):,} tokens "
                f"instead of {len(prompt):,}), so nothing could be recalled; turn off what "
                "truncates or rewrites prompts between here and there"
            )
        return True

    def complete(
        self, prompt: Sequence[int], count: int, *, spec: str | None, **more: Any
    ) -> list[int]:
        """Returns what the model greedily makes of a prompt, with or without a constraint.

        Blocks; for looking at a model, not for answers: nothing is replayed here.
        """
        sampling = Sampling(max_new_tokens=count, temperature=0.0, top_p=1.0)
        prepared = self.prepare(prompt, sampling, eos=(), spec=spec, **more)

        async def read() -> list[int]:
            async with aclosing(self.chunks(prepared)) as chunks:
                return [token async for chunk in chunks for token in chunk.tokens]

        ids: list[int] = self.start(read()).result()
        return ids


class _RemoteJob(Job):
    """A job whose cancelling also ends its request in the engine."""

    future: Future[Any] | None = None

    def cancel(self) -> None:
        super().cancel()
        if self.future is not None:
            self.future.cancel()


_NO_ECHO = (
    "doesn't say which prompt it understood (prompt_token_ids with return_token_ids), "
    "so its output can't be tied to the documents; it needs vLLM 0.31 or newer"
)


def _with_end(chunk: OutputChunk, eos: Sequence[int]) -> tuple[int, ...]:
    """The new ids; an end-of-sequence id that was named apart is put at their end."""
    named = chunk.stop_id
    if named is None or named not in eos or chunk.tokens[-1:] == (named,):
        return chunk.tokens
    return (*chunk.tokens, named)
