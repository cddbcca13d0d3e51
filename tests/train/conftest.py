from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from recallm_core.train.mini.tokenizer import train_tokenizer
from recallm_core.train.tasks.templates import make_page


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    rng = random.Random(0)
    return train_tokenizer((make_page(rng, 4).text for _ in range(200)), 700)


@pytest.fixture(scope="session")
def make_checkpoint() -> Callable[..., Path]:
    """Writes a tiny trainable checkpoint of a real class."""
    from recallm_core.train.grpo.tiny import make_checkpoint

    return make_checkpoint


@pytest.fixture(scope="session")
def checkpoints(
    make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Qwen2 with tied embeddings and Llama with untied ones, as the 7B and 8B have them or not."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        "qwen2": make_checkpoint(folder, "qwen2", tied=True),
        "llama": make_checkpoint(folder, "llama", tied=False),
    }
