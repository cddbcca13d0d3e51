"""The engine on llama.cpp against a loop that keeps nothing: same tokens, whatever else goes on."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core.backends import Backend, GenerationRequest, TokenStream
from recallm_core.backends.local.llama_cpp import LlamaCppBackend, load
from recallm_core.backends.local.llama_cpp_library import Model, Sequences
from recallm_core.backends.local.numpy_scores import legal_scores
from recallm_core.backends.local.sampling import Chooser
from recallm_core.errors import CheckpointError, ContextOverflowError, GenerationError

pytestmark = pytest.mark.usefixtures("llama_cpp")

FORGETFUL = ["mamba", "jamba", "lfm2"]  # of a state alone, or with layers that attend beside it
KINDS = ["qwen2", "llama", "gemma3", *FORGETFUL]
WAIT = 30.0
EXACT: Any = {"threads": 1, "kv_type": "f32"}  # else rounding decides between near equals


class Files:
    """Files of each kind, backends over them, and the slow loop."""

    def __init__(self, folder: Path, tiny: Any) -> None:
        self._folder, self._tiny = folder, tiny
        self._models: dict[str, tuple[Model, Sequences]] = {}
        self.backends: list[LlamaCppBackend] = []

    def path(self, kind: str = "qwen2") -> Path:
        path = self._folder / f"{kind}.gguf"
        if path.exists():
            return path
        if kind != "eager":
            return self._tiny.write(path, kind)
        weights = self._tiny.random_weights(self._tiny.KINDS["qwen2"][1], 0)
        weights["output.weight"][self._tiny.OPEN] *= 4  # half of the time it would open a span
        return self._tiny.write(path, weights=weights)

    def backend(self, kind: str = "qwen2", **options: Any) -> LlamaCppBackend:
        self.backends.append(LlamaCppBackend(self.path(kind), **EXACT, **options))
        return self.backends[-1]

    def alone(self, kind: str = "qwen2") -> Sequences:
        """One sequence, in cells of its own."""
        if kind not in self._models:
            model = Model(self.path(kind))
            alone = Sequences(model, cells=2048, rows=1, batch=2048, outputs=1, **EXACT)
            self._models[kind] = model, alone
        return self._models[kind][1]

    def reference(self, request: GenerationRequest, kind: str = "qwen2") -> list[int]:
        """The same output the slow way: everything is read anew for each token."""
        alone, sampling = self.alone(kind), request.sampling
        constraint = request.rules.start(request.prior)
        chooser = Chooser(sampling)
        ids = request.token_ids.tolist()
        output: list[int] = []
        while len(output) < sampling.max_new_tokens and not constraint.done:
            alone.drop(0)
            last = len(ids) + len(output) - 1
            rows = alone.read([(0, 0, ids + output)], [[last]])
            assert rows is not None
            mask = constraint.mask()
            if mask.only is not None and len(mask.only) == 1:  # there is nothing to choose
                output.append(int(mask.only[0]))
            else:
                output.append(chooser.pick(legal_scores(rows, [mask], [chooser.greedy])[0]))
            constraint.consume(output[-1])
        return output

    def close(self) -> None:
        for model, alone in self._models.values():
            alone.close()
            model.close()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Any) -> Iterator[Files]:
    files = Files(tmp_path_factory.mktemp("gguf"), tiny_gguf)
    yield files
    files.close()


@pytest.fixture
def files(opened: Files) -> Iterator[Files]:
    yield opened
    while opened.backends:
        opened.backends.pop().close()


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.002)


def idle(backend: Any) -> bool:
    engine = backend._engine
    return not engine._running and engine._reading is None and not engine._inbox


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_output_is_that_of_the_slow_loop(kit: Any, files: Files, kind: str) -> None:
    plain = files.backend(kind, draft_tokens=0)
    drafting = files.backend(kind, draft_tokens=8, prefill_chunk=20)
    assert plain.batched == (kind not in FORGETFUL)
    for seed in range(3):
        ids = kit.prompt(60, seed)
        request = kit.request(ids, kit.rules(ids, seed))
        expected = files.reference(request, kind)
        assert kit.read(plain, request) == expected
        assert kit.read(drafting, request) == expected


@pytest.mark.parametrize("policy", ["first", "required"])
def test_evidence_that_is_owed_is_that_of_the_slow_loop(
    kit: Any, files: Files, policy: str
) -> None:
    ids = kit.prompt(60, 3)
    request = kit.request(ids, kit.rules(ids, 3, evidence=kit.policies[policy]))
    expected = files.reference(request)
    assert kit.read(files.backend(draft_tokens=0), request) == expected
    assert kit.read(files.backend(draft_tokens=8), request) == expected
    assert kit.spans(request, expected)


@settings(max_examples=8)
@given(data=st.data())
def test_requests_that_come_and_go_never_change_each_other(
    kit: Any, opened: Files, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    backend = opened.backend(
        kind,
        max_batch=data.draw(st.integers(1, 4)),
        draft_tokens=data.draw(st.sampled_from([0, 1, 5, 16])),
        prefill_chunk=data.draw(st.sampled_from([3, 16, 512])),
        prefix_cache_bytes=data.draw(st.sampled_from([0, 20_000, None])),
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
        expected = opened.reference(request, kind)
        if stream is running[0][1]:  # some of the first one's tokens were read before
            assert expected[-len(output) or len(output) + 99 :] == output
        else:
            assert output == expected
            kit.spans(request, output)
    backend.close()


def test_a_thousand_spans_are_verbatim(kit: Any, files: Files) -> None:
    backend = files.backend("eager", max_batch=16)
    count = first = 0
    while count < 1000:
        requests = []
        for seed in range(first, first + 16):
            ids = kit.prompt(80, seed, alphabet=[3, 30, 280][seed % 3])
            rules = kit.rules(ids, seed, max_span_tokens=3, max_thinking_tokens=80)
            requests.append(kit.request(ids, rules, max_new_tokens=120, temperature=1.3, seed=seed))
        streams = [backend.generate(request) for request in requests]
        for request, stream in zip(requests, streams, strict=True):
            count += len(kit.spans(request, [t for tokens in stream for t in tokens]))
        first += 16
    assert count >= 1000


def test_the_same_weights_give_the_same_logits_and_masks_as_in_transformers(
    kit: Any, tiny_gguf: Any, tmp_path: Path, backend_of: Any
) -> None:
    """G5, and that a file means here what its weights mean elsewhere."""
    import torch

    model = kit.model()
    path = tmp_path / "same.gguf"
    tiny_gguf.write(path, "qwen2", weights=tiny_gguf.of_transformers(model))
    backend, other = LlamaCppBackend(path, **EXACT), backend_of(model)
    assert (backend.vocab_size, backend.window) == (other.vocab_size, other.window)
    weights = Model(path)
    alone = Sequences(weights, cells=256, rows=1, batch=256, outputs=64, **EXACT)
    ids = kit.prompt(50, 3)
    rows = alone.read([(0, 0, ids.tolist())], [range(50)])
    with torch.inference_mode():
        expected = model(torch.tensor(ids[None].astype(np.int64))).logits[0].numpy()
    assert rows is not None
    assert np.abs(np.stack(rows) - expected).max() < 1e-4 * np.abs(expected).max()
    for seed in range(3):
        request = kit.request(ids, kit.rules(ids, seed))
        here, there = request.rules.start(), request.rules.start()
        output = kit.read(backend, request)
        for token in output:
            assert np.array_equal(here.mask().only, there.mask().only)
            here.consume(token)
            there.consume(token)
        assert kit.read(other, request) == output
    alone.close()
    weights.close()
    backend.close()


def test_seeds_repeat_with_and_without_drafts_and_company(kit: Any, files: Files) -> None:
    ids = kit.prompt(60, 1)
    alone, drafting = files.backend(draft_tokens=0), files.backend()
    outputs = set()
    for seed in range(4):
        request = kit.request(ids, temperature=1.0, seed=seed)
        company = [drafting.generate(kit.request(kit.prompt(30, s))) for s in range(3)]
        output = kit.read(drafting, request)
        assert output == kit.read(alone, request) == files.reference(request)
        outputs.add(tuple(output))
        for stream in company:
            stream.close()
    assert len(outputs) == 4


@pytest.mark.parametrize("kind", ["qwen2", "gemma3"])
def test_a_second_question_reuses_the_beginning_and_says_the_same(
    kit: Any, files: Files, kind: str
) -> None:
    backend, without = files.backend(kind), files.backend(kind, prefix_cache_bytes=0)
    packs = [kit.prompt(300, seed) for seed in range(3)]
    for turn in range(3):
        for number, pack in enumerate(packs):  # in turn: each was set aside for the others
            ids = np.concatenate([pack, kit.prompt(20, 50 + turn)])
            request = kit.request(ids, kit.rules(ids, turn), prefix_length=300)
            stream = backend.generate(request)
            output = [t for tokens in stream for t in tokens]
            assert output == kit.read(without, request), (turn, number)
            assert stream.cached_tokens >= 300 if turn else stream.cached_tokens == 0
    assert [known.state is None for known in backend._engine._runner._beginnings] == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("kind", ["qwen2", "llama", "gemma3"])
def test_a_beginning_that_is_shared_in_part_is_cut(kit: Any, files: Files, kind: str) -> None:
    """Of a window of 8 nothing of the part is left that could be gone on from: it is read anew."""
    backend = files.backend(kind)
    ids = kit.prompt(200, 1)
    kit.read(backend, kit.request(ids, max_new_tokens=2))
    other = ids.copy()
    other[120:] = kit.prompt(80, 2)
    request = kit.request(other, kit.rules(other, 1))
    stream = backend.generate(request)
    assert [t for tokens in stream for t in tokens] == files.reference(request, kind)
    part = 120 + int(ids[120] == other[120])
    assert stream.cached_tokens in ((0, part) if kind == "gemma3" else (part,))


@pytest.mark.parametrize("kind", FORGETFUL)
def test_models_that_forget_share_nothing(kit: Any, files: Files, kind: str) -> None:
    backend = files.backend(kind)
    request = kit.request(kit.prompt(100, 1))
    for _ in range(2):
        stream = backend.generate(request)
        assert [t for tokens in stream for t in tokens] == files.reference(request, kind)
        assert stream.cached_tokens == 0


def test_a_split_model_writes_what_the_whole_one_does(
    kit: Any, files: Files, tiny_gguf: Any, tmp_path: Path
) -> None:
    tiny_gguf.write(tmp_path / "m.gguf", tensors_a_file=9)
    (first, *others) = sorted(tmp_path.glob("m-*.gguf"))
    backend = LlamaCppBackend(first, **EXACT)
    files.backends.append(backend)
    assert others
    ids = kit.prompt(60, 1)
    request = kit.request(ids, kit.rules(ids, 1))
    assert kit.read(backend, request) == files.reference(request)


def test_cells_grow_with_what_is_asked_and_all_goes_on(kit: Any, files: Files) -> None:
    backend = files.backend(max_batch=4)
    runner = backend._engine._runner
    before = runner._sequences.cells
    requests = []
    for seed in range(5):
        ids = kit.prompt(500 + 20 * seed, seed)
        rules = kit.rules(ids, seed)
        requests.append(kit.request(ids, rules, max_new_tokens=12, prefix_length=400))
    streams = [backend.generate(request) for request in requests]
    for request, stream in zip(requests, streams, strict=True):
        assert [t for tokens in stream for t in tokens] == files.reference(request)
    assert before < 2000 <= runner._sequences.cells
    again = backend.generate(requests[0])
    assert [t for tokens in again for t in tokens] == files.reference(requests[0])
    assert again.cached_tokens >= 400
    wait_for(lambda: idle(backend))
    runner.release(0)
    assert runner._sequences.cells == before
    again = backend.generate(requests[4])
    assert [t for tokens in again for t in tokens] == files.reference(requests[4])
    assert again.cached_tokens >= 400


def test_sequences_that_share_cells_can_move(kit: Any, files: Files) -> None:
    """Each brings its own to where there are more."""
    backend = files.backend(max_batch=4)
    pack = kit.prompt(700, 1)
    requests = []
    for seed in range(4):
        ids = np.concatenate([pack, kit.prompt(10, seed)])
        rules = kit.rules(ids, seed, forbidden=(kit.eos,), max_thinking_tokens=None)
        requests.append(kit.request(ids, rules, max_new_tokens=110, prefix_length=700))
    kit.read(backend, kit.request(requests[0].token_ids, max_new_tokens=1, prefix_length=700))
    streams = [backend.generate(request) for request in requests]
    outputs = [[t for tokens in stream for t in tokens] for stream in streams]
    assert [stream.cached_tokens >= 700 for stream in streams] == [True] * 4
    assert backend._engine._runner._sequences.cells > 4 * 700
    for request, output in zip(requests, outputs, strict=True):
        assert output[:20] == files.reference(cut(request, 20))


def cut(request: GenerationRequest, count: int) -> GenerationRequest:
    """The same request for fewer tokens."""
    return replace(request, sampling=replace(request.sampling, max_new_tokens=count))


def test_where_no_more_cells_may_be_made_the_newest_beginning_goes(kit: Any, files: Files) -> None:
    backend = files.backend(window=1024, max_kv_bytes=0, prefix_cache_bytes=270_000)
    requests = []
    for seed in range(4):
        ids = kit.prompt(960, seed)
        rules = kit.rules(ids, seed)
        requests.append(kit.request(ids, rules, max_new_tokens=6, prefix_length=900))
    for request in (*requests, requests[0]):
        assert kit.read(backend, request) == files.reference(request)
    assert backend._engine._runner._sequences.cells <= 2048


@pytest.mark.parametrize("how", ["close", "drop"])
def test_closing_or_dropping_a_stream_stops_the_model(kit: Any, files: Files, how: str) -> None:
    backend = files.backend()
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
    assert kit.read(backend, kit.request(ids, max_new_tokens=1)) != []


def test_a_long_prompt_can_be_cancelled_between_its_pieces(kit: Any, files: Files) -> None:
    backend = files.backend(prefill_chunk=64)
    third, go_on = threading.Event(), threading.Event()
    told: list[int] = []

    def pause(done: int, total: int) -> None:
        told.append(done)
        if len(told) == 3:
            third.set()
            assert go_on.wait(WAIT)

    backend.on_prefill = pause
    stream = backend.generate(kit.request(kit.prompt(3000, 1)))
    assert third.wait(WAIT)
    stream.close()
    go_on.set()
    wait_for(lambda: idle(backend))
    assert len(told) == 3
    assert list(stream) == []


def test_a_piece_of_a_prompt_takes_about_a_second(kit: Any, files: Files) -> None:
    backend = files.backend()
    runner = backend._engine._runner
    runner._pace = 40.0  # tokens a second, as of a large model
    told: list[int] = []
    backend.on_prefill = lambda done, total: told.append(done)
    kit.read(backend, kit.request(kit.prompt(500, 1), max_new_tokens=1))
    assert told[0] == 41
    assert runner._pace > 1000


def test_a_failing_pass_reaches_its_callers_and_the_engine_lives_on(
    kit: Any, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = files.backend()
    ids = kit.prompt(20, 1)
    expected = files.reference(kit.request(ids))
    read = Sequences.read
    for failing in (1, 3):  # while reading the prompt, and while generating
        calls = iter(range(99))

        def fail(self: Any, *given: Any, at: int = failing, calls: Any = calls) -> Any:
            if next(calls) == at - 1:
                raise GenerationError("llama.cpp failed with code -3 while it read tokens")
            return read(self, *given)

        monkeypatch.setattr(Sequences, "read", fail)
        with pytest.raises(GenerationError, match="code -3"):
            kit.read(backend, kit.request(ids))
        monkeypatch.setattr(Sequences, "read", read)
        assert kit.read(backend, kit.request(ids)) == expected


def test_closing_frees_the_model_and_ends_the_streams(kit: Any, files: Files) -> None:
    backend = files.backend()
    rules = kit.rules(kit.prompt(20, 1), forbidden=(kit.eos,), max_thinking_tokens=None)
    stream = backend.generate(kit.request(kit.prompt(20, 1), rules, max_new_tokens=4000))
    next(stream)
    backend.close()
    backend.close()
    with pytest.raises(GenerationError, match="closed"):
        list(stream)
    with pytest.raises(GenerationError, match="closed"):
        backend.generate(kit.request(kit.prompt(20, 1)))
    wait_for(lambda: backend.model.handle is None)
    unused = files.backend()
    unused.close()
    assert unused.model.handle is None


def test_it_is_what_the_protocol_says(kit: Any, files: Files) -> None:
    backend: Backend = files.backend()
    stream: TokenStream = backend.generate(kit.request(kit.prompt(20, 1), max_new_tokens=1))
    assert list(stream) != []
    assert (backend.window, backend.vocab_size, backend.in_process) == (4096, kit.vocab, True)
    assert files.backends[-1].eos_ids == (295, kit.eos)


def test_settings_that_make_no_sense_are_refused(kit: Any, files: Files) -> None:
    for name, bad in {
        "window": 1,
        "max_batch": 0,
        "max_kv_bytes": -1,
        "prefix_cache_bytes": "many",
        "prefill_chunk": 0,
        "draft_tokens": -1,
        "threads": 0,
        "gpu_layers": -2,
    }.items():
        with pytest.raises(ValueError, match=name):
            LlamaCppBackend(files.path(), **{"threads": 1, name: bad})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"unknown options \['device'\].*threads"):
        load(files.path(), device="cuda")
    with pytest.raises(ContextOverflowError, match="context length is 100"):
        files.backend(window=100).generate(kit.request(kit.prompt(90, 1)))


def test_a_file_that_llama_cpp_refuses_says_why(
    tiny_gguf: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    weights = tiny_gguf.random_weights(tiny_gguf.KINDS["qwen2"][1], 0)
    del weights["blk.1.attn_q.weight"]
    path = tiny_gguf.write(tmp_path / "lacking.gguf", weights=weights)
    with pytest.raises(CheckpointError, match=r"can't load .*lacking.gguf.*attn_q"):
        LlamaCppBackend(path)
    assert capfd.readouterr() == ("", "")
