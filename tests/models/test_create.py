"""A base model becomes a trainable RecaLLM, and answers under the constraint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from recallm_core import RecaLLM
from recallm_core.cli.model import describe
from recallm_core.errors import CheckpointError
from recallm_core.models.create import MEANINGS, create
from recallm_core.prompting.recipe import Recipe, trained_recipe

Base = Callable[..., Path]


@pytest.mark.parametrize(("kind", "tied"), [("qwen2", True), ("llama", False), ("qwen3", True)])
def test_the_four_tokens_recipe_and_template_are_saved(
    make_base: Base, tmp_path: Path, kind: str, tied: bool
) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    base = make_base(kind, tied=tied)
    out = create(base, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(out)
    ids = [tokenizer.convert_tokens_to_ids(token) for token in MEANINGS]
    assert len(set(ids)) == 4
    assert not set(MEANINGS) & set(tokenizer.all_special_tokens)
    assert Recipe.load(out) == trained_recipe()
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "x"}], tokenize=False, add_generation_prompt=True
    )
    assert rendered.endswith("<think>")
    tensors = load_file(out / "model.safetensors")
    names = ["model.embed_tokens.weight"] + ([] if tied else ["lm_head.weight"])
    for name in names:
        rows = tensors[name].float()
        new, old = rows[ids], rows[: min(ids)]
        assert torch.isfinite(rows).all()
        assert torch.unique(new, dim=0).shape[0] == 4
        typical = old.norm(dim=1).mean()
        assert ((new.norm(dim=1) / typical - 1).abs() < 0.1).all()


def test_the_instructions_may_be_other_ones(make_base: Base, tmp_path: Path) -> None:
    create(make_base(), tmp_path / "out", system="Copy between {open} and {close}.")
    recipe = Recipe.load(tmp_path / "out")
    assert recipe == trained_recipe(system="Copy between {open} and {close}.")
    assert recipe is not None
    assert recipe.system_text() == "Copy between <|start_recall|> and <|end_recall|>."


def test_old_rows_stay_and_the_seed_decides_the_new_ones(make_base: Base, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    base = make_base()
    name = "model.embed_tokens.weight"
    before = load_file(base / "model.safetensors")[name]
    one, same, other = (
        load_file(create(base, tmp_path / str(n), seed=seed) / "model.safetensors")[name]
        for n, seed in enumerate((1, 1, 2))
    )
    assert (one[: len(before)] == before).all()
    assert (one == same).all()
    assert not (one[-4:] == other[-4:]).all()


def test_tokens_that_the_base_has_keep_their_rows(make_base: Base, tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    first = create(make_base(), tmp_path / "first")
    second = create(first, tmp_path / "second", seed=9)
    tables = [
        load_file(f / "model.safetensors")["model.embed_tokens.weight"] for f in (first, second)
    ]
    assert (tables[0] == tables[1]).all()
    assert len(AutoTokenizer.from_pretrained(first)) == len(AutoTokenizer.from_pretrained(second))


@pytest.mark.parametrize("mode", ["trained", "prompted"])
def test_a_created_model_quotes_verbatim(make_base: Base, tmp_path: Path, mode: str) -> None:
    base = make_base("llama", tied=False)
    folder = create(base, tmp_path / "out") if mode == "trained" else base
    document = "Parental leave is 16 weeks.\r\nThe ferry costs 14 euros — 日本 <|end_recall|>."
    with RecaLLM.load(str(folder)) as llm:
        assert llm.recipe.mode == mode
        for seed in range(3):
            answer = llm.answer(
                "How long is leave?", [document], max_new_tokens=60, temperature=1.0, seed=seed
            )
            for span in answer.trace.spans:
                assert document[span.start : span.end] == span.text


def test_other_kinds_and_existing_folders_are_refused(make_base: Base, tmp_path: Path) -> None:
    base = make_base("qwen2")
    config = json.loads((base / "config.json").read_text())
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match="exists"):
        create(base, tmp_path / "out")
    with pytest.raises(CheckpointError, match="can't load the base model"):
        create(tmp_path / "nowhere", tmp_path / "new")
    gpt = make_base("mistral", name="mistral")
    with pytest.raises(CheckpointError, match="bases must be one of"):
        create(gpt, tmp_path / "new")
    assert config["model_type"] == "qwen2"
    assert not (tmp_path / "new").exists()
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".tmp")]


def test_overwrite_replaces_the_folder(make_base: Base, tmp_path: Path) -> None:
    base = make_base()
    out = create(base, tmp_path / "out")
    (out / "stale").write_text("x")
    create(base, out, overwrite=True)
    assert not (out / "stale").exists()
    assert (out / "recallm.json").is_file()


def test_describe_says_what_a_checkpoint_is(make_base: Base, tmp_path: Path) -> None:
    shown = describe(str(create(make_base(), tmp_path / "out")))
    assert shown["model_type"] == "qwen2"
    assert shown["window"] == 4096
    assert shown["recipe"]["mode"] == "trained"
    assert all(isinstance(i, int) for i in shown["marks"].values())
    with pytest.raises(CheckpointError, match="no model folder"):
        describe(str(tmp_path / "nowhere"))
