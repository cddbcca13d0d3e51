"""Texts encoded together are encoded as each would be by itself."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recallm_core.tokenization.plain_encoder import PlainEncoder
from recallm_core.tokenization.tokenizer import HFTokenizer

PIECES = [
    "<|im_end|>",
    "</s>",
    "[SEP]",
    "a",
    " the",
    "é",
    "日本",
    "\n",
    "👩‍💻",
    "\u0301",
    "ﬁ",
    "  ",
]
texts = st.lists(st.lists(st.sampled_from(PIECES), max_size=5).map("".join), max_size=5)


@pytest.fixture(params=["gpt2", "llama2", "wordpiece"])
def encoder(request, family) -> PlainEncoder:
    return HFTokenizer(family(request.param))._encoder


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=texts)
def test_many_texts_are_encoded_as_each_is_alone(encoder: PlainEncoder, texts: list[str]) -> None:
    together = encoder.encode_many(texts)
    assert len(together) == len(texts)
    for text, tokens in zip(texts, together, strict=True):
        alone = encoder.encode(text)
        for name in ("ids", "starts", "ends", "copyable"):
            assert np.array_equal(getattr(tokens, name), getattr(alone, name)), (text, name)


def test_an_empty_text_has_no_tokens(encoder: PlainEncoder) -> None:
    assert len(encoder.encode("").ids) == 0
    assert [len(tokens.ids) for tokens in encoder.encode_many(["", "a", ""])][::2] == [0, 0]
