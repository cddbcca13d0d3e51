"""A model behind vLLM, seen from its callers: nobody waits for what will never come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine
from concurrent.futures import Future
from typing import Any

import pytest

from recallm_core.backends.vllm.base import RemoteBackend
from recallm_core.backends.vllm.loop_thread import LoopThread
from recallm_core.backends.vllm.wire import OutputChunk
from recallm_core.errors import GenerationCancelledError, GenerationError


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
