"""The tokenizer of bytes spells every text exactly."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.testing import (
    CONTROL,
    EOS,
    ByteTokenizer,
)

PIECES = ["the", " the", "é🇫🇷", "日本", "<recall>", "ab", "abc", "a"]


@given(st.text(), st.sampled_from([(), PIECES]))
def test_plain_text_is_spelled_exactly_and_never_as_control_tokens(
    text: str, pieces: tuple[str, ...]
) -> None:
    tokenizer = ByteTokenizer(pieces)
    tokens = tokenizer.encode_plain(text)
    spelled = b"".join(tokenizer.token_bytes(int(i)) or b"?" for i in tokens.ids)
    assert spelled == text.encode()
    assert not set(tokens.ids.tolist()) & tokenizer.control_ids
    for token, start, end in zip(tokens.ids, tokens.starts, tokens.ends, strict=True):
        piece = tokenizer.token_bytes(int(token))
        assert piece is not None
        assert piece in text[start:end].encode()
    if len(tokens.ids):
        assert (tokens.starts[0], tokens.ends[-1]) == (0, len(text))
        assert (np.diff(tokens.starts) >= 0).all()
    decoder = tokenizer.detokenizer()
    assert "".join(decoder.feed(int(i)) for i in tokens.ids) + decoder.flush() == text


@given(st.lists(st.sampled_from([*CONTROL, "<|", "x", "é", "<|eos|"]), max_size=8))
def test_wording_has_its_control_tokens_recognised(parts: list[str]) -> None:
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode_template("".join(parts))
    spelled = b"".join(CONTROL[i - 256].encode() if 256 <= i <= EOS else bytes([i]) for i in ids)
    assert spelled.decode() == "".join(parts)
    assert [i for i in ids if i >= 256] == [256 + CONTROL.index(p) for p in parts if p in CONTROL]


def test_the_longest_piece_is_taken() -> None:
    tokenizer = ByteTokenizer(["ab", "abc"])
    assert tokenizer.encode_plain("abcab").ids.tolist() == [EOS + 2, EOS + 1]
    assert (
        ByteTokenizer().fingerprint
        != tokenizer.fingerprint
        == ByteTokenizer(["ab", "abc"]).fingerprint
    )
