from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from recallm_core.cli.train import main
from recallm_core.errors import RecallmError
from recallm_core.train.mini.export import export, mini_recipe
from recallm_core.train.mini.loop import MiniConfig, Phase, Trainer
from recallm_core.train.mini.model import Mini, MiniShape
from recallm_core.train.mini.optimizer import orthogonalise
from recallm_core.train.mini.train import read_run_config
from recallm_core.train.tasks.tasks import Mixture

SHAPE = MiniShape(vocab_size=700, width=64, layers=3, heads=1, hidden=64, context_length=512)
CONFIG = MiniConfig(
    steps=10,
    tasks={"page": 1.0},
    phases=(Phase(0, 256, {"tiny": 1.0}),),
    shape=SHAPE,
    save_every=4,
)


def trainer(config: MiniConfig, tokenizer: Tokenizer, folder: Path) -> Trainer:
    return Trainer(config, Mixture(None, config.tasks), tokenizer, folder)


def test_a_resumed_run_equals_an_unbroken_one(tokenizer: Tokenizer, tmp_path: Path) -> None:
    whole = trainer(CONFIG, tokenizer, tmp_path / "whole")
    whole.run(workers=0)
    first = trainer(CONFIG, tokenizer, tmp_path / "parts")
    first.folder.mkdir()
    batches = iter(first.batches(0))
    for _ in range(4):
        first.update(next(batches))
    first.save()
    second = trainer(CONFIG, tokenizer, tmp_path / "parts")
    assert second.resume()
    second.run(workers=0)
    assert second.step == whole.step == CONFIG.steps
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(value, second.model.state_dict()[name])


def test_the_exported_folder_gives_the_same_logits(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = Mini(SHAPE, seed=3)
    weights = {n: p.detach().half().float() for n, p in model.named_parameters()}
    model.load_state_dict(weights)
    export(weights, SHAPE, tokenizer, tmp_path)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert type(stock).__name__ == "LlamaForCausalLM"
    ids = torch.randint(0, SHAPE.vocab_size, (2, 30), generator=torch.Generator().manual_seed(1))
    states, _ = model(ids, torch.arange(30).repeat(2, 1))
    with torch.no_grad():
        torch.testing.assert_close(stock(ids).logits, model.logits(states), atol=2e-4, rtol=1e-3)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert len(loaded) == SHAPE.vocab_size
    assert loaded.backend_tokenizer.normalizer is None
    text = "Cafe\u0301 (a) can't\n\n 2018."
    assert loaded(text).input_ids == tokenizer.encode(text).ids
    assert loaded.decode(loaded("Ferry 12é").input_ids) == "Ferry 12é"
    assert loaded.apply_chat_template(
        [{"role": "user", "content": "x"}], tokenize=False, add_generation_prompt=True
    ) == "x<think>"  # fmt: skip
    assert json.loads((tmp_path / "recallm.json").read_text()) == json.loads(
        json.dumps({f: getattr(mini_recipe(), f) for f in mini_recipe().__dataclass_fields__})
    )


def test_structured_heads_look_back() -> None:
    model = Mini(replace(SHAPE, width=128, heads=2), seed=0)
    ids = torch.randint(0, 700, (1, 40), generator=torch.Generator().manual_seed(0))
    block = model.blocks[0]
    x = torch.nn.functional.embedding(ids, model.embed)
    angles = torch.arange(40)[None, None, :, None] * model.shape.rope_theta ** (
        -torch.arange(0, 64, 2) / 64
    )
    turned = (torch.cos(angles).repeat(1, 1, 1, 2), torch.sin(angles).repeat(1, 1, 1, 2))
    _, q, k = block(x, *turned)
    for head, back in ((0, 1), (1, 2)):
        scores = (q[0, head] @ k[0, head].T) / 8
        assert scores.tril().argmax(-1)[10:].tolist() == [t - back for t in range(10, 40)]


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    stack = torch.randn(2, 12, 30, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(stack))
    assert values.min() > 0.4
    assert values.max() < 1.4


def test_bad_configs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("speed = 9")
    with pytest.raises(RecallmError, match=r"bad\.toml"):
        read_run_config(path)
    assert main(["mini", "--config", str(path), "--out", str(tmp_path)]) == 1
    assert main(["mini", "--out", str(tmp_path / "none"), "--export-only"]) == 1
