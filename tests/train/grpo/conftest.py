from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SETTINGS: dict[str, Any] = {
    "steps": 3,
    "prompts": 2,
    "rollouts": 4,
    "device_batch": 4,
    "prompt_tokens": [20, 150],
    "response_tokens": 64,
    "thinking_tokens": 2,
    "evidence": "first",
    "lr": 1e-3,
    "beta": 0.01,
    "precision": "fp32",
    "gradient_checkpointing": False,
    "save_every": 1,
    "families": {"recall": 1.0},
    "reward": {"overlong_tokens": 0},
}


@pytest.fixture
def open_tiny(checkpoints: dict[str, Path], tmp_path: Path) -> Callable[..., Any]:
    """Opens a run over a tiny checkpoint, in a folder of its own."""
    pytest.importorskip("trl", reason="needs the extra grpo")

    def opened(kind: str = "qwen2", folder: str = "run", **changes: Any) -> Any:
        from recallm_core.train.grpo.config import grpo_config
        from recallm_core.train.grpo.train import open_run

        values = SETTINGS | {"model": str(checkpoints[kind])} | changes
        (tmp_path / folder).mkdir(exist_ok=True)
        return open_run(grpo_config(values), tmp_path / folder)

    return opened
