"""An adapter that ships is found by name, says what it goes on, is small, and named in a NOTICE."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import recallm_core
from recallm_core import RecaLLM, models
from recallm_core.cli.model import describe
from recallm_core.errors import CheckpointError
from recallm_core.models.adapters import CONFIG, WEIGHTS, is_adapter
from recallm_core.prompting.recipe import Recipe

MOST_BYTES = 12_000_000
FOLDER = Path(recallm_core.__file__).parent / "models"
ADAPTERS = [folder for folder in sorted(FOLDER.iterdir()) if is_adapter(folder)]
FILES = {"README.md", "NOTICE", CONFIG, WEIGHTS, "tokenizer.json", "tokenizer_config.json"}
Parts = tuple[Path, Path, Any]


def problems(folder: Path) -> list[str]:
    """What keeps a folder from being shipped."""
    files = {file.name: file.stat().st_size for file in folder.iterdir()}
    lacking = sorted((FILES | {"recallm.json"}) - files.keys())
    if lacking:
        return [f"lacks {name}" for name in lacking]
    told, base = [], json.loads((folder / CONFIG).read_text())["base_model_name_or_path"]
    if sum(files.values()) > MOST_BYTES:
        told.append(f"has {sum(files.values()):,} bytes")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", base):
        told.append(f"names the base {base}, which isn't a hub id")
    for name in ("README.md", "NOTICE"):
        if base not in (folder / name).read_text("utf-8"):
            told.append(f"names another base in {name}")
    if "Apache License" not in (folder / "NOTICE").read_text("utf-8"):
        told.append("names no licence")
    recipe = Recipe.load(folder)
    if recipe is None or recipe.mode != "trained":
        told.append("isn't driven as a trained model")
    return told


@pytest.mark.parametrize("folder", ADAPTERS, ids=lambda folder: folder.name)
def test_what_ships_is_small_and_complete(folder: Path) -> None:
    assert folder.name in models.SHIPPED
    assert problems(folder) == []


@pytest.fixture
def smol(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny adapter where recallm-smol ships; its base isn't to be had."""
    folder = parts[1].rename(parts[1].with_name("recallm-smol"))
    settings = json.loads((folder / CONFIG).read_text())
    named = {"base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct-x"}
    (folder / CONFIG).write_text(json.dumps(settings | named))
    monkeypatch.setattr(models, "_FOLDER", folder.parent)
    monkeypatch.setattr(models, "SHIPPED", ("recallm-mini", "recallm-smol"))
    return folder


def test_it_loads_by_name_onto_its_base(parts: Parts, smol: Path) -> None:
    text = "The ferry leaves at nine."
    with RecaLLM.load("recallm-smol", base=parts[0]) as llm:
        assert llm.name == "recallm-smol"
        assert llm.recipe.mode == "trained"
        answer = llm.answer("When?", [text], answer_form="quote", temperature=0, max_new_tokens=30)
    assert answer.citations
    assert all(text[c.start : c.end] == c.text for c in answer.citations)
    assert describe("recallm-smol")["adapter_of"] == "HuggingFaceTB/SmolLM2-135M-Instruct-x"


def test_without_its_base_the_error_names_it_and_says_what_to_give(smol: Path) -> None:
    named = r"'HuggingFaceTB/SmolLM2-135M-Instruct-x'.*give that as base=FOLDER_OR_HUB_ID \(--base"
    with pytest.raises(CheckpointError, match=named):
        RecaLLM.load("recallm-smol", local_files_only=True)


def test_a_folder_that_should_not_ship_is_told(smol: Path) -> None:
    (smol / "README.md").unlink()  # peft's
    assert problems(smol) == ["lacks NOTICE", "lacks README.md"]
    for name in ("NOTICE", "README.md"):
        (smol / name).write_text("It goes on HuggingFaceTB/SmolLM2-135M-Instruct-x. Apache License")
    assert problems(smol) == []
    (smol / "curve.jsonl").write_bytes(bytes(MOST_BYTES))
    (smol / "NOTICE").write_text("Free.")
    settings = json.loads((smol / CONFIG).read_text())
    (smol / CONFIG).write_text(json.dumps(settings | {"base_model_name_or_path": "/home/me/base"}))
    assert [word for line in problems(smol) for word in line.split()[:2]] == [
        *("has", f"{sum(f.stat().st_size for f in smol.iterdir()):,}", "names", "the"),
        *("names", "another", "names", "another", "names", "no"),
    ]


def test_a_name_that_does_not_ship_here_is_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "SHIPPED", ("recallm-mini",))
    assert models.shipped("recallm-smol") is None
    with pytest.raises(CheckpointError, match="no model folder at 'recallm-smol'"):
        RecaLLM.load("recallm-smol")
