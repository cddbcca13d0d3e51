"""Callers that cancel, vanish, fail or come all at once; and prompts that begin alike."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from recallm_core.backends.local.engine import CostModel
from recallm_core.backends.local.prefix_cache import BLOCK
from recallm_core.errors import GenerationCancelledError, GenerationError

WAIT = 30.0


def wait_for(holds: Callable[[], bool]) -> None:
    """Waits until something holds; the deadline only matters when it never does."""
    deadline = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.002)


class Hooked:
    """A fresh model that counts its passes and does something in each."""

    def __init__(self, kit: Any) -> None:
        self.model = kit.fresh_model(seed=3)
        self.passes = 0
        self.act: Callable[[], None] = lambda: None
        self.model.register_forward_pre_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.passes += 1
        self.act()


@pytest.fixture
def hooked(kit: Any) -> Hooked:
    return Hooked(kit)


def idle(backend: Any) -> bool:
    engine = backend._engine
    return not engine._running and engine._reading is None and not engine._inbox


@pytest.mark.parametrize("how", ["close", "drop"])
def test_closing_or_dropping_a_stream_stops_the_model(
    kit: Any, hooked: Hooked, backend_of: Any, how: str
) -> None:
    backend = backend_of(hooked.model)
    ids = kit.prompt(20, 1)
    rules = kit.rules(ids, forbidden=(kit.eos,), max_thinking_tokens=None)
    stream = backend.generate(kit.request(ids, rules, max_new_tokens=4000))
    next(stream)
    if how == "close":
        stream.close()
    else:
        del stream
        gc.collect()
    wait_for(lambda: idle(backend))
    assert hooked.passes < 2000
    before = hooked.passes
    assert kit.read(backend, kit.request(ids, max_new_tokens=1)) != []
    assert hooked.passes <= before + 2


def test_a_long_prompt_can_be_cancelled_between_its_chunks(
    kit: Any, hooked: Hooked, backend_of: Any
) -> None:
    backend = backend_of(hooked.model, prefill_chunk=64)
    third = threading.Event()
    go_on = threading.Event()
    start = hooked.passes

    def pause() -> None:
        if hooked.passes == start + 3:
            third.set()
            assert go_on.wait(WAIT)

    hooked.act = pause
    stream = backend.generate(kit.request(kit.prompt(3000, 1)))
    assert third.wait(WAIT)
    stream.close()
    go_on.set()
    wait_for(lambda: idle(backend))
    assert hooked.passes == start + 3
    assert list(stream) == []


def test_a_failing_pass_reaches_its_callers_and_the_engine_lives_on(
    kit: Any, hooked: Hooked, backend_of: Any
) -> None:
    backend = backend_of(hooked.model)
    ids = kit.prompt(20, 1)
    expected = kit.reference(hooked.model, kit.request(ids))
    for failing in (1, 4):  # while reading the prompt, and while generating
        count = iter(range(99))

        def fail(at: int = failing, count: Any = count) -> None:
            if next(count) == at - 1:
                raise RuntimeError("no memory left")

        hooked.act = fail
        with pytest.raises(GenerationError, match="RuntimeError: no memory left") as caught:
            kit.read(backend, kit.request(ids))
        assert isinstance(caught.value.__cause__, RuntimeError)
        hooked.act = lambda: None
        assert kit.read(backend, kit.request(ids)) == expected


def test_a_constraint_that_fails_ends_its_own_stream_only(kit: Any, backend_of: Any) -> None:
    model = kit.model()
    backend = backend_of(model)

    def broken(section: str, spans: object) -> None:
        raise KeyError("no scores")

    good = [kit.request(kit.prompt(50, seed)) for seed in range(2)]
    bad = kit.request(kit.prompt(40, 7), prior=broken)
    assert kit.open in kit.reference(model, kit.request(kit.prompt(40, 7)))
    first, failing, second = [backend.generate(r) for r in (good[0], bad, good[1])]
    with pytest.raises(GenerationError, match="no scores"):
        list(failing)
    for request, stream in zip(good, (first, second), strict=True):
        assert [t for tokens in stream for t in tokens] == kit.reference(model, request)


def test_running_out_of_memory_for_a_prompt_fails_that_request_only(
    kit: Any, backend_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = kit.model()
    backend = backend_of(model)
    request = kit.request(kit.prompt(30, 1), max_new_tokens=6)

    def full(*_: Any) -> None:
        raise MemoryError("no room")

    for place in ("reserve", "append"):
        with monkeypatch.context() as patch:
            patch.setattr(backend._engine._runner._rows, place, full)
            with pytest.raises(GenerationError, match="no room"):
                kit.read(backend, request)
        assert kit.read(backend, request) == kit.reference(model, request)


def test_a_fault_of_the_engine_itself_leaves_nobody_waiting(
    kit: Any, backend_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = backend_of(kit.model(), max_batch=1)
    ids = kit.prompt(20, 1)
    rules = kit.rules(ids, forbidden=(kit.eos,))
    streams = [backend.generate(kit.request(ids, rules, max_new_tokens=4000)) for _ in range(2)]
    next(streams[0])

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(backend._engine, "_step", broken)
    for stream in streams:
        with pytest.raises(GenerationError, match="a fault"):
            list(stream)
    with pytest.raises(GenerationError, match="is closed"):
        backend.generate(kit.request(ids, rules))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_overflow_are_named(kit: Any, backend_of: Any, temperature: float) -> None:
    model = kit.fresh_model(seed=4)
    backend = backend_of(model)

    def overflow(_module: Any, _args: Any, output: Any) -> None:
        output["logits"].fill_(torch.nan)

    model.register_forward_hook(overflow)
    with pytest.raises(GenerationError, match="bfloat16"):
        kit.read(backend, kit.request(kit.prompt(30, 1), temperature=temperature))


def test_sixteen_threads_at_once_get_their_own_answers(kit: Any, backend_of: Any) -> None:
    model = kit.model()
    backend = backend_of(model, max_batch=5, prefill_chunk=32)
    requests = [
        kit.request(kit.prompt(30 + 5 * i, i), max_new_tokens=12, temperature=i % 2, seed=i)
        for i in range(16)
    ]
    outputs: dict[int, list[int]] = {}
    barrier = threading.Barrier(16)

    def ask(number: int) -> None:
        barrier.wait()
        outputs[number] = kit.read(backend, requests[number])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert [outputs[i] for i in range(16)] == [kit.reference(model, r) for r in requests]


def test_requests_share_batches(kit: Any, hooked: Hooked, backend_of: Any) -> None:
    backend = backend_of(hooked.model, draft_tokens=0)
    start = hooked.passes
    streams = [
        backend.generate(kit.request(kit.prompt(10, i), max_new_tokens=30)) for i in range(6)
    ]
    total = sum(len(tokens) for stream in streams for tokens in stream)
    assert hooked.passes - start < total / 2


def test_closing_the_backend_ends_streams_with_an_error(kit: Any, backend_of: Any) -> None:
    backend = backend_of(kit.model(), max_batch=1)
    ids = kit.prompt(20, 1)
    rules = kit.rules(ids, forbidden=(kit.eos,))
    running, waiting = [
        backend.generate(kit.request(ids, rules, max_new_tokens=4000)) for _ in range(2)
    ]
    next(running)
    backend.close()
    backend.close()
    for stream in (running, waiting):
        with pytest.raises(GenerationCancelledError, match="closed before"):
            list(stream)
        assert stream.finish_reason is None
    with pytest.raises(GenerationError, match="is closed"):
        backend.generate(kit.request(ids, rules))


def test_a_forked_child_is_told_to_load_its_own_model(
    kit: Any, backend_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = backend_of(kit.model())
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(GenerationError, match="forked"):
        backend.generate(kit.request(kit.prompt(20, 1)))


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit, ValueError]
)
def test_whatever_a_callback_raises_ends_its_request_only(
    kit: Any, backend_of: Any, error: type[BaseException]
) -> None:
    backend = backend_of(kit.model())

    def fail(*_: int) -> None:
        raise error("the caller's own")

    ids = kit.prompt(20, 1)
    backend.on_prefill = fail
    with pytest.raises(GenerationError, match=error.__name__):
        list(backend.generate(kit.request(ids)))
    backend.on_prefill = None
    assert kit.read(backend, kit.request(ids, max_new_tokens=4))


@pytest.mark.parametrize("where", ["start", "mask", "consume"])
def test_whatever_a_constraint_raises_ends_its_request_only(
    kit: Any, backend_of: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Priors and grammars are called by the constraint."""
    backend = backend_of(kit.model())
    good, bad = (kit.request(kit.prompt(20, n), max_new_tokens=8) for n in (1, 2))

    def fail(*_: Any, **__: Any) -> Any:
        raise asyncio.CancelledError

    start = type(bad.rules).start

    def started(rules: Any, prior: Any = None) -> Any:
        if rules is not bad.rules:
            return start(rules, prior)
        if where == "start":
            fail()
        constraint = start(rules, prior)
        broken = type("Broken", (type(constraint),), {where: fail})
        constraint.__class__ = broken
        return constraint

    monkeypatch.setattr(type(bad.rules), "start", started)
    streams = [backend.generate(request) for request in (good, bad, good)]
    assert list(streams[0])
    with pytest.raises(GenerationError, match="CancelledError"):
        list(streams[1])
    assert list(streams[2])


class TestPrefixCache:
    def test_a_second_question_reads_only_what_is_new(
        self, kit: Any, hooked: Hooked, backend_of: Any
    ) -> None:
        backend = backend_of(hooked.model, prefill_chunk=BLOCK)
        shared = kit.prompt(10 * BLOCK + 9, 1)
        told: list[int] = []
        backend.on_prefill = lambda done, _: told.append(done)
        for number, spared in enumerate([0, 10 * BLOCK, 10 * BLOCK]):
            ids = np.concatenate([shared, kit.prompt(20, 50 + number)])
            request = kit.request(ids, max_new_tokens=12, prefix_length=len(shared))
            told.clear()
            stream = backend.generate(request)
            output = [t for tokens in stream for t in tokens]
            assert output == kit.reference(hooked.model, request)
            assert stream.cached_tokens == spared
            assert len(told) == (11 if spared == 0 else 1)

    def test_a_beginning_shared_in_part_is_used_in_part(self, kit: Any, backend_of: Any) -> None:
        backend = backend_of(kit.model())
        first = kit.prompt(6 * BLOCK, 1)
        kit.read(backend, kit.request(first, max_new_tokens=1))
        other = first.copy()
        other[3 * BLOCK + 5] += 1
        request = kit.request(other, max_new_tokens=15)
        stream = backend.generate(request)
        output = [t for tokens in stream for t in tokens]
        assert stream.cached_tokens == 3 * BLOCK
        assert output == kit.reference(kit.model(), request)

    def test_eviction_bounds_it_and_changes_no_output(self, kit: Any, backend_of: Any) -> None:
        model = kit.model()
        sizes = backend_of(model)
        kit.read(sizes, kit.request(kit.prompt(BLOCK + 1, 1), max_new_tokens=1))
        block = sizes.prefix_cache.stored_bytes
        assert block > 0
        backend = backend_of(model, prefix_cache_bytes=5 * block)
        for seed in [1, 2, 3, 1, 2, 1, 1]:
            request = kit.request(kit.prompt(3 * BLOCK + 7, seed), max_new_tokens=8)
            assert kit.read(backend, request) == kit.reference(model, request)
            assert backend.prefix_cache.stored_bytes <= 5 * block
        stream = backend.generate(kit.request(kit.prompt(3 * BLOCK + 7, 1), max_new_tokens=1))
        list(stream)
        assert stream.cached_tokens == 3 * BLOCK

    def test_it_can_be_turned_off(self, kit: Any, backend_of: Any) -> None:
        backend = backend_of(kit.model(), prefix_cache_bytes=0)
        for _ in range(2):
            stream = backend.generate(kit.request(kit.prompt(200, 1), max_new_tokens=1))
            list(stream)
            assert stream.cached_tokens == 0


def test_running_sequences_wait_rather_than_exceed_their_memory(
    kit: Any, hooked: Hooked, backend_of: Any
) -> None:
    roomy = backend_of(hooked.model, draft_tokens=0)
    token_bytes = roomy._engine._runner.token_bytes
    backend = backend_of(hooked.model, draft_tokens=0, max_kv_bytes=2 * 60 * token_bytes)
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, len(backend._engine._running))

    hooked.act = look
    requests = [kit.request(kit.prompt(50, i), max_new_tokens=10) for i in range(5)]
    streams = [backend.generate(request) for request in requests]
    outputs = [[t for tokens in stream for t in tokens] for stream in streams]
    assert outputs == [kit.reference(hooked.model, request) for request in requests]
    assert most == 2


def test_drafts_give_way_where_company_pays_too_much() -> None:
    cost = CostModel()
    for _ in range(50):
        for tokens in (4, 8, 64):
            cost.observe(tokens, 0.001 + 0.001 * tokens)  # every token costs
    assert cost.best_width([17, 1, 1, 1]) == 1
    for _ in range(400):
        for tokens in (4, 8, 64):
            cost.observe(tokens, 0.1 + 0.00001 * tokens)  # passes cost, tokens hardly
    assert cost.best_width([17, 1, 1, 1]) == 17
    assert cost.best_width([1, 1]) == 1


@pytest.mark.slow
def test_an_interpreter_exits_while_the_model_is_busy(tmp_path: Any) -> None:
    script = tmp_path / "busy.py"
    script.write_text(
        textwrap.dedent("""
        import numpy as np
        from transformers import LlamaConfig, LlamaForCausalLM
        from recallm_core.backends import GenerationRequest, Sampling
        from recallm_core.backends.local.transformers import TransformersBackend
        from recallm_core.decoding.constraint import ConstraintRules, build_index
        from recallm_core.decoding.spec import ConstraintSpec, Tag, hash_tokens

        ids = np.arange(50, dtype=np.int32)
        none = np.zeros(0, dtype=bool)
        spec = ConstraintSpec(50, hash_tokens(ids), 100, (), none, none, none, Tag("<", (97,)),
                              Tag(">", (98,)), None, False, (99,))
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=100_000)).eval()
        backend = TransformersBackend(model)
        rules = ConstraintRules(spec, build_index(spec, ids))
        stream = backend.generate(GenerationRequest(ids, rules, Sampling(max_new_tokens=90_000)))
        print(len(next(stream)) > 0)
        """)
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", str(script)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True"
