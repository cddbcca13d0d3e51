"""Settings are checked when they are made, and defaults fill only what is unset."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.prompting.params import BASE, GenerationParams

NAMES = [f.name for f in fields(GenerationParams)]
WHOLE = ["max_new_tokens", "max_thinking_tokens", "max_span_tokens", "max_spans", "seed"]
REAL = ["temperature", "top_p", "prior_weight"]
CHOICES = ["recall_in", "boundary", "scope", "abstain_policy", "prior", "answer_form"]

SET = st.fixed_dictionaries(
    {},
    optional={
        "max_new_tokens": st.integers(1, 10_000),
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0.01, 1),
        "seed": st.integers(0, 2**31),
        "stop": st.lists(st.text(min_size=1, max_size=3), max_size=3),
        "max_spans": st.integers(0, 9),
        "recall_in": st.sampled_from(["thinking", "answer", "none"]),
        "scope": st.sampled_from(["documents", "prompt"]),
        "prior": st.sampled_from(["none", "sentences", "reader"]),
        "answer_form": st.sampled_from(["words", "quote"]),
    },
)


@given(SET, SET)
def test_defaults_fill_what_is_unset_and_nothing_else(own, defaults):
    merged = GenerationParams(**own).over(defaults)
    for name in NAMES:
        expected = own.get(name, defaults.get(name))
        found = getattr(merged, name)
        assert found == (tuple(expected) if name == "stop" and expected is not None else expected)


def test_the_base_fills_everything_but_what_has_no_default():
    filled = GenerationParams().over(BASE)
    unset = {name for name in NAMES if getattr(filled, name) is None}
    of_the_recipe = {"prior", "prior_weight", "evidence", "boundary"}
    assert unset == {"seed", "max_thinking_tokens", *of_the_recipe}


def test_defaults_that_are_wrong_are_named():
    with pytest.raises(ValueError, match=r"unknown generation params \['top_k'\]"):
        GenerationParams().over({"top_k": 4})
    with pytest.raises(ValueError, match="temperature"):
        GenerationParams().over({"temperature": "hot"})


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [-(2**70), 1.5, math.inf, math.nan, True, "3", [1], 2**70])
def test_whole_numbers_are_whole(name, value):
    with pytest.raises(ValueError, match=name):
        GenerationParams(**{name: value})


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("value", [-1, math.inf, math.nan, True, "0.5", 1e9, 1j])
def test_numbers_are_finite_and_in_range(name, value):
    with pytest.raises(ValueError, match=name):
        GenerationParams(**{name: value})


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("value", ["", "all", 1, ["word"], {}, np.zeros(2)])
def test_choices_are_the_known_ones(name, value):
    with pytest.raises(ValueError, match=f"{name} must be one of"):
        GenerationParams(**{name: value})


@pytest.mark.parametrize("name", ["max_new_tokens", "max_span_tokens"])
def test_nothing_is_no_length(name):
    with pytest.raises(ValueError, match=name):
        GenerationParams(**{name: 0})


def test_top_p_excludes_nothing_at_all():
    assert GenerationParams(top_p=1).top_p == 1.0
    with pytest.raises(ValueError, match="top_p must be above 0"):
        GenerationParams(top_p=0)


@pytest.mark.parametrize("value", ["", [""], ["a", ""], [1], 5, {"a": 1}, b"x"])
def test_stops_are_strings_with_something_in_them(value):
    with pytest.raises(ValueError, match="stop must be non-empty strings"):
        GenerationParams(stop=value)


def test_one_stop_may_stand_alone():
    assert GenerationParams(stop="END").stop == ("END",)
    assert GenerationParams(stop=["a", "b"]).stop == ("a", "b")


def test_numbers_of_numpy_become_plain_ones():
    params = GenerationParams(max_new_tokens=np.int64(7), temperature=np.float32(0.5))
    assert type(params.max_new_tokens) is int
    assert type(params.temperature) is float
    assert params == GenerationParams(max_new_tokens=7, temperature=0.5)
    assert hash(params) == hash(GenerationParams(max_new_tokens=7, temperature=0.5))
