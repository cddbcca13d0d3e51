"""What is said to a vLLM server and what it answers: request bodies out, checked token ids in."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recallm_core.backends import Sampling
from recallm_core.backends.vllm.connection import message_of
from recallm_core.errors import ServerError

COMPLETIONS_PATH = "/v1/completions"
ARGUMENT = "recallm"  # the key below vllm_xargs, fixed between server and client
_LINE = 2**20  # bytes of one event, beside the echo of the prompt
_PER_ID = 16  # bytes at most that one id takes in JSON, with separators and white space
_PER_TOKEN = 4096  # bytes at most that a new token takes, as an event of its own
_SPARE_EVENTS = 1000  # events that may come beside one for each token
_ABOVE = 1e-3  # by which rounding may lift a log-probability above 0
_SLOWEST = 5.0  # seconds that a token may take, on average


def settings(sampling: Sampling, eos: Sequence[int]) -> dict[str, Any]:
    """Returns how tokens are chosen, as vLLM's sampling parameters: every setting said.

    What is left out would be filled from defaults, which the checkpoint's
    ``generation_config.json`` may have set.

    Args:
        sampling: How tokens are chosen.
        eos: Ids that end the output.
    """
    # vLLM takes -1 for no seed at all, and not every runner takes other negative ones
    seed = {} if sampling.seed is None else {"seed": sampling.seed % 2**63}
    return {
        "n": 1,
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "stop_token_ids": list(eos),
        "skip_special_tokens": False,
        **seed,
    }


def completion(
    model: str,
    prompt: Sequence[int],
    sampling: Sampling,
    *,
    eos: Sequence[int],
    spec: str | None,
    **more: Any,
) -> dict[str, Any]:
    """Returns the body of a request: token ids in and out, every setting said.

    Args:
        model: The name under which the model is served.
        prompt: Token ids.
        sampling: How tokens are chosen.
        eos: Ids that end the output.
        spec: The constraint as JSON; None: none.
        more: Further members.
    """
    body: dict[str, Any] = {
        "model": model,
        "prompt": list(prompt),
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        **settings(sampling, eos),
    }
    if spec is not None:
        body["vllm_xargs"] = {ARGUMENT: spec}
    return body | {name: value for name, value in more.items() if value is not None}


@dataclass(frozen=True, slots=True)
class OutputChunk:
    """One event of an answer.

    Attributes:
        tokens: New ids.
        prompt: The prompt as the server understood it; None where the event doesn't say.
        finish_reason: Why the output ended; None: it goes on.
        stop_id: The id that ended it, where the server names it apart.
        cached_tokens: Prompt tokens that a cache spared; None where the event doesn't say.
        log_probs: Of the new ids, where they were asked for.
    """

    tokens: tuple[int, ...] = ()
    prompt: tuple[int, ...] | None = None
    finish_reason: str | None = None
    stop_id: int | None = None
    cached_tokens: int | None = None
    log_probs: tuple[float, ...] = ()


class Allowance:
    """What a server may still send, and how long it may take, until its answer is whole.

    Args:
        prompt_tokens: Tokens of the prompt, which the server says again.
        max_tokens: New tokens at most.
        timeout: Seconds without anything of use; twice as many may pass, for the clock is looked
            at when something comes.
    """

    def __init__(self, *, prompt_tokens: int, max_tokens: int, timeout: float) -> None:
        self.line = _LINE + _PER_ID * prompt_tokens
        self._bytes = self.line + _PER_TOKEN * max_tokens
        self._events = _SPARE_EVENTS + max_tokens
        self._patience = 2 * timeout
        self._useful = time.monotonic()
        self._total = self._patience + _SLOWEST * max_tokens
        self._end = self._useful + self._total

    def take(self, size: int) -> None:
        """Counts bytes.

        Raises:
            ServerError: They are too many, or come too late.
        """
        self._bytes -= size
        if self._bytes < 0:
            raise ServerError("the server sent far more bytes than the answer can have")
        now = time.monotonic()
        if now > self._useful + self._patience:
            raise ServerError(
                f"the server sent no token for {self._patience:g} s, only what means nothing; "
                "raise timeout= if it may take so long"
            )
        if now > self._end:
            raise ServerError(
                f"the server's answer wasn't whole after {self._total:,.0f} s; ask for fewer "
                "tokens (max_new_tokens), or raise timeout="
            )

    def take_event(self) -> None:
        """Counts an event.

        Raises:
            ServerError: They are too many.
        """
        self._events -= 1
        if self._events < 0:
            raise ServerError("the server sent far more events than the answer can have tokens")

    def progress(self) -> None:
        """Takes note that something of use has come."""
        self._useful = time.monotonic()


async def events(
    chunks: AsyncIterable[bytes],
    *,
    prompt_tokens: int,
    max_tokens: int = 0,
    allowance: Allowance | None = None,
) -> AsyncGenerator[bytes, None]:
    """Yields the data of server-sent events, without the ``[DONE]`` at their end.

    The cost is linear in what comes, however it is cut.

    Args:
        chunks: Bytes as they come.
        prompt_tokens: Tokens of the prompt, which the server says again.
        max_tokens: New tokens at most.
        allowance: What may come; None: by the two numbers, with no limit of time.

    Raises:
        ServerError: More comes than may, or the stream ends without ``[DONE]``.
    """
    may = allowance or Allowance(
        prompt_tokens=prompt_tokens, max_tokens=max_tokens, timeout=float("inf")
    )
    partial: list[bytes] = []
    size = 0
    async for chunk in chunks:
        may.take(len(chunk))
        *lines, rest = chunk.split(b"\n")
        if lines:
            lines[0] = b"".join([*partial, lines[0]])
            partial, size = [], 0
        partial.append(rest)
        size += len(rest)
        if size > may.line or any(len(line) > may.line for line in lines):
            raise ServerError(f"the server sent an event of more than {may.line:,} bytes")
        for line in lines:
            data = line.strip().removeprefix(b"data:").strip() if line[:5] == b"data:" else b""
            if data == b"[DONE]":
                return
            if data:
                may.take_event()
                yield data
    last = message_of(b"".join(partial)[:2000])
    raise ServerError(
        "the server ended its answer too early: the connection was cut, or what answers isn't a "
        f"vLLM server's event stream; the last it said: {last or 'nothing'}"
    )


def read_event(data: bytes, *, vocab_size: int) -> OutputChunk:
    """Reads one event, trusting none of it.

    Raises:
        ServerError: It reports an error, or isn't what ``return_token_ids`` promises.
    """
    try:
        event = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ServerError(
            f"the server's answer isn't JSON: {message_of(data[:2000])}"
        ) from error  # fmt: skip
    if isinstance(event, dict) and "error" in event:
        raise ServerError(f"{_failure(event['error'])}: {message_of(data)}")
    try:
        return _output_chunk(event, vocab_size)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ServerError(
            f"the server's answer hasn't the form of a vLLM completion with token ids ({error}); "
            "it needs vLLM 0.31 or newer"
        ) from error


def _failure(error: Any) -> str:
    """What an error event means: vLLM checks a streamed request after it has begun to answer."""
    code = error.get("code") if isinstance(error, dict) else None
    if type(code) is int and 400 <= code < 500:
        return f"the server refused the request ({code})"
    return "the server failed while it generated"


def _output_chunk(data: Mapping[str, Any], vocab_size: int) -> OutputChunk:
    usage = data.get("usage") or {}
    details = usage.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens")
    spared = cached if type(cached) is int and cached >= 0 else None
    choices = data["choices"]
    if not choices:
        return OutputChunk(cached_tokens=spared)
    (choice,) = choices
    reason, stop = choice.get("finish_reason"), choice.get("stop_reason")
    if reason is not None and not isinstance(reason, str):
        raise ValueError(f"finish_reason is a {type(reason).__name__}")
    prompt = choice.get("prompt_token_ids")
    return OutputChunk(
        tokens=_ids(choice.get("token_ids") or [], vocab_size),
        prompt=None if prompt is None else _ids(prompt, vocab_size),
        finish_reason=reason,
        stop_id=stop if type(stop) is int and 0 <= stop < vocab_size else None,
        cached_tokens=spared,
        log_probs=_log_probs((choice.get("logprobs") or {}).get("token_logprobs") or []),
    )


def _log_probs(values: Any) -> tuple[float, ...]:
    fine = type(values) is list and all(type(v) in (int, float) and v <= _ABOVE for v in values)
    if not fine:
        raise ValueError("log-probabilities must be a list of numbers that aren't above 0")
    return tuple(min(0.0, float(value)) for value in values)


def _ids(values: Any, vocab_size: int) -> tuple[int, ...]:
    if type(values) is not list or not all(type(i) is int and 0 <= i < vocab_size for i in values):
        raise ValueError(f"token ids must be a list of numbers below {vocab_size:,}")
    return tuple(values)
