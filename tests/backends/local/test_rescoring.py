"""Evidence that takes its time to be scored: others go on, and no output changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from recallm_core.backends.local.rescoring import NotScoredError, Rescoring
from recallm_core.decoding.constraint import ClosedSpan, Prior, Section, SpanBias
from recallm_core.errors import GenerationCancelledError, GenerationError

WAIT = 30.0
SPAN = ClosedSpan((1,), ((0, 0),), "thinking")


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.002)


def biased(rules: Any, before: Callable[[], None] = lambda: None) -> Prior:
    """Another bias after each quote; ``before`` is called where a quote has been made."""
    size = sum(stop - start for start, stop in rules.spec.runs)

    def prior(section: Section, spans: tuple[ClosedSpan, ...]) -> SpanBias:
        if spans:
            before()
        source = np.random.default_rng([len(section), len(spans)])
        return SpanBias(source.normal(0, 3, size), source.normal(0, 2, size), 0.5)

    return prior


@pytest.mark.parametrize("draft", [0, 16])
@pytest.mark.parametrize("form", ["words", "quote"])
def test_waiting_for_scores_changes_no_output(
    kit: Any, backend_of: Any, draft: int, form: str
) -> None:
    backend = backend_of(kit.model(), draft_tokens=draft)
    requests = []
    for seed in range(6):
        ids = kit.prompt(30, seed)
        rules = kit.rules(ids, seed, answer_form=form)
        prior = biased(rules, lambda: time.sleep(0.003))
        requests.append(kit.request(ids, rules, prior=prior, temperature=seed % 2, seed=seed))
    streams = [backend.generate(request) for request in requests]
    outputs = [[token for tokens in stream for token in tokens] for stream in streams]
    assert outputs == [kit.reference(kit.model(), request) for request in requests]
    assert any(sum(t == 0 or t >= kit.open for t in output) for output in outputs)


def blocked(kit: Any, seed: int = 0, **changes: Any) -> tuple[Any, threading.Event, list[str]]:
    """A request whose evidence isn't scored before the event; the threads that score it."""
    go_on, threads = threading.Event(), list[str]()

    def wait() -> None:
        threads.append(threading.current_thread().name)
        assert go_on.wait(WAIT)

    ids = kit.prompt(30, seed)
    rules = kit.rules(ids, seed, answer_form="quote", max_thinking_tokens=None)
    return kit.request(ids, rules, prior=biased(rules, wait), **changes), go_on, threads


def test_other_sequences_go_on_and_nothing_spins(
    kit: Any, backend_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = backend_of(kit.model())
    request, go_on, threads = blocked(kit)
    stream = backend.generate(request)
    wait_for(lambda: bool(threads))
    assert len(kit.read(backend, kit.request(kit.prompt(20, 1), max_new_tokens=20))) == 20
    rounds: list[int] = []
    whole = backend._engine._round
    monkeypatch.setattr(backend._engine, "_round", lambda: (rounds.append(1), whole()))
    time.sleep(0.05)
    assert len(rounds) <= 2  # it sleeps
    go_on.set()
    output = [token for tokens in stream for token in tokens]
    assert output == kit.reference(kit.model(), request)
    assert {name.rsplit("_", 1)[0] for name in threads[: threads.index("MainThread")]} == {
        "recallm-evidence"
    }


def test_a_full_batch_that_waits_for_scores_sleeps_too(kit: Any, backend_of: Any) -> None:
    backend = backend_of(kit.model(), max_batch=1)
    request, go_on, threads = blocked(kit)
    first = backend.generate(request)
    wait_for(lambda: bool(threads))
    second = backend.generate(kit.request(kit.prompt(20, 1), max_new_tokens=3))
    wait_for(lambda: not backend._engine._has_work())  # once both are taken in
    time.sleep(0.02)
    assert not backend._engine._has_work()
    go_on.set()
    assert list(first)
    assert list(second)


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_a_sequence_that_waits_ends_as_any_other(kit: Any, backend_of: Any, how: str) -> None:
    backend = backend_of(kit.model())
    request, go_on, threads = blocked(kit)
    stream = backend.generate(request)
    wait_for(lambda: bool(threads))
    if how == "close":
        backend.close()
        with pytest.raises(GenerationCancelledError, match="closed before"):
            list(stream)
    elif how == "cancel":
        stream.close()
    go_on.set()
    wait_for(lambda: not backend._engine._running)
    if how == "cancel":
        assert kit.read(backend, kit.request(kit.prompt(20, 1), max_new_tokens=2))


def test_what_a_scorer_raises_ends_its_request_only(kit: Any, backend_of: Any) -> None:
    def fail() -> None:
        raise KeyError("no such sentence")

    backend = backend_of(kit.model())
    ids = kit.prompt(30, 0)
    rules = kit.rules(ids, answer_form="quote", max_thinking_tokens=None)
    bad = backend.generate(kit.request(ids, rules, prior=biased(rules, fail)))
    good = backend.generate(kit.request(ids, rules, prior=biased(rules)))
    with pytest.raises(GenerationError, match="no such sentence"):
        list(bad)
    assert list(good)


def test_before_the_first_quote_it_is_asked_in_place() -> None:
    go_on, woken = threading.Event(), threading.Event()
    threads: list[str] = []

    def prior(section: Section, spans: tuple[ClosedSpan, ...]) -> None:
        threads.append(threading.current_thread().name)
        assert not spans or go_on.wait(WAIT)

    with ThreadPoolExecutor(1, "other") as worker:
        rescoring = Rescoring(prior, worker, woken.set)
        assert rescoring("thinking", ()) is None
        for _ in range(2):
            with pytest.raises(NotScoredError) as raised:
                rescoring("thinking", (SPAN,))
        go_on.set()
        raised.value.score.result(WAIT)
        assert woken.wait(WAIT)
        assert rescoring("thinking", (SPAN,)) is None
    assert threads == [threading.current_thread().name, "other_0"]
