"""Stage 2 in small: adapters and new rows learn, go on after a break, and are saved as peft's."""

from __future__ import annotations

import json
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from safetensors import safe_open

from recallm_core.models.adapter_base import BASE, shape_of
from recallm_core.models.adapters import WEIGHTS, Adapter, rank_of
from recallm_core.models.checkpoint import transformers_config
from recallm_core.train.sft.config import SftConfig, sft_config
from recallm_core.train.sft.trainer import read_curve

peft = pytest.importorskip("peft", reason="needs the extra grpo")


def settings(model: Path) -> SftConfig:
    return sft_config(
        {
            "model": str(model),
            "adapter_rank": 2,
            "examples": 6,
            "validation": 1,
            "max_tokens": 700,
            "context_tokens": [40, 90],
            "global_batch": 2,
            "device_batch": 2,
            "precision": "fp32",
            "workers": 0,
            "save_every": 2,
            "embeddings": {"epochs": 0, "lr": 0.0},
            "all_weights": {"epochs": 2, "lr": 2e-2},
            "tasks": {"key_value": 1, "one_fact": 1},
        }
    )


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_adapters_and_rows_learn_and_load_onto_the_base(
    checkpoints: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    from recallm_core import RecaLLM
    from recallm_core.train.sft.train import open_run, train

    checkpoint = checkpoints[kind]
    base = checkpoint.with_name(f"{kind}-base")
    run = open_run(settings(checkpoint), tmp_path)
    model = train(run)
    assert model is not None
    losses = [p["loss"] for p in read_curve(tmp_path / "curve.jsonl") if "loss" in p]
    assert sum(losses[-2:]) < sum(losses[:2])
    merged = load_file(model / "model.safetensors")
    before = load_file(checkpoint / "model.safetensors")
    new = torch.tensor(run.new_ids)
    for name, weight in merged.items():
        old = before[name]
        if "embed_tokens" in name or "lm_head" in name:
            assert (weight[new] != old[new]).any(1).all(), name
            weight, old = (torch.cat([w[: new.min()], w[new.max() + 1 :]]) for w in (weight, old))
        is_adapted = name.endswith("proj.weight")
        assert bool((weight != old).any()) == is_adapted, name
    page = (tmp_path / "adapter" / "README.md").read_text("utf-8")
    assert f"base_model: {checkpoint.name}" in page
    with safe_open(tmp_path / "adapter" / WEIGHTS, "pt") as saved:
        shape = json.loads(saved.metadata()[BASE])
    assert shape == shape_of(transformers_config(base))
    assert "| 6 |" in page
    start = AutoModelForCausalLM.from_pretrained(checkpoint)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # old names that peft still uses
        adapted = peft.PeftModel.from_pretrained(start, str(tmp_path / "adapter"))
    weights = dict(adapted.merge_and_unload().named_parameters())
    with RecaLLM.load(tmp_path / "adapter", base=base) as llm:
        for name, weight in llm.backend.model.named_parameters():  # type: ignore[attr-defined]
            assert torch.allclose(weight, weights[name], atol=1e-5), name
            assert torch.allclose(weight, merged[name], atol=1e-5), name


@settings_of_hypothesis(max_examples=25)
@given(data=st.data())
def test_two_adapters_together_do_what_they_do_one_after_the_other(data: st.DataObject) -> None:
    import torch

    from recallm_core.train.sft.adapters import together

    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    layers = {name: torch.nn.Linear(5, 7, bias=False) for name in ("up", "down")}
    adapters = []
    for _ in range(2):
        rank = data.draw(st.integers(1, 4))
        names = data.draw(st.sets(st.sampled_from(sorted(layers)), min_size=1))
        products = {name: (drawn(rank, 5), drawn(7, rank)) for name in names}
        scale = data.draw(st.sampled_from([0.5, 1.0, 2.0]))
        adapters.append(Adapter(Path(), scale, products, {"table": drawn(2, 5)}, {"table": [3, 8]}))
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    both = together(*adapters)
    for name, weight in before.items():
        in_turn = weight.clone()
        for adapter in adapters:
            if name in adapter.products:
                down, up = adapter.products[name]
                in_turn += adapter.scale * up @ down
        if name in both.products:
            down, up = both.products[name]
            assert len(down) == rank_of(both) <= sum(rank_of(adapter) for adapter in adapters)
            weight += both.scale * up @ down
        assert torch.allclose(weight, in_turn, atol=1e-4)
    assert both.rows["table"] is adapters[1].rows["table"]


@pytest.mark.slow
def test_a_stopped_run_goes_on_as_if_it_never_stopped(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    from recallm_core.train.sft.train import open_run, train
    from recallm_core.train.sft.trainer import Interrupt, InterruptedRunError

    config = settings(checkpoints["llama"])
    train(open_run(config, tmp_path / "straight"))
    ended = Interrupt.on_step_end
    asked: list[int] = []

    def ask_at_three(self: Interrupt, args: Any, state: Any, control: Any, **more: Any) -> Any:
        if state.global_step == 3 and not asked:
            asked.append(3)
            signal.raise_signal(signal.SIGINT)
        return ended(self, args, state, control, **more)

    monkeypatch.setattr(Interrupt, "on_step_end", ask_at_three)
    with pytest.raises(InterruptedRunError, match="step 3 of 6"):
        train(open_run(config, tmp_path / "broken"))
    kept = tmp_path / "broken" / "all-weights" / "checkpoint-3"
    assert sum(file.stat().st_size for file in kept.glob("*.safetensors")) < 100_000
    train(open_run(config, tmp_path / "broken"))
    one, other = (
        load_file(tmp_path / run / "adapter" / "adapter_model.safetensors")
        for run in ("straight", "broken")
    )
    assert one.keys() == other.keys()
    for name, weight in one.items():
        assert (weight - other[name]).abs().max() < 1e-5, name
