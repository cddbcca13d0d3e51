"""What a caller leaves open is filled in once, from one table, and nothing else has defaults."""

from __future__ import annotations

import inspect
import typing
from dataclasses import MISSING, fields
from types import NoneType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.backends import Sampling
from recallm_core.decoding.grammar import OutputRules, tool_spec
from recallm_core.decoding.recall_index import RecallIndex
from recallm_core.decoding.spec import ConstraintSpec
from recallm_core.prompting.params import DEFAULTS, GenerationParams, ResolvedParams
from recallm_core.prompting.recipe import Recipe, prompted_recipe, trained_recipe
from recallm_core.prompting.resolving import resolve

NAMES = [f.name for f in fields(GenerationParams)]
TOOL = tool_spec({"type": "function", "function": {"name": "f", "parameters": {}}})
OUTPUTS = [None, OutputRules(schema={}), OutputRules((TOOL,)), OutputRules((TOOL,), "required")]
PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "max_new_tokens": st.integers(1, 5000),
        "max_thinking_tokens": st.integers(0, 5000),
        "max_spans": st.integers(0, 9),
        "temperature": st.floats(0, 2),
        "boundary": st.sampled_from(["sentence", "word", "character"]),
        "recall_in": st.sampled_from(["thinking", "answer", "thinking+answer", "none"]),
        "evidence": st.sampled_from(["auto", "required", "first", "free"]),
        "answer_form": st.sampled_from(["words", "quote"]),
        "prior": st.sampled_from(["none", "sentences", "reader"]),
    },
)


def test_the_fields_are_those_that_callers_set_and_only_the_seed_may_be_open() -> None:
    asked, resolved = (typing.get_type_hints(kind) for kind in (GenerationParams, ResolvedParams))
    assert list(resolved) == NAMES
    optional = {name for name, kind in resolved.items() if NoneType in typing.get_args(kind)}
    assert optional == {"seed"}
    for name in NAMES:
        if name not in ("seed", "evidence"):
            assert asked[name] == resolved[name] | None


@given(PARAMS, st.sampled_from(OUTPUTS), st.booleans())
def test_everything_is_filled_in_and_what_was_set_stays(
    settings: dict[str, Any], output: OutputRules | None, trained: bool
) -> None:
    recipe = trained_recipe() if trained else prompted_recipe()
    params = resolve(GenerationParams(**settings), recipe, output)
    for name in NAMES:
        value = getattr(params, name)
        assert value is not None or name == "seed"
        if name not in ("evidence", "max_thinking_tokens"):
            assert value == settings.get(name, value)
    assert params.evidence in ("required", "first", "free")
    assert params.max_thinking_tokens < params.max_new_tokens
    assert params.max_thinking_tokens <= settings.get("max_thinking_tokens", 5000)
    assert resolve(GenerationParams(**settings), recipe, output) == params


def test_the_defaults_stand_in_one_table() -> None:
    """What lower layers take when nobody says anything is the same."""
    assert resolve(GenerationParams(), Recipe(mode="trained")) == DEFAULTS
    for kind in (Sampling, ConstraintSpec):
        for field in fields(kind):
            if field.name in NAMES and field.default not in (MISSING, None):
                assert field.default == getattr(DEFAULTS, field.name), field.name
    matcher = inspect.signature(RecallIndex.matcher).parameters
    assert matcher["max_span_tokens"].default == DEFAULTS.max_span_tokens


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("seed", "evidence")])
def test_the_recipe_comes_before_the_table_and_the_caller_before_both(name: str) -> None:
    other = {
        "max_new_tokens": (9, 7),
        "temperature": (0.0, 0.5),
        "top_p": (0.5, 0.25),
        "stop": (("a",), ("b",)),
        "max_thinking_tokens": (3, 2),
        "max_span_tokens": (5, 4),
        "max_spans": (1, 2),
        "recall_in": ("answer", "none"),
        "boundary": ("character", "sentence"),
        "scope": ("prompt", "documents"),
        "abstain_policy": ("said", "unsupported"),
        "prior": ("reader", "sentences"),
        "prior_weight": (0.5, 2.0),
        "answer_form": ("quote", "words"),
    }[name]
    recipe = Recipe(mode="trained", sampling={name: other[0]})
    assert getattr(resolve(GenerationParams(), recipe), name) == other[0]
    assert getattr(resolve(GenerationParams(**{name: other[1]}), recipe), name) == other[1]
