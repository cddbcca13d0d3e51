"""Adapters go into their base's weights as peft puts them there, or are refused with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from recallm_core import GenerationParams, RecaLLM
from recallm_core.cli.model import describe
from recallm_core.errors import CheckpointError
from recallm_core.models.adapters import CONFIG, WEIGHTS, apply, base_of, is_adapter, read_adapter
from recallm_core.models.create import create

Base = Callable[..., Path]
TEXT = "The ferry leaves at nine. The bus to Port Hallow leaves at ten."


@pytest.mark.parametrize(("kind", "tied"), [("qwen2", True), ("llama", False)])
@pytest.mark.parametrize(
    "settings", [{}, {"use_rslora": True, "target_modules": ["q_proj", "up_proj"]}]
)
def test_weights_are_those_that_peft_merges(
    make_base: Base,
    write_adapter: Callable[..., Any],
    tmp_path: Path,
    kind: str,
    tied: bool,
    settings: dict[str, Any],
) -> None:
    base = make_base(kind, tied=tied)
    checkpoint = create(base, tmp_path / "created")
    merged = write_adapter(checkpoint, tmp_path / "adapter", tied=tied, **settings)
    for start in (base, checkpoint):  # with and without room for the recall tokens
        model = AutoModelForCausalLM.from_pretrained(start)
        apply(model, read_adapter(tmp_path / "adapter"))
        weights = dict(merged.named_parameters())
        assert {name for name, _ in model.named_parameters()} == set(weights)
        for name, weight in model.named_parameters():
            assert torch.allclose(weight, weights[name], atol=1e-5), name


def test_an_adapter_loads_onto_a_base_that_lacks_the_recall_tokens(
    parts: tuple[Path, Path, Any], tmp_path: Path
) -> None:
    base, adapter, merged = parts
    merged.save_pretrained(tmp_path / "whole")
    for file in adapter.iterdir():
        if not file.name.startswith("adapter"):
            (tmp_path / "whole" / file.name).write_bytes(file.read_bytes())
    answers = []
    params = GenerationParams(answer_form="quote", max_new_tokens=30, temperature=0.0)
    for model, options in ((adapter, {"base": base}), (tmp_path / "whole", {})):
        with RecaLLM.load(model, **options) as llm:
            assert llm.recipe.mode == "trained"
            answers.append(llm.answer("When does the ferry leave?", [TEXT], params=params))
    assert answers[0].text == answers[1].text
    assert answers[0].citations
    assert [c.text for c in answers[0].citations] == [c.text for c in answers[1].citations]


def test_the_base_is_what_the_caller_says_or_the_adapter_names(
    parts: tuple[Path, Path, Any],
) -> None:
    base, adapter, _ = parts
    assert is_adapter(adapter)
    assert not is_adapter(base)
    assert base_of(adapter, base) == str(base)
    assert describe(str(adapter))["adapter_of"] == base_of(adapter, None)
    change(adapter, base_model_name_or_path=None)
    with pytest.raises(CheckpointError, match=r"give it: RecaLLM\.load"):
        RecaLLM.load(adapter)
    change(adapter, base_model_name_or_path="/nowhere/at/all")
    with pytest.raises(CheckpointError, match=r"no model folder.*give that as base="):
        RecaLLM.load(adapter)
    with pytest.raises(ValueError, match="holds a whole model"):
        RecaLLM.load(base, base=base)
    (adapter / "config.json").write_bytes((base / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match="recallm model merge"):
        RecaLLM.load(adapter)


def change(adapter: Path, **settings: Any) -> None:
    path = adapter / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"peft_type": "IA3"}, "of kind 'IA3'; plain LoRA is read"),
        ({"use_dora": True}, "with use_dora"),
        ({"bias": "all"}, "with bias"),
        ({"modules_to_save": ["lm_head"]}, "with modules_to_save"),
        ({"r": 0}, "number from 1 to 1,000,000 as r"),
        ({"r": True}, "number from 1 to 1,000,000 as r"),
        ({"lora_alpha": "2"}, "number from 0 to 1,000,000 as lora_alpha"),
        ({"lora_alpha": float("inf")}, "number from 0 to 1,000,000 as lora_alpha"),
        ({"trainable_token_indices": {"embed_tokens": [1, 2, 3]}}, "4 different token ids"),
        ({"trainable_token_indices": {"embed_tokens": [1, 2, 3, 3]}}, "4 different token ids"),
        ({"trainable_token_indices": {"embed_tokens": [1, 2, 3, -4]}}, "4 different token ids"),
        ({"trainable_token_indices": None}, "4 different token ids"),
        ({"trainable_token_indices": {"embed_tokens": [1, 2, 3, 1 << 60]}}, "rows are missing"),
    ],
)
def test_settings_that_weights_cant_follow_are_refused(
    parts: tuple[Path, Path, Any], settings: dict[str, Any], match: str
) -> None:
    base, adapter, _ = parts
    change(adapter, **settings)
    with pytest.raises(CheckpointError, match=match):
        RecaLLM.load(adapter, base=base)


LAYER = "base_model.model.model.layers.0.mlp.up_proj"


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ({f"{LAYER}.lora_A.weight": None}, "pair of"),
        ({f"{LAYER}.weight": torch.zeros(64, 32)}, "pair of"),
        ({f"{LAYER}.lora_A.weight": torch.zeros(32)}, "isn't a table"),
        ({f"{LAYER}.lora_A.weight": torch.zeros(2, 31)}, "doesn't fit this base at model.layers.0"),
        ({f"{LAYER}.lora_A.weight": torch.zeros(3, 32)}, "doesn't fit this base at model.layers.0"),
        (
            {
                "base_model.model.no.lora_A.weight": torch.zeros(2, 4),
                "base_model.model.no.lora_B.weight": torch.zeros(4, 2),
            },
            "doesn't fit this base at no",
        ),
    ],
)
def test_weights_that_dont_fit_are_refused(
    parts: tuple[Path, Path, Any], tensors: dict[str, Any], match: str
) -> None:
    base, adapter, _ = parts
    weights = load_file(adapter / WEIGHTS) | tensors
    save_file({name: w for name, w in weights.items() if w is not None}, adapter / WEIGHTS)
    with pytest.raises(CheckpointError, match=match):
        RecaLLM.load(adapter, base=base)


def test_weights_that_are_missing_or_damaged_are_told(parts: tuple[Path, Path, Any]) -> None:
    base, adapter, _ = parts
    content = (adapter / WEIGHTS).read_bytes()
    (adapter / WEIGHTS).write_bytes(content[:-10])
    with pytest.raises(CheckpointError, match="can't be read"):
        RecaLLM.load(adapter, base=base)
    (adapter / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="can't be read"):
        RecaLLM.load(adapter, base=base)
