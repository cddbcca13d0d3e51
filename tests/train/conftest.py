from __future__ import annotations

import random

import pytest
from tokenizers import Tokenizer

from recallm_core.train.mini_tokenizer import train_tokenizer
from recallm_core.train.templates import make_page


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    rng = random.Random(0)
    return train_tokenizer((make_page(rng, 4).text for _ in range(200)), 700)
