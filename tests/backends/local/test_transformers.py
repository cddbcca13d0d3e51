"""The engine against the slow loop of conftest: same tokens, whatever else is going on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core.backends import Backend, TokenStream
from recallm_core.backends.local import runner
from recallm_core.backends.local.transformers import load
from recallm_core.errors import ConstraintError, ContextOverflowError
from recallm_core.models import shipped

KINDS = ["qwen2", "llama", "qwen3", "gemma", "gpt_neox"]
SINGLE = [
    ("mistral", {"sliding_window": 8}),
    ("gemma2", {"sliding_window": 8, "head_dim": 8}),
    ("bloom", {"n_head": 4, "n_layer": 2}),
    ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}),
]


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_output_is_that_of_the_slow_loop(kit: Any, backend_of: Any, kind: str) -> None:
    model = kit.model(kind)
    plain = backend_of(model, draft_tokens=0)
    drafting = backend_of(model, draft_tokens=8, prefill_chunk=20)
    assert plain.batched
    for seed in range(3):
        ids = kit.prompt(60, seed)
        request = kit.request(ids, kit.rules(ids, seed))
        expected = kit.reference(model, request)
        assert kit.read(plain, request) == expected
        assert kit.read(drafting, request) == expected


@pytest.mark.parametrize(("kind", "extra"), SINGLE)
def test_models_that_batching_would_change_run_one_by_one(
    kit: Any, backend_of: Any, kind: str, extra: dict[str, Any]
) -> None:
    model = kit.fresh_model(kind, **extra)
    backend = backend_of(model, prefill_chunk=17)
    assert not backend.batched
    requests = [kit.request(kit.prompt(50, seed), max_new_tokens=15) for seed in range(2)]
    streams = [backend.generate(request) for request in requests]
    for request, stream in zip(requests, streams, strict=True):
        assert [t for tokens in stream for t in tokens] == kit.reference(model, request)
        assert stream.cached_tokens == 0


def test_the_shipped_model_batches_and_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shipped("recallm-mini")
    assert folder is not None
    tried = load(folder, batches=False)
    assert tried.batched
    monkeypatch.setattr(runner, "_batches", lambda *_: False)
    loaded = load(folder)
    assert loaded.batched
    assert loaded.vocab_size == tried.vocab_size
    assert not load(folder, attention="eager").batched  # not as it was tried


def test_eager_attention_batches_too(kit: Any, backend_of: Any) -> None:
    model = kit.fresh_model(attn_implementation="eager")
    backend = backend_of(model)
    assert backend.batched
    requests = [kit.request(kit.prompt(40 + 9 * seed, seed)) for seed in range(3)]
    streams = [backend.generate(request) for request in requests]
    for request, stream in zip(requests, streams, strict=True):
        assert [t for tokens in stream for t in tokens] == kit.reference(model, request)


@settings(max_examples=8)
@given(data=st.data())
def test_requests_that_come_and_go_never_change_each_other(kit: Any, data: st.DataObject) -> None:
    from recallm_core.backends.local.transformers import TransformersBackend

    model = kit.model(data.draw(st.sampled_from(["qwen2", "llama"])))
    backend = TransformersBackend(
        model,
        max_batch=data.draw(st.integers(1, 4)),
        draft_tokens=data.draw(st.sampled_from([0, 1, 5, 16])),
        prefill_chunk=data.draw(st.sampled_from([3, 16, 512])),
    )
    running = []
    for _ in range(data.draw(st.integers(1, 5))):
        seed = data.draw(st.integers(0, 30))
        ids = kit.prompt(data.draw(st.integers(8, 60)), seed, alphabet=12)
        sampling = {
            "max_new_tokens": data.draw(st.integers(1, 30)),
            "temperature": data.draw(st.sampled_from([0.0, 0.7, 1.5])),
            "top_p": data.draw(st.sampled_from([0.5, 0.95, 1.0])),
            "seed": seed,
        }
        request = kit.request(ids, kit.rules(ids, seed), **sampling)
        running.append((request, backend.generate(request)))
        if data.draw(st.booleans()):
            next(running[0][1], None)
        if data.draw(st.integers(0, 4)) == 0:
            running.pop(0)[1].close()
    for request, stream in running:
        output = [token for tokens in stream for token in tokens]
        if stream is running[0][1]:  # some of the first one's tokens were read before
            assert kit.reference(model, request)[-len(output) or len(output) + 99 :] == output
        else:
            assert output == kit.reference(model, request)
            kit.spans(request, output)
    backend.close()


def test_seeds_repeat_and_differ_with_and_without_drafts_and_company(
    kit: Any, backend_of: Any
) -> None:
    model = kit.model()
    ids = kit.prompt(60, 1)
    alone, drafting = backend_of(model, draft_tokens=0), backend_of(model)
    outputs = set()
    for seed in range(4):
        request = kit.request(ids, temperature=1.0, seed=seed)
        company = [drafting.generate(kit.request(kit.prompt(30, s))) for s in range(3)]
        output = kit.read(drafting, request)
        assert output == kit.read(alone, request) == kit.reference(model, request)
        outputs.add(tuple(output))
        for stream in company:
            stream.close()
    assert len(outputs) == 4
    free = kit.request(ids, temperature=1.5, seed=None)
    assert kit.read(alone, free) != kit.read(alone, free)


def test_a_prior_tilts_the_same_way_as_in_the_slow_loop(kit: Any, backend_of: Any) -> None:
    model = kit.model()
    ids = kit.prompt(60, 5)
    rules = kit.rules(ids)
    scores = np.random.default_rng(0).normal(size=rules.index.size) * 5
    request = kit.request(ids, rules, prior=lambda section, spans: scores)
    output = kit.read(backend_of(model), request)
    assert output == kit.reference(model, request)
    assert output != kit.read(backend_of(model), kit.request(ids, rules))


def test_a_few_hundred_spans_are_verbatim(kit: Any, backend_of: Any) -> None:
    assert count_spans(kit, backend_of(kit.model(), max_batch=16), 200) >= 200


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_five_thousand_spans_are_verbatim(kit: Any, backend_of: Any) -> None:
    backends = [backend_of(kit.model(kind), max_batch=16) for kind in KINDS]
    assert sum(count_spans(kit, backend, 1000, first=77) for backend in backends) >= 5000


def count_spans(kit: Any, backend: Any, goal: int, first: int = 0) -> int:
    """Samples batches until there were enough spans; every one is checked."""
    found = 0
    while found < goal:
        requests = []
        for seed in range(first, first + 16):
            ids = kit.prompt(80, seed, alphabet=[3, 30, 280][seed % 3])
            rules = kit.rules(ids, seed, max_span_tokens=5, max_thinking_tokens=80)
            requests.append(kit.request(ids, rules, max_new_tokens=120, temperature=1.3, seed=seed))
        streams = [backend.generate(request) for request in requests]
        for request, stream in zip(requests, streams, strict=True):
            found += len(kit.spans(request, [t for tokens in stream for t in tokens]))
        first += 16
    return found


def test_finish_reasons(kit: Any, backend_of: Any) -> None:
    backend = backend_of(kit.model())
    ids = kit.prompt(40, 3)
    stream = backend.generate(kit.request(ids, max_new_tokens=3))
    assert stream.finish_reason is None or stream.finish_reason == "length"
    assert sum(len(tokens) for tokens in stream) == 3
    assert stream.finish_reason == "length"
    plain = {"thinking": False, "think_close": None, "recall_in": "none", "runs": ()}
    empty = {name: np.zeros(0, dtype=bool) for name in ("can_start", "can_end", "can_end_hard")}
    few = kit.rules(ids, forbidden=tuple(range(2, 290)), **plain, **empty)
    request = kit.request(ids, few, max_new_tokens=300, temperature=100.0, seed=1)
    stream = backend.generate(request)
    output = [t for tokens in stream for t in tokens]
    assert output.index(kit.eos) == len(output) - 1 < 299
    assert stream.finish_reason == "stop"
    stream = backend.generate(kit.request(ids))
    stream.close()
    stream.close()
    assert stream.finish_reason == "cancelled"
    assert list(stream) == []


def test_progress_of_reading_a_prompt_is_told(kit: Any, backend_of: Any) -> None:
    backend = backend_of(kit.model(), prefill_chunk=16)
    told: list[tuple[int, int]] = []
    backend.on_prefill = lambda done, total: told.append((done, total))
    kit.read(backend, kit.request(kit.prompt(50, 1), max_new_tokens=1))
    assert [total for _, total in told] == [50] * len(told)
    done = [done for done, _ in told]
    assert done == sorted(set(done))
    assert done[-1] == 50
    assert len(done) >= 2


def test_it_is_what_the_protocol_says(kit: Any, backend_of: Any) -> None:
    backend: Backend = backend_of(kit.model())
    stream: TokenStream = backend.generate(kit.request(kit.prompt(20, 1), max_new_tokens=1))
    assert list(stream) != []
    assert (backend.window, backend.vocab_size, backend.in_process) == (4096, kit.vocab, True)


def test_requests_that_make_no_sense_are_refused_at_once(kit: Any, backend_of: Any) -> None:
    backend = backend_of(kit.model(), window=100)
    ids = kit.prompt(60, 1)
    with pytest.raises(ContextOverflowError, match=r"60 tokens and 41 .* context length is 100"):
        backend.generate(kit.request(ids, max_new_tokens=41))
    rules = kit.rules(ids)
    with pytest.raises(ValueError, match="no tokens"):
        backend.generate(kit.request(ids[:0], rules))
    with pytest.raises(ValueError, match="don't belong"):
        backend.generate(kit.request(ids + 300, rules))
    with pytest.raises(ValueError, match="prefix_length"):
        backend.generate(kit.request(ids, rules, prefix_length=61))
    with pytest.raises(ConstraintError, match="301 wide"):
        backend.generate(kit.request(ids, kit.rules(ids, vocab_size=301)))
    for bad in (
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"max_new_tokens": 0},
    ):
        with pytest.raises(ValueError, match=next(iter(bad))):
            backend.generate(kit.request(ids, rules, **bad))
    with pytest.raises(ValueError, match="max_batch"):
        backend_of(kit.model(), max_batch=0)
