"""``--check`` builds the model's real shape without memory, and takes one tiny step."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from recallm_core.errors import RecallmError

pytest.importorskip("trl", reason="needs the extra grpo")

CONFIGS = Path(str(files("recallm_core") / "train" / "configs"))
WEIGHTS = {"qwen2.5-7b": "7.62 billion", "llama-3.1-8b": "8.03 billion"}


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.timeout(120)
def test_the_shipped_configs_pass(name: str) -> None:
    from recallm_core.train.grpo.check import check
    from recallm_core.train.grpo.config import read_grpo_config

    report = check(read_grpo_config(CONFIGS / f"grpo-{name}.toml"))
    assert WEIGHTS[name] in report
    step = re.search(r"one step .* gradient (\S+), .* log-probabilities (\S+)", report)
    assert step is not None
    assert float(step[1]) > 0  # rewards differed, and something was learnt from it
    assert float(step[2]) < 1e-4


def test_rows_longer_than_the_window_are_refused() -> None:
    from recallm_core.train.grpo.check import check
    from recallm_core.train.grpo.config import read_grpo_config

    config = read_grpo_config(CONFIGS / "grpo-qwen2.5-7b.toml")
    with pytest.raises(RecallmError, match="lower prompt_tokens"):
        check(replace(config, prompt_tokens=(1000, 40_000)))
    with pytest.raises(RecallmError, match="model_type"):
        check(replace(config, shape={}))
