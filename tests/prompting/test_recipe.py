"""A recipe comes back as it was saved, and a hostile one is refused with the field's name."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.errors import CheckpointError
from recallm_core.prompting.recipe import FILE, Recipe, trained_recipe

WORDING = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@st.composite
def recipes(draw):
    plain = WORDING.map(lambda text: text.replace("{", "("))
    return Recipe(
        mode=draw(st.sampled_from(["trained", "prompted"])),
        think_open=draw(st.sampled_from(["", "<think>"])),
        think_close="</think>",
        system=draw(WORDING) + "{open} {close}",
        document=draw(plain) + "{text}" + draw(plain),
        question=draw(plain) + "{question}",
        layout=draw(st.sampled_from(["question-last", "question-first", "both"])),
        lead_in=draw(st.sampled_from(["\n", 'In short: "'])),
        lead_out=draw(st.sampled_from(["", '"', "*"])),
        abstain=("Not said.", draw(WORDING) + "x"),
        prior_weight=draw(st.floats(0, 9)),
        prior=draw(st.sampled_from(["none", "sentences", "reader"])),
        min_answerable=draw(st.floats(0, 1)),
        pack_tokens=draw(st.integers(0, 10_000_000)),
        sampling=draw(st.sampled_from([{}, {"temperature": 0.0}, {"stop": ["a"], "seed": 3}])),
        advice=draw(WORDING),
    )


@given(recipe=recipes())
def test_a_saved_recipe_comes_back(tmp_path_factory, recipe):
    folder = tmp_path_factory.mktemp("recipe", numbered=True)
    recipe.save(folder)
    assert Recipe.load(folder) == recipe
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_the_papers_recipe_comes_back(tmp_path):
    recipe = trained_recipe(advice="good at quotes", layout="both")
    recipe.save(tmp_path)
    assert Recipe.load(tmp_path) == recipe
    assert recipe.thinks
    assert not Recipe().thinks


def test_a_folder_may_have_none(tmp_path):
    assert Recipe.load(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"version": 2}',
        b'{"version": true}',
        b'{"version": 1.0}',
        b'{"version": null}',
        b'{"version": 1e999}',
        b'{"modes": "trained"}',
        b'{"advice": "' + b"x" * 1_100_000 + b'"}',
        b'{"advice": "\\ud800"}',
        b'{"open": "\\udfff"}',
        b'{"prior_weight": NaN}',
        b'{"prior_weight": Infinity}',
        b'{"prior_weight": -1}',
        b'{"prior_weight": true}',
        b'{"min_answerable": 1.5}',
        b'{"min_answerable": -0.1}',
        b'{"pack_tokens": -1}',
        b'{"pack_tokens": 3072.0}',
        b'{"pack_tokens": true}',
        b'{"pack_tokens": 10000001}',
        b'{"abstain": []}',
        b'{"abstain": [""]}',
        b'{"abstain": [" . "]}',
        b'{"abstain": "no"}',
        b'{"abstain": [1]}',
        b'{"lead_out": "\\"\\""}',
        b'{"lead_out": "a"}',
        b'{"lead_out": "\\u00bb"}',
        b'{"lead_out": "\\n"}',
        b'{"sampling": []}',
        b'{"sampling": {"top_k": 3}}',
        b'{"sampling": {"temperature": "hot"}}',
        b'{"sampling": {"recall_in": "everywhere"}}',
        b'{"sampling": {"max_new_tokens": 1e400}}',
        b'{"mode": "magic"}',
        b'{"layout": ["both"]}',
        b'{"prior": 3}',
        b'{"document": "no place"}',
        b'{"document": "{text} {text}"}',
        b'{"question": "?"}',
        b'{"open": ""}',
        b'{"open": "</recall>"}',
        b'{"open": "recall"}',
        b'{"think_open": "<think>"}',
        b'{"think_close": "<recall>"}',
        b'{"system": "quote with <recall>"}',
    ],
)
def test_a_hostile_recipe_is_refused(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"recallm\.json|recipe field"):
        Recipe.load(tmp_path)


@given(data=JSON | st.dictionaries(st.sampled_from([f.name for f in fields(Recipe)]), JSON))
def test_any_json_is_a_recipe_or_a_clear_error(data):
    try:
        recipe = Recipe.from_dict(data)
    except CheckpointError as error:
        reason = str(error)
    else:
        assert Recipe.from_dict(recipe.to_dict()) == recipe
        return
    assert "recallm.json" in reason or "recipe field" in reason


def test_whole_numbers_serve_as_weights():
    assert Recipe.from_dict({"prior_weight": 2}).prior_weight == 2


def test_marks_and_refusal_stand_in_the_system_prompt():
    for recipe in (Recipe(), trained_recipe()):
        text = recipe.system_text()
        assert recipe.open in text
        assert recipe.close in text
        assert "{" not in text
    assert Recipe().abstain[0] in Recipe().system_text()


def test_a_recipe_keeps_its_own_settings():
    given_settings = {"temperature": 0.5}
    recipe = Recipe(sampling=given_settings)
    given_settings["temperature"] = "hot"
    assert recipe.sampling == {"temperature": 0.5}


def test_wrong_wording_is_named_when_it_is_written():
    with pytest.raises(CheckpointError, match=r"document must be wording with \{text\} once"):
        replace(Recipe(), document="{txt}")
    with pytest.raises(CheckpointError, match=r"system must be wording with \{open\}"):
        replace(Recipe(), system="")
    assert trained_recipe(system="").system_text() == ""
