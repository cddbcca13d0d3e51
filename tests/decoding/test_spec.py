"""Specs survive their trip as JSON; whatever doesn't fit together raises ConstraintError."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core.decoding.constraint import Constraint, ConstraintRules
from recallm_core.decoding.spec import MAX_JSON, ConstraintSpec, Tag, hash_tokens
from recallm_core.documents.document import Document
from recallm_core.errors import ConstraintError
from recallm_core.generator import RecaLLM
from recallm_core.prompting.prompt import Prompt
from recallm_core.prompting.recipe import Recipe, trained_recipe
from recallm_core.testing import OPEN, ByteTokenizer, ScriptedBackend, random_walk

RECIPES = {
    "trained": trained_recipe(system="{open}{close}"),
    "prompted": Recipe(system="{open}{close}"),
    "text-thinking": Recipe(system="{open}{close}", think_open="<reason>", think_close="</reason>"),
}
TEXTS = ["Paris is the capital.", "12,5 é🇫🇷 日本 </rec", "the the the"]


def prepared(kind: str, **settings: Any) -> Prompt:
    backend = ScriptedBackend(tokenizer=ByteTokenizer(["<rec", "all>", " the"]))
    llm = RecaLLM(backend.tokenizer, backend, RECIPES[kind])
    documents = [Document(text, str(n)) for n, text in enumerate(TEXTS)]
    return llm.prepare([{"role": "user", "content": "q"}], documents, **settings)[0]


def masks_of(constraint: Constraint) -> tuple[object, ...]:
    mask = constraint.mask()
    arrays = (mask.only, mask.forbid, mask.bias, mask.tilted)
    return tuple(None if a is None else a.tolist() for a in arrays)


@settings(max_examples=25)
@given(
    st.sampled_from(sorted(RECIPES)),
    st.sampled_from(["none", "sentences"]),
    st.integers(1, 9),
    st.sampled_from([0, 7, None]),
    st.integers(0, 2**32),
)
def test_a_spec_read_back_gives_the_same_masks(
    kind: str, prior: str, span: int, thinking: int | None, seed: int
) -> None:
    prompt = prepared(kind, prior=prior, max_span_tokens=span, max_thinking_tokens=thinking)
    text = prompt.spec.to_json()
    again = ConstraintSpec.from_json(text)
    assert again.to_json() == text
    ours = prompt.rules.start()
    theirs = ConstraintRules.from_spec(again, prompt.token_ids.tolist()).start()
    for token in random_walk(ours, random.Random(seed), marks=0.3):
        theirs.consume(token)
        assert masks_of(ours) == masks_of(theirs)
        assert ours.spans == theirs.spans
        if ours.length > 80:
            break


@pytest.mark.parametrize("kind", sorted(RECIPES))
def test_another_prompt_keeps_recall_closed(kind: str) -> None:
    prompt = prepared(kind)
    ids = prompt.token_ids.tolist()
    others = [[*ids[:-1], ids[-1] ^ 1], ids[:-1], [*ids, 5], []]
    for other in others:
        rules = ConstraintRules.from_spec(prompt.spec, other)
        walk = random_walk(rules.start(), random.Random(1), marks=0.5)
        constraint = rules.start()
        for token, _ in zip(walk, range(200), strict=False):
            constraint.consume(token)
            assert not constraint.in_span
    assert ConstraintRules.from_spec(prompt.spec, ids).index.copyable


def test_hashes_tell_prompts_apart_and_not_integer_types() -> None:
    assert hash_tokens(np.array([1, 2], np.int64)) == hash_tokens(np.array([1, 2], np.int32))
    assert hash_tokens(np.array([1, 2])) != hash_tokens(np.array([2, 1]))
    assert hash_tokens(np.array([], np.int32)) != hash_tokens(np.array([0]))


@cache
def good_json() -> str:
    return prepared("text-thinking", prior="sentences").spec.to_json()


def good() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(good_json())
    return data


FIELDS = sorted(good())
JUNK = [
    None,
    True,
    -1,
    1.5,
    2**31,
    10**30,
    "",
    "x",
    "AAAA",
    [],
    [[]],
    [[1, 2, 3]],
    [[5, 3]],
    [[0, 10**12]],
    [-1],
    ["1"],
    [True],
    {},
    {"text": "x"},
]


LEGAL_JUNK = {
    ("eos", "[]"),
    ("evidence", "None"),
    ("forbidden", "[]"),
    ("grammar", "None"),
    ("likely", "None"),
    ("max_thinking_tokens", "None"),
    ("prior", "None"),
    ("prior_weight", "-1"),
    ("prior_weight", "1.5"),
    ("prior_weight", str(2**31)),
    ("prior_weight", str(10**30)),
    ("prompt_hash", ""),
    ("prompt_hash", "x"),
    ("prompt_hash", "AAAA"),
    ("thinking", "True"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_junk_in_a_field_raises_or_is_a_legal_value(name: str) -> None:
    for junk in JUNK:
        text = json.dumps(good() | {name: junk})
        if (name, str(junk)) in LEGAL_JUNK:
            ConstraintSpec.from_json(text)
            continue
        with pytest.raises(ConstraintError):
            ConstraintSpec.from_json(text)


@pytest.mark.parametrize("mark", ["open", "close", "think_close"])
@pytest.mark.parametrize("name", ["text", "ids", "control", "watch", "rest", "begun"])
def test_junk_in_a_mark_raises(mark: str, name: str) -> None:
    for junk in JUNK:
        data = good()
        data[mark][name] = junk
        with pytest.raises(ConstraintError):
            ConstraintSpec.from_json(json.dumps(data))


@pytest.mark.parametrize("name", FIELDS)
def test_a_missing_field_raises(name: str) -> None:
    data = good()
    del data[name]
    with pytest.raises(ConstraintError, match="not a constraint spec of version 4"):
        ConstraintSpec.from_json(json.dumps(data))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        "nonsense",
        "[" * 100_000,
        '{"version":2,"version":NaN}',
        '{"version":' + "9" * 10_000 + "}",
        '"' + "x" * 100 + '"',
    ],
    ids=lambda text: text[:12],
)
def test_what_is_no_spec_raises(text: str) -> None:
    with pytest.raises(ConstraintError):
        ConstraintSpec.from_json(text)


def test_other_types_versions_and_sizes_raise() -> None:
    for text in (None, 5, b"{}"):
        with pytest.raises(ConstraintError, match="JSON string of at most"):
            ConstraintSpec.from_json(text)  # type: ignore[arg-type]
    with pytest.raises(ConstraintError, match="JSON string of at most"):
        ConstraintSpec.from_json(" " * (MAX_JSON + 1))
    with pytest.raises(ConstraintError, match="version 5, this library reads 4"):
        ConstraintSpec.from_json(json.dumps(good() | {"version": 5}))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("name", ["prior_weight", "max_span_tokens", "prompt_length"])
def test_numbers_that_are_none_raise(name: str, number: str) -> None:
    data = json.dumps(good() | {name: "HERE"}).replace('"HERE"', number)
    with pytest.raises(ConstraintError):
        ConstraintSpec.from_json(data)


@cache
def small_prompt() -> Prompt:
    return prepared("text-thinking", max_span_tokens=2)


@settings(max_examples=30)
@given(st.data())
def test_a_spec_with_any_byte_changed_raises_or_still_leaves_every_row_something(
    data: st.DataObject,
) -> None:
    prompt = small_prompt()
    text = prompt.spec.to_json()
    for _ in range(5):
        at = data.draw(st.integers(0, len(text) - 1))
        new = data.draw(st.sampled_from('0123456789[]{},":-ANtrue'))
        changed = text[:at] + new + text[at + 1 :]
        try:
            rules = ConstraintRules.from_spec(ConstraintSpec.from_json(changed), prompt.token_ids)
        except ConstraintError:
            continue
        constraint = rules.start()
        size = rules.spec.vocab_size
        for _token in random_walk(constraint, random.Random(at), marks=0.3):
            mask = constraint.mask()
            if mask.only is not None:
                assert mask.only.size
                assert 0 <= mask.only.min() <= mask.only.max() < size
            else:
                assert len(mask.forbid) < size
            if constraint.length > 60:
                break


def test_marks_and_limits_have_to_fit_together() -> None:
    spec = prepared("trained").spec
    with pytest.raises(ConstraintError, match="needs a mark that ends thinking"):
        replace(spec, think_close=None)
    with pytest.raises(ConstraintError, match="must differ"):
        replace(spec, close=spec.open)
    with pytest.raises(ConstraintError, match="must differ"):
        replace(spec, eos=(OPEN,))
    with pytest.raises(ConstraintError, match="aren't below"):
        replace(spec, eos=(spec.vocab_size,))
    with pytest.raises(ConstraintError, match="leave nothing to write"):
        replace(spec, forbidden=tuple(range(spec.vocab_size)))
    with pytest.raises(ConstraintError, match="max_span_tokens must be at least 1"):
        replace(spec, max_span_tokens=0)
    with pytest.raises(ConstraintError, match="can_start needs"):
        replace(spec, can_start=spec.can_start[:-1])
    with pytest.raises(ConstraintError, match="isn't an ascending"):
        replace(spec, runs=((5, 5),))
    with pytest.raises(ConstraintError, match="exactly one id"):
        Tag("<x>", (1, 2))
    with pytest.raises(ConstraintError, match="from state 1 isn't its end"):
        Tag("ab", (97, 98), False, ({97: 1}, {98: 2}), ((97, 98), (97,)), 1)
