"""An adapter says what it goes on; a model that fits by its sizes alone is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from recallm_core import RecaLLM
from recallm_core.errors import CheckpointError
from recallm_core.models.adapter_base import BASE, shape_of
from recallm_core.models.adapters import WEIGHTS
from recallm_core.models.checkpoint import transformers_config

Parts = tuple[Path, Path, Any]


def say(adapter: Path, text: str) -> None:
    """Writes what an adapter says of its base."""
    weights = load_file(adapter / WEIGHTS)
    save_file(weights, adapter / WEIGHTS, metadata={"format": "pt", BASE: text})


@pytest.mark.parametrize(
    ("setting", "value", "name"),
    [
        ("rope_parameters", {"rope_type": "default", "rope_theta": 5e5}, "rope_theta"),
        ("num_attention_heads", 4, "num_attention_heads"),
    ],
)
def test_what_no_size_of_a_weight_tells_is_compared(
    parts: Parts, setting: str, value: Any, name: str
) -> None:
    base, adapter, _ = parts
    say(adapter, json.dumps(shape_of(transformers_config(base))))
    RecaLLM.load(adapter, base=base).close()
    path = base / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {setting: value}))
    with pytest.raises(CheckpointError, match=f"goes on a model with {name} = .*give the base"):
        RecaLLM.load(adapter, base=base)


def test_a_config_of_an_older_transformers_says_the_same(parts: Parts) -> None:
    base, _, _ = parts
    now, path = shape_of(transformers_config(base)), base / "config.json"
    plain = json.loads(path.read_text())
    plain["rope_theta"] = plain.pop("rope_parameters")["rope_theta"]
    path.write_text(json.dumps(plain))
    assert now["rope_theta"]
    assert shape_of(transformers_config(base)) == now


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 9000, '"x"'])
def test_what_cannot_be_read_is_refused(parts: Parts, text: str) -> None:
    base, adapter, _ = parts
    say(adapter, text)
    with pytest.raises(CheckpointError, match=BASE):
        RecaLLM.load(adapter, base=base)


def change_words(base: Path, old: str, new: str) -> None:
    path = base / "tokenizer.json"
    plain = json.loads(path.read_text())
    vocabulary = plain["model"]["vocab"]
    vocabulary[old], vocabulary[new] = vocabulary[new], vocabulary[old]
    path.write_text(json.dumps(plain))


def test_a_base_with_other_words_is_refused(parts: Parts) -> None:
    base, adapter, _ = parts
    change_words(base, "a", "b")
    with pytest.raises(CheckpointError, match=r"the token '.' is .*of two models"):
        RecaLLM.load(adapter, base=base)
    (base / "tokenizer.json").write_text('{"model": {"vocab": 7}, "added_tokens": []}')
    with pytest.raises(CheckpointError, match="as a tokenizer"):
        RecaLLM.load(adapter, base=base)
    (base / "tokenizer.json").unlink()  # weights alone are enough: the adapter has a tokenizer
    RecaLLM.load(adapter, base=base).close()
