"""What the processor refuses, and what it survives."""

from __future__ import annotations

import importlib
import json
import sys
import threading
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core.backends.vllm.wire import ARGUMENT
from recallm_core.decoding.grammar import schema_grammar
from recallm_core.decoding.spec import ConstraintSpec, GrammarSpec
from recallm_core.errors import MissingExtraError, TokenizerError
from recallm_core.serving import grammar_check
from recallm_core.serving import request as served_rows
from recallm_core.serving.grammar_check import MAX_GRAMMAR, grammar_problem
from recallm_core.serving.request import FolderEngines

PROCESSOR = "recallm_core.serving.processor"


def params(spec: ConstraintSpec | str, **others: Any) -> Any:
    text = spec if isinstance(spec, str) else spec.to_json()
    return SimpleNamespace(extra_args={ARGUMENT: text}, **others)


def config(width: int, **others: Any) -> Any:
    model = SimpleNamespace(tokenizer="folder", get_vocab_size=lambda: width)
    return SimpleNamespace(**{"speculative_config": None, "model_config": model} | others)


def first(module: Any, width: int = 400) -> Any:
    """A processor as the first runner makes it."""
    return module.RecallProcessor(config(width), torch.device("cpu"), False)


def added(index: int, asked: Any, prompt: list[int], output: list[int]) -> Any:
    return SimpleNamespace(removed=[], added=[(index, asked, prompt, output)], moved=[])


def legal(row: torch.Tensor) -> list[int]:
    return torch.isfinite(row).nonzero().flatten().tolist()


@pytest.mark.usefixtures("forgotten")
def test_without_vllm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'recallm-core\[vllm\]'"):
        importlib.import_module(PROCESSOR)


@pytest.mark.usefixtures("forgotten")
def test_what_vllm_itself_lacks_is_named_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise ModuleNotFoundError("No module named 'numba'", name="numba")

    for name in ("vllm", "vllm.v1", "vllm.v1.sample"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    name = "vllm.v1.sample.logits_processor"
    monkeypatch.setitem(sys.modules, name, Broken(name))
    with pytest.raises(ModuleNotFoundError, match="numba") as caught:
        importlib.import_module(PROCESSOR)
    assert not isinstance(caught.value, MissingExtraError)


def test_speculative_decoding_is_refused(vllm_processor: Any) -> None:
    with pytest.raises(ValueError, match="speculative"):
        vllm_processor.RecallProcessor(config(9, speculative_config=object()), None, False)


def test_requests_are_checked_before_they_are_queued(kit: Any, vllm_processor: Any) -> None:
    check = vllm_processor.RecallProcessor.validate_params
    spec = kit.prepared("trained", output=kit.RULES).spec
    check(params(spec))
    check(SimpleNamespace(extra_args=None, structured_outputs={}))
    with pytest.raises(ValueError, match="recallm"):
        check(params("{}"))
    for name in ("structured_outputs", "thinking_token_budget"):
        with pytest.raises(ValueError, match=name):
            check(params(spec, **{name: 1}))
    broken = GrammarSpec(answer="start: (")
    with pytest.raises(ValueError, match=r"grammar.*Expected token '\)'"):
        check(params(replace(spec, grammar=broken)))
    assert not vllm_processor.RecallProcessor.is_argmax_invariant(None)


def chain(rules: int) -> str:
    """Rules that lead from one to the next: compiling goes as deep."""
    lines = [f"r{n}: r{n + 1}" for n in range(rules)]
    return "\n".join(["start: r0", *lines, f'r{rules}: "a"'])


@pytest.mark.parametrize(
    ("grammar", "problem"),
    [
        ("hello", "Expected token"),
        ("", "Empty grammar"),
        ("start: nothing", "unknown name"),
        ("start: A\nA: /a/ & /b/", "NoExtension"),
        ("x" * (MAX_GRAMMAR + 1), "the limit is"),
        (chain(5000), "more than 1 second"),  # a stack overflow
        ('start: %json {"type": "integer", "multipleOf": 99999989}', "more than 1 second"),
        ("start: \ud800", "no text"),
    ],
)
def test_grammars_that_cannot_be_used_are_refused_in_time(grammar: str, problem: str) -> None:
    found = grammar_problem(grammar)
    assert found is not None
    assert problem in found
    assert len(found) < 600


def test_what_is_remembered_of_grammars_is_bounded() -> None:
    parameters = grammar_check._compile_apart.cache_parameters()
    before = grammar_check._compile_apart.cache_info().currsize
    for letter in "abcdef":
        assert grammar_problem(letter * (MAX_GRAMMAR + 1)) is not None
    assert grammar_check._compile_apart.cache_info().currsize == before
    assert parameters["maxsize"] * MAX_GRAMMAR <= 1 << 24


def test_usable_grammars_pass(kit: Any) -> None:
    assert grammar_problem(schema_grammar(kit.SCHEMA)) is None
    assert grammar_problem(chain(100)) is None


def test_where_nothing_can_be_checked_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_check.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="grammars can't be checked"):
        grammar_problem('start: "unseen"')


def test_the_tokenizer_is_read_at_once_and_only_once(
    kit: Any, vllm_processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, free = threading.Event(), threading.Event()
    calls = []

    def slow(folder: str, **_: Any) -> Any:
        calls.append(folder)
        begun.set()
        assert free.wait(60)
        return kit.TOKENIZER

    monkeypatch.setattr(served_rows.HFTokenizer, "from_folder", slow)
    processor = first(vllm_processor)
    assert begun.wait(60)  # nobody has asked for anything yet
    prompt = kit.prepared("trained", output=kit.RULES)
    plain, ids = kit.prepared("trained"), prompt.token_ids.tolist()
    processor.update_state(added(0, params(plain.spec), plain.token_ids.tolist(), []))
    assert len(legal(processor.apply(torch.zeros(1, 400))[0])) > 1  # not held up
    processor.update_state(added(1, params(prompt.spec), ids, []))  # nor is this
    free.set()
    other = replace(prompt.spec, eos=(ord("x"),))
    processor.update_state(added(2, params(other), ids, []))
    rows = processor.apply(torch.zeros(3, 400))
    assert all(len(legal(row)) > 1 for row in rows)
    assert calls == ["folder"]


def test_a_folder_without_a_tokenizer_ends_what_needs_one(
    kit: Any, vllm_processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise TokenizerError("no tokenizer here")

    monkeypatch.setattr(served_rows.HFTokenizer, "from_folder", fail)
    processor = first(vllm_processor)
    for index, options in enumerate(({}, {"output": kit.RULES})):
        prompt = kit.prepared("trained", **options)
        ids = prompt.token_ids.tolist()
        processor.update_state(added(index, params(prompt.spec), ids, []))
    free, lost = processor.apply(torch.zeros(2, 400))
    assert len(legal(free)) > 1
    assert legal(lost) == [prompt.spec.eos[0]]


def test_a_row_that_fails_ends_its_request_and_nobody_elses(
    kit: Any, vllm_processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = kit.prepared("trained")
    ids, ends = prompt.token_ids.tolist(), list(prompt.spec.eos[:1])
    processor = first(vllm_processor)
    outputs: list[list[int]] = [[], []]
    for index, output in enumerate(outputs):
        processor.update_state(added(index, params(prompt.spec), ids, output))
    processor.apply(torch.zeros(2, 400))
    outputs[0].append(ord("x"))
    monkeypatch.setattr("recallm_core.decoding.constraint.Constraint.consume", lambda *_: 1 / 0)
    failed, other = processor.apply(torch.zeros(2, 400))
    assert legal(failed) == ends
    assert len(legal(other)) > 1


@pytest.mark.usefixtures("vllm_processor")
def test_an_engine_for_other_ends_never_writes_them(kit: Any) -> None:
    spec, grammar = kit.prepared("trained").spec, 'start: "x" | "y"'
    engines = FolderEngines("folder", vocab_size=400)
    plain, other = engines(spec), engines(replace(spec, eos=(ord("x"), *spec.eos)))
    assert plain.matcher(grammar).allowed_tokens().tolist() == [ord("x"), ord("y")]
    assert other.matcher(grammar).allowed_tokens().tolist() == [ord("y")]
    assert plain.matcher(grammar).allowed_tokens().tolist() == [ord("x"), ord("y")]


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 500),
    st.sampled_from([2**31 - 1, 2**31, 10**30, 1e308, "", "x", "start: (", [], {}, [[0, 1]]]),
)


@settings(max_examples=150)
@given(
    st.booleans(), st.data(), st.lists(st.integers(-1, 410), max_size=6), st.integers(1, 410)
)  # fmt: skip
def test_hostile_arguments_are_refused_or_harmless(
    kit: Any,
    vllm_processor: Any,
    schema: bool,
    data: st.DataObject,
    output: list[int],
    width: int,
) -> None:
    prompt = kit.prepared("prompted", output=kit.RULES if schema else None)
    found = json.loads(prompt.spec.to_json())
    for _ in range(data.draw(st.integers(1, 3))):
        place = found
        key = data.draw(st.sampled_from(sorted(place)))
        while isinstance(place[key], dict) and place[key] and data.draw(st.booleans()):
            place = place[key]
            key = data.draw(st.sampled_from(sorted(place)))
        place[key] = data.draw(LEAVES)
    asked = params(json.dumps(found))
    try:
        vllm_processor.RecallProcessor.validate_params(asked)
    except ValueError:
        return
    processor = first(vllm_processor, width)
    processor.update_state(added(0, asked, prompt.token_ids.tolist(), output))
    assert processor.apply(torch.zeros(1, width)).shape == (1, width)
