"""The page of an adapter says what it goes on and how it was trained, and claims nothing."""

from __future__ import annotations

from recallm_core.train.sft.card import card
from recallm_core.train.sft.config import sft_config


def test_a_card_tells_base_training_and_curve() -> None:
    config = sft_config(
        {
            "adapter_rank": 8,
            "examples": 1200,
            "tasks": {"fact": 0.75, "absent": 0.25, "cloze": 0},
            "all_weights": {"epochs": 1, "lr": 1e-3},
        }
    )
    curve = [{"step": 1, "loss": 7.9}, {"step": 15, "eval_loss": 0.94225}]
    page = card(config, "maker/base", "smol", curve)
    assert page.startswith("---\nbase_model: maker/base\n")
    assert 'RecaLLM.load("smol", base="maker/base")' in page
    assert "1,200 rows" in page
    assert "fact 75%, absent 25%." in page
    assert "| 15 | 0.942 |" in page
    assert "7.9" not in page
    assert "None is recorded here" in page
    assert "not watched" in card(config, "maker/base", "smol", [])
