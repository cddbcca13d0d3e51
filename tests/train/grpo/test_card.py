"""The page of an adapter says what it goes on, how it was made and what was rewarded, no more."""

from __future__ import annotations

from recallm_core.train.grpo.card import card
from recallm_core.train.grpo.config import grpo_config


def test_a_card_tells_base_training_and_rewards() -> None:
    config = grpo_config(
        {
            "model": "runs/smol/adapter",
            "steps": 20,
            "adapter_rank": 8,
            "families": {"recall": 0.75, "citation_qa": 0.25, "reranking": 0},
        }
    )
    curve = [
        {"step": n, "all/total": n / 100, "all/retrieval": n / 50, "loss": 7.9}
        for n in range(1, 21)
    ]
    page = card(config, "maker/base", "smol", 16, curve)
    assert page.startswith("---\nbase_model: maker/base\n")
    assert 'RecaLLM.load("smol", base="maker/base")' in page
    assert "of rank 16 for maker/base, and the rows of four tokens" in page
    assert "earlier adapter" in page
    assert "20 steps" in page
    assert "recall 75%, citation_qa 25%." in page
    assert "| 1 to 4 | 0.025 | 0.050 |" in page
    assert "| 17 to 20 | 0.185 | 0.370 |" in page
    assert "--model runs/smol/adapter" in page
    assert "7.9" not in page
    assert "None is recorded here" in page
    alone = card(config, "runs/smol/model", "smol", 8, [])
    assert "not watched" in alone
    assert "rows of four tokens" not in alone
    assert "earlier adapter" not in alone
