"""The model split over two processes: the tokens of one process, and of transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from recallm_core import RecaLLM
from recallm_core.models import shipped

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

HEADS, WIDTH = 4, 64


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model with an idle fourth head: its three can't be shared out to two."""
    mini = shipped("recallm-mini")
    assert mini is not None
    folder = tmp_path_factory.mktemp("even") / "mini"
    shutil.copytree(mini, folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["hidden_size"] // config["num_attention_heads"] == WIDTH
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": WIDTH}
    (folder / "config.json").write_text(json.dumps(config | heads))
    weights = load_file(folder / "model.safetensors")
    padded = {name: with_idle_head(name, weight) for name, weight in weights.items()}
    save_file(padded, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def with_idle_head(name: str, weight: torch.Tensor) -> torch.Tensor:
    """Zeros where a fourth head would stand."""
    more = HEADS * WIDTH - weight.shape[0]
    if name.endswith("o_proj.weight"):
        return torch.nn.functional.pad(weight, (0, HEADS * WIDTH - weight.shape[1]))
    if any(f"{part}_proj.weight" in name for part in "qkv"):
        return torch.nn.functional.pad(weight, (0, 0, 0, more))
    if any(f"{part}_proj.bias" in name for part in "qkv"):
        return torch.nn.functional.pad(weight, (0, more))
    return weight


@pytest.fixture(scope="module")
def llm(even: Path) -> Iterator[RecaLLM]:
    with RecaLLM.load(even, prefix_cache_bytes=0, draft_tokens=0) as loaded:
        yield loaded


def test_two_processes_give_the_tokens_of_one(kit: Any, even: Path, llm: RecaLLM) -> None:
    prompts = [kit.prepared(llm, question) for question in kit.questions]
    endless = kit.prepared(llm, kit.questions[0], max_spans=40, max_span_tokens=4)
    opened = endless.spec.open.ids[0]
    requests = [
        *(kit.request(prompt, max_tokens=48) for prompt in prompts),
        kit.request(prompts[0], constrained=False, max_tokens=48),
        kit.request(kit.prepared(llm, kit.questions[0], recall_in="none"), max_tokens=48),
        kit.request(endless, temperature=1.5, seed=3, max_tokens=120)
        | {"bias": {str(opened): 50.0}},
    ]
    one = kit.run(requests, model=even)["outputs"]
    told = kit.run(requests, model=even, tensor_parallel_size=2, distributed_executor_backend="mp")
    assert told["workers"] == 2
    two = told["outputs"]
    assert two[:-1] == one[:-1]
    assert opened in two[-3][0]
    assert opened not in two[-2][0]  # the same prompt: only the constraint differs
    quoted = 0
    for prompt, (output,) in zip(prompts, two[: len(prompts)], strict=True):
        assert output == kit.here(llm, prompt, 48)
        quoted += kit.quotes(prompt, kit.followed(prompt, output))
    assert quoted >= 5
    assert kit.quotes(endless, kit.followed(endless, two[-1][0])) >= 10
