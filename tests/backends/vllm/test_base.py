"""A model behind vLLM, seen from its callers: nobody waits for what will never come."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Coroutine
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest

from recallm_core.backends.vllm.base import RemoteBackend
from recallm_core.backends.vllm.loop_thread import LoopThread
from recallm_core.backends.vllm.wire import OutputChunk, read_event
from recallm_core.errors import GenerationCancelledError, GenerationError, ServerError


class Scripted(RemoteBackend):
    """Gives the chunks of a script, on a loop of its own."""

    where, fix = "a script", "mend the script"

    def __init__(self, vocab: int, *chunks: OutputChunk | Exception) -> None:
        super().__init__(window=4096, vocab_size=vocab)
        self._script = chunks
        self._thread = LoopThread("remote-of-a-test", self._last, patience=10)

    async def _last(self) -> None:
        pass

    def start(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return self._thread.run(work)

    def prepare(self, *args: Any, **more: Any) -> None:
        pass

    async def chunks(self, asked: None) -> AsyncGenerator[OutputChunk, None]:
        for chunk in self._script:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    def close(self) -> None:
        self._thread.stop()


class Closing(Scripted):
    """Is closed just as a request comes: its work is cancelled before it begins."""

    def start(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        work.close()
        future: Future[Any] = Future()
        future.cancel()
        return future


def read(backend: RemoteBackend, request: Any) -> list[int]:
    return [token for tokens in backend.generate(request) for token in tokens]


def test_work_that_never_began_is_a_cancelled_answer(kit: Any) -> None:
    backend = Closing(kit.vocab)
    with pytest.raises(GenerationCancelledError, match="vLLM was closed before the end"):
        read(backend, kit.request(kit.prompt(20, 1)))
    backend.close()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ([OutputChunk((5,))], "doesn't say which prompt"),
        ([OutputChunk((5,), prompt=(1, 2))], "continued another prompt"),
        ([ValueError("odd")], "reading the answer failed: ValueError: odd"),
        ([GenerationError("gone")], "gone"),
    ],
)
def test_what_cannot_be_trusted_is_an_error(kit: Any, script: Any, said: str) -> None:
    backend = Scripted(kit.vocab, *script)
    with pytest.raises(GenerationError, match=said):
        read(backend, kit.request(kit.prompt(20, 1)))
    backend.close()


def test_no_more_and_no_less_than_asked_for(kit: Any) -> None:
    ids = kit.prompt(20, 1)
    first = OutputChunk((3, 4), prompt=tuple(ids.tolist()))
    request = kit.request(ids, max_new_tokens=3)
    backend = Scripted(kit.vocab, first, OutputChunk((5,), finish_reason="length"))
    assert read(backend, request) == [3, 4, 5]
    backend.close()
    for last, said in (
        (OutputChunk((5, 6)), "more tokens than"),
        (OutputChunk((5,)), "gave the request up"),
    ):
        backend = Scripted(kit.vocab, first, last)
        with pytest.raises(GenerationError, match=said):
            read(backend, request)
        backend.close()


def test_log_probabilities_go_to_who_asks_and_are_owed_for_each_token(kit: Any) -> None:
    asked = kit.request(kit.prompt(20, 1))
    prompt = tuple(asked.token_ids.tolist())
    told: list[float] = []
    request = replace(asked, log_probs=told.append)
    whole = OutputChunk((5, 6), prompt=prompt, finish_reason="length", log_probs=(-0.5, 0.0))
    backend = Scripted(kit.vocab, whole)
    assert read(backend, request) == [5, 6]
    assert told == [-0.5, 0.0]
    backend.close()
    lacking = Scripted(kit.vocab, replace(whole, log_probs=(-0.5,)))
    with pytest.raises(GenerationError, match="doesn't tell the log-probability of each token"):
        read(lacking, request)
    lacking.close()


@pytest.mark.parametrize("values", [[0.1], ["x"], [None], {"a": 1}, [True], [float("nan")]])
def test_log_probabilities_that_make_no_sense_are_an_error(values: Any) -> None:
    choice = {"token_ids": [1], "logprobs": {"token_logprobs": values}}
    with pytest.raises(ServerError, match="log-probabilities must be"):
        read_event(json.dumps({"choices": [choice]}).encode(), vocab_size=9)
    choice["logprobs"] = {"token_logprobs": [1e-6]}
    event = json.dumps({"choices": [choice]}).encode()
    assert read_event(event, vocab_size=9).log_probs == (0.0,)
