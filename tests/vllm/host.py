"""Loads models with backend="vllm" and does what it is told; started by test_in_process.py.

python host.py FD      FD is one end of a pipe: calls come as (name, arguments, settings)
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from recallm_core import RecaLLM

KEPT: list[RecaLLM] = []  # never closed by this script, and alive when Python ends


def load(_: Any, *args: Any, **options: Any) -> dict[str, Any]:
    llm = RecaLLM.load(*args, backend="vllm", **options)
    KEPT.append(llm)
    sizes = {"window": llm.backend.window, "vocab_size": llm.backend.vocab_size}
    about: dict[str, str] = llm.backend.about  # type: ignore[attr-defined] # of vLLM's backends
    return {**about, **sizes, "fingerprint": llm.tokenizer.fingerprint, "recipe": llm.recipe}


def events(llm: RecaLLM, *args: Any, **settings: Any) -> list[Any]:
    return list(llm.stream(*args, **settings))


async def gather(llm: RecaLLM, asked: Sequence[Any], **settings: Any) -> list[Any]:
    return await asyncio.gather(*(llm.aanswer(*each, **settings) for each in asked))


def bare(llm: RecaLLM, spec: str) -> Any:
    return llm.backend.complete([1, 2, 3], 4, spec=spec)  # type: ignore[attr-defined]


def noise(llm: RecaLLM, asked: Sequence[Any], **settings: Any) -> list[Any]:
    """Answers to questions by a model that opens a span wherever it may."""
    backend: Any = llm.backend
    opened = llm.tokenizer.control_id(llm.recipe.open)
    backend.prepare = functools.partial(backend.prepare, logit_bias={opened: 50.0})
    try:
        return llm.answer_batch(asked, **settings)
    finally:
        del backend.prepare


def running() -> float:
    """Requests that the engine works on, as its metrics say."""
    from prometheus_client import REGISTRY

    found = [m for m in REGISTRY.collect() if m.name == "vllm:num_requests_running"]
    assert found
    return sum(sample.value for metric in found for sample in metric.samples)


async def abandon(llm: RecaLLM, how: str, *args: Any, **settings: Any) -> tuple[float, float]:
    """Requests that run before and after somebody stopped waiting for one."""
    if how == "cancel":
        task = asyncio.create_task(llm.aanswer(*args, **settings))
        await until(1)
        before = running()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    else:
        stream = llm.stream(*args, **settings)
        next(stream)
        await until(1)
        before = running()
        if how == "close":
            stream.close()
        del stream
    await until(0)
    return before, running()


async def until(wanted: float) -> None:
    end = time.monotonic() + 30
    while running() != wanted and time.monotonic() < end:
        await asyncio.sleep(0.2)


def kill(llm: RecaLLM, *args: Any, **settings: Any) -> list[str]:
    """What is said when the engine dies in the middle of an answer, and then."""
    import psutil

    stream = llm.stream(*args, **settings)
    next(stream)
    for child in psutil.Process().children(recursive=True):
        if "resource_tracker" not in " ".join(child.cmdline()):
            os.kill(child.pid, signal.SIGKILL)
    said = []
    for ask in (stream.result, lambda: llm.answer(*args, **settings)):
        try:
            ask()
        except Exception as error:
            said.append(told(error))
    llm.close()
    return said


def told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


OWN = {each.__name__: each for each in (load, events, gather, bare, noise, abandon, kill)}


async def main(line: Connection) -> None:
    """Everything happens inside a running event loop, as in a notebook."""
    while True:
        name, args, settings = line.recv()
        if name == "leave":
            return
        llm: Any = KEPT[-1] if KEPT else None
        try:
            found = (
                OWN[name](llm, *args, **settings)
                if name in OWN
                else getattr(llm, name)(*args, **settings)
            )
            line.send((True, await found if inspect.isawaitable(found) else found))
        except Exception as error:
            line.send((False, told(error)))


if __name__ == "__main__":
    asyncio.run(main(Connection(int(sys.argv[1]))))
