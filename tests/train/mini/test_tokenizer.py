from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from recallm_core.train.mini.tokenizer import train_tokenizer
from recallm_core.train.tasks.traces import RECALL, STRUCTURAL

TOKENIZER = train_tokenizer(["Ferries leave at nine in 2024."], 300)


@given(st.text(max_size=60))
def test_any_text_round_trips(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text


def test_digits_stand_alone_and_control_tokens_are_one_token(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("2024").tokens == list("2024")
    for name in (*STRUCTURAL, *RECALL):
        assert len(tokenizer.encode(name).ids) == 1
    added = tokenizer.get_added_tokens_decoder().values()
    assert {t.content for t in added if t.special} == set(STRUCTURAL)
