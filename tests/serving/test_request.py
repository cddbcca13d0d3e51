"""A worker's rows against a fresh replay, whatever the worker forgets, moves or shows twice."""

from __future__ import annotations

import gc
import json
import random
from dataclasses import replace
from itertools import islice
from typing import Any
from weakref import ref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core.backends import masking as mask_rows
from recallm_core.backends.masking import RowMask, write_masks
from recallm_core.backends.vllm.wire import ARGUMENT
from recallm_core.decoding.constraint import ConstraintRules, Mask, build_index
from recallm_core.decoding.grammar import GrammarEngine, GrammarMatcher
from recallm_core.decoding.recall_index import RecallIndex
from recallm_core.decoding.spec import SPEC_VERSION, ConstraintSpec
from recallm_core.errors import TokenizerError
from recallm_core.serving.request import ServedRow, SharedRules, read_spec
from recallm_core.testing import random_walk


def plain(mask: Mask | None) -> object:
    assert mask is not None
    arrays = (mask.only, mask.forbid, mask.bias, mask.tilted)
    return tuple(None if a is None else a.tolist() for a in arrays)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["trained", "prompted"]),
    st.sampled_from(["none", "sentences"]),
    st.sampled_from(["free", "required", "first"]),
    st.booleans(),
    st.integers(0, 2**32),
    st.data(),
)
def test_masks_are_those_of_a_fresh_replay(
    kit: Any, kind: str, prior: str, evidence: str, schema: bool, seed: int, data: st.DataObject
) -> None:
    output = kit.RULES if schema else None
    prompt = kit.prepared(kind, prior=prior, evidence=evidence, output=output)
    spec, ids = ConstraintSpec.from_json(prompt.spec.to_json()), prompt.token_ids.tolist()
    walk = list(islice(random_walk(prompt.rules.start(), random.Random(seed), marks=0.4), 50))
    row = ServedRow(spec, kit.engines)
    rules = ConstraintRules.from_spec(spec, ids, kit.engines(spec) if schema else None)
    lengths = data.draw(st.lists(st.integers(0, len(walk)), min_size=1, max_size=8))
    for length in lengths:  # forward, back, twice: as a worker may ask
        if data.draw(st.booleans()):
            row = ServedRow(spec, kit.engines)  # preempted, and met again with an output
        wanted = rules.start()
        for token in walk[:length]:
            wanted.consume(token)
        assert plain(row.mask(ids, walk[:length], spec.vocab_size)) == plain(wanted.mask())


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(["trained", "prompted"]),
    st.lists(st.tuples(st.booleans(), st.integers(0, 2**32)), min_size=2, max_size=4),
    st.data(),
)
def test_sequences_that_share_their_rules_get_the_masks_of_each_alone(
    kit: Any, kind: str, sequences: list[tuple[bool, int]], data: st.DataObject
) -> None:
    prompt = kit.prepared(kind, evidence="free")
    text, ids, shared = prompt.spec.to_json(), prompt.token_ids.tolist(), SharedRules()
    rows, prompts, walks = [], [], []
    for other, seed in sequences:  # some come with another prompt than their spec's
        spec = shared.read_spec({ARGUMENT: "".join(text)})
        assert spec is not None
        prompts.append(ids[:-1] if other else ids)
        rows.append(ServedRow(spec, kit.engines, shared.bind))
        rules = ConstraintRules.from_spec(prompt.spec, prompts[-1])
        walks.append(list(islice(random_walk(rules.start(), random.Random(seed), marks=0.4), 30)))
    places = st.tuples(st.integers(0, len(rows) - 1), st.integers(0, 30))
    for number, length in data.draw(st.lists(places, min_size=2, max_size=12)):
        output = walks[number][:length]
        wanted = ConstraintRules.from_spec(prompt.spec, prompts[number]).start()
        for token in output:
            wanted.consume(token)
        found = rows[number].mask(prompts[number], output, prompt.spec.vocab_size)
        assert plain(found) == plain(wanted.mask())


def test_sequences_of_one_prompt_share_an_index_as_long_as_one_is_served(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = kit.prepared("trained")
    text, ids, shared = prompt.spec.to_json(), prompt.token_ids.tolist(), SharedRules()
    built: list[Any] = []

    def counted(spec: ConstraintSpec, ids: Any) -> RecallIndex:
        index = build_index(spec, ids)
        built.append(ref(index))
        return index

    monkeypatch.setattr("recallm_core.decoding.constraint.build_index", counted)
    rows = []
    for _ in range(3):
        spec = shared.read_spec({ARGUMENT: json.dumps(json.loads(text), separators=(",", ":"))})
        assert spec is not None
        rows.append(ServedRow(spec, kit.engines, shared.bind))
        rows[-1].mask(list(ids), [], spec.vocab_size)
    assert len({id(row.spec) for row in rows}) == len(built) == 1
    del rows, spec
    gc.collect()
    assert built[0]() is None


def test_an_output_that_broke_the_rules_is_left_alone_and_never_raises(kit: Any) -> None:
    prompt = kit.prepared("trained")
    row, ids, width = ServedRow(prompt.spec, kit.engines), prompt.token_ids.tolist(), 400
    opened = prompt.spec.open.ids[0]
    assert row.mask(ids, [opened, opened], width) is None
    assert row.mask(ids, [opened, -1], width) is None
    assert row.mask(ids, [10**9], width) is None
    assert row.mask(ids, [opened], width) is not None  # told the truth again


def test_another_prompt_keeps_recall_closed(kit: Any) -> None:
    prompt = kit.prepared("trained")
    row = ServedRow(prompt.spec, kit.engines)
    mask = row.mask([1, 2, 3], [], prompt.spec.vocab_size)
    assert mask is not None
    assert not mask.allows(prompt.spec.open.ids[0])


def no_engine(spec: ConstraintSpec) -> GrammarEngine:
    raise TokenizerError("no tokenizer here")


def test_rules_that_cannot_be_built_end_the_output_at_once(kit: Any) -> None:
    prompt = kit.prepared("trained")
    ids, spec = prompt.token_ids.tolist(), prompt.spec
    narrow = ServedRow(spec, kit.engines).mask(ids, [], spec.vocab_size - 1)
    schema = kit.prepared("trained", output=kit.RULES)
    lost = ServedRow(schema.spec, no_engine).mask(schema.token_ids.tolist(), [], 1000)
    for mask in (narrow, lost):
        assert mask is not None
        assert mask.only is not None
        assert mask.only.tolist() == list(spec.eos[:1])


def test_a_grammar_at_its_engines_limits_ends_the_output(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = kit.prepared("trained", output=kit.RULES)
    spec, ids = replace(prompt.spec, thinking=False), prompt.token_ids.tolist()
    row = ServedRow(spec, kit.engines)
    nothing = np.empty(0, dtype=np.int64)
    monkeypatch.setattr(GrammarMatcher, "allowed_tokens", lambda self: nothing)
    mask = row.mask(ids, [], spec.vocab_size)
    assert mask is not None
    assert mask.only is not None
    assert mask.only.tolist() == list(spec.eos[:1])


def test_arguments_are_checked_before_a_request_is_queued(kit: Any) -> None:
    good = kit.prepared("trained").spec.to_json()
    assert read_spec(None) is None
    assert read_spec({}) is None
    assert read_spec({"other": 1}) is None
    found = read_spec({ARGUMENT: good})
    assert found is not None
    assert found.to_json() == good
    older = good.replace(f'"version":{SPEC_VERSION}', '"version":0')
    for bad in ("{}", "", 7, ["x"], good[:-2], older):
        with pytest.raises(ValueError, match="recallm"):
            read_spec({ARGUMENT: bad})


@st.composite
def row_masks(draw: st.DrawFn) -> tuple[list[RowMask], bool]:
    """Masks for some of six rows, over a vocabulary of 10 in logits 13 wide."""
    found = []
    for row in sorted(draw(st.sets(st.integers(0, 5), min_size=1))):
        ids = np.array(sorted(draw(st.sets(st.integers(0, 9), min_size=1))), dtype=np.int64)
        biased = draw(st.booleans())
        only = Mask(only=ids, bias=ids * 0.5 - 1 if biased else None)
        raised = np.array(sorted(draw(st.sets(st.integers(0, 9), min_size=1))), dtype=np.int64)
        tilted = Mask(None, ids, bias=raised + 0.5, tilted=raised)
        mask = draw(st.sampled_from([only, Mask(only=None, forbid=ids), tilted]))
        found.append(RowMask(row, mask, 10))
    return found, draw(st.booleans())


@given(
    row_masks(),
    st.sets(st.integers(0, 5)),
    st.sampled_from([2, 4096]),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_legal_logits_keep_their_bits_and_all_others_are_gone(
    kit: Any,
    drawn: tuple[list[RowMask], bool],
    forbidden_by_others: set[int],
    large: int,
    on_host: bool,
    seed: int,
) -> None:
    masks, apart = drawn
    whole = torch.randn(6, 17, generator=torch.Generator().manual_seed(seed))
    before = whole[:, 2:15] if apart else whole[:, 2:15].contiguous()
    before[sorted(forbidden_by_others)] = -torch.inf
    after = whole.clone()[:, 2:15] if apart else before.clone()
    with pytest.MonkeyPatch.context() as patch, kit.NoWaiting():
        patch.setattr(mask_rows, "_LARGE", large)
        patch.setattr(mask_rows, "_WIDE", large)
        if not on_host:
            patch.setattr(mask_rows, "host_rows", lambda logits: None)
        write_masks(after, masks)
    held = {each.row: each.mask for each in masks}
    for row in range(6):
        wanted = kit.expected_row(before[row], held.get(row), 10)
        assert torch.equal(after[row], wanted)
