"""What a run leaves: a whole model and, where adapters learn, one that makes it of its base."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recallm_core.errors import CheckpointError, RecallmError
from recallm_core.models.adapters import CONFIG

pytest.importorskip("trl", reason="needs the extra grpo")
KIND = "llama"  # whose output layer has rows of its own


def assert_makes(model: Path, adapter: Path, base: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from recallm_core import RecaLLM

    weights = load_file(model / "model.safetensors")
    with RecaLLM.load(adapter, base=base) as llm:
        assert llm.recipe.mode == "trained"
        for name, weight in llm.backend.model.named_parameters():  # type: ignore[attr-defined]
            assert torch.allclose(weight, weights[name], atol=1e-5), name


def taught_adapter(checkpoint: Path, out: Path) -> Path:
    """An adapter as ``recallm train sft`` leaves it, of random factors and rows."""
    import torch
    from transformers import AutoModelForCausalLM

    from recallm_core.train.sft.adapters import learnt, save_adapter, with_adapters
    from recallm_core.train.sft.new_token_rows import NewRows

    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    ids = range(model.config.vocab_size - 4, model.config.vocab_size)
    rows = NewRows(model, ids)
    adapted = with_adapters(model, rows, 3)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.02)
    settings = adapted.peft_config["default"]
    save_adapter(learnt(adapted, rows, out), settings, checkpoint, str(checkpoint), "")
    return out


def test_the_adapter_makes_the_model_of_its_base(
    open_tiny: Callable[..., Any], checkpoints: dict[str, Path]
) -> None:
    from recallm_core.train.grpo.train import train

    run = open_tiny(KIND, adapter_rank=2, steps=1)
    model = train(run)
    adapter = run.folder / "adapter"
    assert_makes(model, adapter, checkpoints[KIND])
    settings = json.loads((adapter / CONFIG).read_text())
    assert (settings["r"], settings["lora_alpha"]) == (2, 4)
    assert settings["base_model_name_or_path"] == str(checkpoints[KIND])
    assert "1 steps of 2 problems" in (adapter / "README.md").read_text()


def test_a_run_goes_on_from_an_adapter_and_leaves_one_on_the_same_base(
    open_tiny: Callable[..., Any],
    checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from recallm_core.train.grpo.train import train

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    taught = taught_adapter(checkpoints[KIND], tmp_path / "taught")
    base = checkpoints[KIND].with_name(f"{KIND}-base")  # before recallm model create
    run = open_tiny(model=str(taught), base=str(base), adapter_rank=2, steps=1)
    model = train(run)
    assert_makes(model, run.folder / "adapter", base)
    settings = json.loads((run.folder / "adapter" / CONFIG).read_text())
    assert (settings["r"], settings["base_model_name_or_path"]) == (5, str(base))
    assert len(settings["trainable_token_indices"]["lm_head"]) == 4


def test_a_base_is_for_adapters_and_post_training_starts_from_whole_models(
    open_tiny: Callable[..., Any], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    from recallm_core.train.grpo.check import check
    from recallm_core.train.sft.train import checked_base

    with pytest.raises(RecallmError, match="leave the base out"):
        open_tiny(base=str(checkpoints[KIND]))
    with pytest.raises(RecallmError, match="leave the base out"):
        check(replace(open_tiny().config, base=str(checkpoints[KIND])))
    taught = taught_adapter(checkpoints[KIND], tmp_path / "taught")
    with pytest.raises(CheckpointError, match="recallm model merge"):
        checked_base(str(taught))
