"""Which recipe a checkpoint gets, and what is refused with which words."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from recallm_core import RecaLLM
from recallm_core.errors import CheckpointError, MissingExtraError
from recallm_core.models.create import create
from recallm_core.prompting.recipe import Recipe, trained_recipe

Base = Callable[..., Path]


def test_the_saved_recipe_wins_and_can_be_overridden(make_base: Base, tmp_path: Path) -> None:
    folder = create(make_base(), tmp_path / "out")
    trained_recipe(question="Q: {question}").save(folder)
    with RecaLLM.load(str(folder)) as llm:
        assert llm.recipe.question == "Q: {question}"
    own = Recipe(question="Mine: {question}")
    with RecaLLM.load(str(folder), recipe=own) as llm:
        assert llm.recipe == own


def test_without_a_recipe_the_tokenizer_decides(make_base: Base, tmp_path: Path) -> None:
    base = make_base()
    folder = create(base, tmp_path / "out")
    (folder / "recallm.json").unlink()
    with RecaLLM.load(str(folder)) as llm:
        assert llm.recipe.mode == "trained"
    with RecaLLM.load(str(folder), mode="prompted") as llm:
        assert llm.recipe.mode == "prompted"
        assert llm.recipe.think_close == "</think>"  # the tokenizer has it
    with RecaLLM.load(str(base)) as llm:
        assert (llm.recipe.mode, llm.recipe.policy) == ("prompted", "first")
    with pytest.raises(CheckpointError, match="can't be driven in trained mode"):
        RecaLLM.load(str(base), mode="trained")


def test_a_tokenizer_of_another_model_is_refused(make_base: Base, tmp_path: Path) -> None:
    base = make_base()
    bigger = create(base, tmp_path / "bigger")
    mixed = tmp_path / "mixed"
    shutil.copytree(base, mixed)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bigger / name, mixed / name)
    with pytest.raises(CheckpointError, match="mixes two models"):
        RecaLLM.load(str(mixed))


def test_unknown_modes_servers_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mode must be one of"):
        RecaLLM.load(str(tmp_path), mode="magic")
    with pytest.raises(
        ValueError, match=r"backend must be one of \('auto', 'transformers', 'vllm', 'llama_cpp'\)"
    ):
        RecaLLM.load(str(tmp_path), backend="gguf")
    with pytest.raises(CheckpointError):
        RecaLLM.load(str(tmp_path / "nowhere"))


def test_without_vllm_its_backend_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'recallm-core\[vllm\]'"):
        RecaLLM.load(str(tmp_path), backend="vllm")
