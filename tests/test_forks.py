"""A forked child is told at once, or works; it never waits for a thread that stayed behind."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from recallm_core import CorpusIndex, Document
from recallm_core.backends.stream import EngineStream, Job
from recallm_core.decoding.grammar import GrammarEngine, schema_grammar
from recallm_core.locks import ForkSafeLock
from recallm_core.mcp_server.desk import Desk
from recallm_core.mcp_server.library import Library
from recallm_core.mcp_server.watching import Watch
from recallm_core.testing import ByteTokenizer, scripted_llm
from recallm_core.ui.session import OpenedSources, Session

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
WAIT = 30.0


def in_child(work: Callable[[], Any]) -> str:
    """What a forked child says of some work; it is killed where it never ends."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forks beside threads are the point
        child = os.fork()
    if not child:
        try:
            said = str(work())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            with os.fdopen(reading) as said_there:
                return said_there.read()
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    return "never ended"


@contextmanager
def held_elsewhere(lock: Any) -> Iterator[None]:
    """Another thread holds a lock while the block runs."""
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            done.wait(WAIT)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    taken.wait(WAIT)
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_lock_is_free_in_a_child_and_held_here() -> None:
    lock = ForkSafeLock()

    def take() -> str:
        with lock, lock:
            return "taken"

    with held_elsewhere(lock):
        assert in_child(take) == "taken"
        assert not lock._lock.acquire(blocking=False)


@pytest.mark.parametrize("ask", ["answer", "prepare", "count_tokens", "stream", "answer_batch"])
def test_a_model_refuses_a_child_at_once(ask: str) -> None:
    llm = scripted_llm("</think>x")
    calls: dict[str, Callable[[], Any]] = {
        "answer": lambda: llm.answer("q", ["text"]),
        "prepare": lambda: llm.prepare([{"role": "user", "content": "q"}], ["text"]),
        "count_tokens": lambda: llm.count_tokens("text"),
        "stream": lambda: list(llm.stream("q", ["text"])),
        "answer_batch": lambda: llm.answer_batch([("q", ["text"])]),
    }
    with held_elsewhere(llm._context_builder._builder._building):
        said = in_child(calls[ask])
    assert said.startswith("GenerationError: the model was loaded before this process was forked")
    calls[ask]()


def test_an_index_works_in_a_child() -> None:
    index = CorpusIndex.build([Document("The library opens at nine.", "a")])

    def change() -> str:
        index.add([Document("The ferry leaves at ten.", "b")])
        return index.search("ferry", 1)[0].document_id

    with held_elsewhere(index._changing):
        assert in_child(change) == "b"


def test_a_grammar_that_was_being_compiled_is_compiled_in_the_child() -> None:
    engine = GrammarEngine(ByteTokenizer(), vocab_size=ByteTokenizer().vocab_size)
    grammar = schema_grammar({"type": "integer"})
    engine._compiled[grammar] = Future()  # as another thread leaves it while it compiles
    with held_elsewhere(engine._lock):
        assert in_child(lambda: len(engine.matcher(grammar).allowed_tokens()) > 0) == "True"


def test_a_grammar_whose_compiling_was_interrupted_is_compiled_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = GrammarEngine(ByteTokenizer(), vocab_size=ByteTokenizer().vocab_size)
    grammar = schema_grammar({"type": "boolean"})
    with monkeypatch.context() as patch:

        def interrupted() -> Any:
            raise KeyboardInterrupt

        patch.setattr("recallm_core.decoding.grammar._llguidance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.matcher(grammar)
    assert len(engine.matcher(grammar).allowed_tokens())


def test_what_serves_agents_and_the_page_works_in_a_child(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The library opens at nine.")
    library = Library([tmp_path])
    desk = Desk(library, lambda: scripted_llm("</think>x"))
    session = Session(
        lambda _: scripted_llm("</think>x"), lambda _: OpenedSources((), ()), model="m"
    )
    with held_elsewhere(library._lock):
        assert in_child(lambda: len(library.documents(None, Watch("reading")))) == "1"
    with held_elsewhere(desk._loading):
        assert in_child(desk.close) == "None"
    with held_elsewhere(session._lock), held_elsewhere(session._loading):
        assert in_child(lambda: session.llm() is not None) == "True"
        assert in_child(lambda: session.state()["model"]) == "m"


def test_models_are_named_in_a_child() -> None:
    engines = pytest.importorskip("langchain_recallm.engines")
    llm = scripted_llm("</think>x")
    with held_elsewhere(engines._NAMING):
        assert len(in_child(lambda: engines.name_of(llm))) == 32


@pytest.mark.slow
def test_children_of_a_busy_process_never_hang() -> None:
    llm = scripted_llm("</think>x", window=50_000_000)
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            question = f"q{time.monotonic()}"
            documents = [Document(f"w{i} {question} " * 500) for i in range(60)]
            llm.prepare([{"role": "user", "content": question}], documents)

    thread = threading.Thread(target=busy, daemon=True)
    thread.start()
    try:
        for _ in range(5):
            time.sleep(0.05)
            assert "forked" in in_child(lambda: llm.answer("q", ["text"]))
    finally:
        stop.set()
        thread.join()


def test_a_stream_of_the_parent_is_refused_in_a_child() -> None:
    job = Job(None)  # type: ignore[arg-type]
    stream = EngineStream(job, None)
    with held_elsewhere(job.changed):
        assert "forked" in in_child(lambda: next(stream))
        assert in_child(stream.close) == "None"


def test_an_index_works_in_a_child_after_torch_used_its_threads() -> None:
    """OpenMP's threads stay behind in the parent; a search in the child must not wait for them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.nn.functional.softmax(torch.randn(2000, 2000), -1)
        index = CorpusIndex.build([Document("The ferry leaves at ten.", "b")])
        index.search("ferry", 1)
        assert in_child(lambda: index.search("ferry", 1)[0].document_id) == "b"
    finally:
        torch.set_num_threads(threads)
