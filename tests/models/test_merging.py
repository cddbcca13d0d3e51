"""An adapter and its base become a folder that loads by itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from recallm_core import RecaLLM
from recallm_core.cli import main
from recallm_core.errors import CheckpointError
from recallm_core.models import merging
from recallm_core.models.adapters import CONFIG, WEIGHTS
from recallm_core.models.create import create
from recallm_core.models.merging import merge, merged


def test_the_merged_folder_loads_alone(
    make_base: Callable[..., Path], write_adapter: Callable[..., Any], tmp_path: Path
) -> None:
    base = make_base("llama")
    merged = write_adapter(create(base, tmp_path / "created"), tmp_path / "adapter", tied=True)
    out = tmp_path / "whole"
    assert main(["model", "merge", str(tmp_path / "adapter"), str(out), "--base", str(base)]) == 0
    assert not {CONFIG, WEIGHTS} & {file.name for file in out.iterdir()}
    weights = dict(merged.named_parameters())
    for name, weight in AutoModelForCausalLM.from_pretrained(out).named_parameters():
        assert torch.allclose(weight, weights[name], atol=1e-5), name
    with RecaLLM.load(out) as llm:
        assert llm.recipe.mode == "trained"
    with pytest.raises(CheckpointError, match="exists"):
        merge(tmp_path / "adapter", out, base=base)
    with pytest.raises(CheckpointError, match="holds no adapter"):
        merge(base, tmp_path / "other")


def test_what_is_served_is_merged_once_and_again_when_a_file_changes(
    parts: tuple[Path, Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    base, adapter, model = parts
    whole = merged(adapter, base)
    assert whole.is_relative_to(tmp_path / "cache" / "recallm" / "merged")
    weights = dict(model.named_parameters())
    for name, weight in AutoModelForCausalLM.from_pretrained(whole).named_parameters():
        assert torch.allclose(weight, weights[name], atol=1e-5), name
    assert merged(adapter, base) == whole
    os.utime(adapter / WEIGHTS, ns=(1, 1))
    assert merged(adapter, base) != whole


def test_of_two_that_merge_at_once_the_second_takes_what_the_first_wrote(
    parts: tuple[Path, Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    base, adapter, _ = parts

    def late(adapter: Path, out: Path, **options: Any) -> Path:
        merge(adapter, out, **options)  # the other process was faster
        return merge(adapter, out, **options)

    monkeypatch.setattr(merging, "merge", late)
    assert (merged(adapter, base) / "model.safetensors").is_file()

    def fails(*_: Any, **__: Any) -> Path:
        raise CheckpointError("another base")

    monkeypatch.setattr(merging, "merge", fails)
    os.utime(adapter / WEIGHTS, ns=(1, 1))
    with pytest.raises(CheckpointError, match="another base"):
        merged(adapter, base)
