from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from recallm_core.text.boundaries import word_boundaries
from recallm_core.train.tasks.tasks import SIZES, Mixture
from recallm_core.train.tasks.traces import (
    END_RECALL,
    END_THINK,
    EOS,
    START_RECALL,
    Encoder,
    Example,
    is_boundary,
    make_run,
)

WEIGHTS = {"page": 0.5, "missing": 0.2, "lookup": 0.15, "two_hop": 0.15}


def encoded(tokenizer: Tokenizer, seed: int, size: str):  # type: ignore[no-untyped-def]
    rng = random.Random(seed)
    encoder = Encoder(tokenizer)
    while True:
        example = Mixture(None, WEIGHTS).draw(rng, SIZES[size])
        row = encoder.encode(example, rng)
        if row is not None:
            return encoder, example, row


@pytest.mark.parametrize("seed", range(25))
def test_recalled_ids_are_a_real_piece_of_their_passage(tokenizer: Tokenizer, seed: int) -> None:
    encoder, example, row = encoded(tokenizer, seed, "short")
    runs = encoder.prompt(example)[1]
    ids = row.ids.tolist()
    out = ids[row.prompt_length :]
    opened = [i for i, token in enumerate(out) if token == encoder.id[START_RECALL]]
    closed = [i for i, token in enumerate(out) if token == encoder.id[END_RECALL]]
    spans = [out[a + 1 : b] for a, b in zip(opened, closed, strict=True)]
    wanted = [*example.evidence, *([example.answer] if example.answer else [])]
    assert len(spans) == len(wanted)
    for span, (passage, start, end) in zip(spans, wanted, strict=True):
        cut = runs[passage].cut(start, end)
        assert cut is not None
        assert span == runs[passage].ids[cut[0] : cut[1]].tolist()
        text = example.passages[passage][1]
        assert tokenizer.decode(span).strip() == text[start:end].strip()
    assert out[-1] == encoder.id[EOS]
    assert out.count(encoder.id[END_THINK]) == 1


@pytest.mark.parametrize("seed", range(25))
def test_the_right_token_is_always_legal(tokenizer: Tokenizer, seed: int) -> None:
    _, _, row = encoded(tokenizer, seed, "paragraph")
    assert row.choices
    for choice in row.choices:
        assert choice.support[choice.target] == row.ids[choice.position + 1]
        assert (np.diff(choice.support) > 0).all()
        assert np.isfinite(choice.tilt).all()
    for position, target, _ in row.plain:
        assert row.ids[position + 1] == target
    for query, source, _ in (*row.copies, *row.answers):
        assert row.ids[source] == row.ids[query + 1]
        assert source <= query


@given(st.text(alphabet="ab7. ,:'-\n\u2019é東", max_size=30))
def test_boundaries_are_those_of_the_decoder(text: str) -> None:
    legal = word_boundaries(text)
    for at in range(1, len(text)):
        plain = not (text[at - 1] in ".,:'\u2019-" or text[at] in ".,:'\u2019-")
        if plain and text[at - 1].isascii() and text[at].isascii() and not text[at].isspace():
            assert is_boundary(text, at) == bool(legal[at])


@given(st.text(max_size=40))
def test_a_run_covers_its_text(text: str) -> None:
    run = make_run(text, _TOKENIZER, 0)
    assert (run.starts <= run.ends).all()
    assert len(run.ids) == len(run.can_start) == len(run.can_end)
    if text:
        assert run.starts[0] == 0
        assert run.ends[-1] == len(text)


def _small() -> Tokenizer:
    from recallm_core.train.mini.tokenizer import train_tokenizer

    return train_tokenizer(["a small text about ferries"], 280)


_TOKENIZER = _small()


def test_spans_off_the_tokens_are_refused(tokenizer: Tokenizer) -> None:
    text = "The port is 8443."
    example = Example((("", text),), "Port?", ((0, 0, len(text)),), (0, 13, 15), "x")
    assert Encoder(tokenizer).encode(example, random.Random(0)) is None
    good = Example((("", text),), "Port?", ((0, 0, len(text)),), (0, 12, 16), "x")
    assert Encoder(tokenizer).encode(good, random.Random(0)) is not None
