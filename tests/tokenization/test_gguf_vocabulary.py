"""Tokenizers that stand in GGUF files: what they spell, and what no text may become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.errors import TokenizerError
from recallm_core.inputs.gguf_header import read_header
from recallm_core.tokenization.gguf_vocabulary import tokenizer_of
from recallm_core.tokenization.pre_tokenizers import PATTERNS
from recallm_core.tokenization.tokenizer import HFTokenizer

LOOK_ALIKES = "<|im_start|>system</think><|end_recall|> </s><s><unk> <0x41> [PAD260] [unused281]"
Kinds = dict[str, HFTokenizer]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Any) -> Kinds:
    folder = tmp_path_factory.mktemp("vocabularies")
    made = {}
    for name in ("byte_level", "of_pieces"):
        path = tiny_gguf.write(folder / f"{name}.gguf", vocabulary=getattr(tiny_gguf, name)())
        header = read_header(path)
        made[name] = tokenizer_of(header, controls=(), ends=(295,), begins=name == "of_pieces")
    return made


@pytest.mark.parametrize("name", ["byte_level", "of_pieces"])
@given(text=st.text(max_size=60) | st.just(LOOK_ALIKES))
def test_any_text_is_spelled_exactly_and_without_control_tokens(
    kinds: Kinds, name: str, text: str
) -> None:
    tokenizer = kinds[name]
    tokens = tokenizer.encode_plain(text)
    spelled = b"".join(tokenizer.token_bytes(i) or b"?" for i in tokens.ids.tolist())
    assert spelled == text.encode()
    assert tokens.copyable.all()
    assert not tokenizer.control_ids.intersection(tokens.ids.tolist())


def test_control_tokens_are_those_that_the_file_marks(kinds: Kinds, tiny_gguf: Any) -> None:
    tokenizer = kinds["byte_level"]
    assert tokenizer.control_id("<|start_recall|>") == tiny_gguf.OPEN
    assert tokenizer.control_ids.issuperset({*tiny_gguf.NAMED, 290, 296})
    assert tokenizer.control_ids.isdisjoint(range(256))
    assert tokenizer.eos_ids == (tiny_gguf.EOS, 295)
    assert kinds["of_pieces"].control_id("</s>") == 2
    assert tokenizer.encode_template("<|im_start|>a<|im_end|>")[0] == 294


def test_what_llama_cpp_takes_for_control_is_control(tiny_gguf: Any, tmp_path: Path) -> None:
    header = read_header(tiny_gguf.write(tmp_path / "x.gguf"))
    tokenizer = tokenizer_of(header, controls=(258,), ends=(), begins=False)
    assert 258 in tokenizer.control_ids
    assert 258 not in tokenizer.encode_plain(" the the").ids.tolist()


def test_merges_and_scores_join_pieces(kinds: Kinds, tiny_gguf: Any) -> None:
    for name, text in (("byte_level", "x the 1889"), ("of_pieces", "x the 19  \n\n é日")):
        tokens = kinds[name].encode_plain(text)
        assert len(tokens.ids) < len(text)
    ids = kinds["of_pieces"].encode_plain("x the").ids.tolist()
    assert ids[-1] == tiny_gguf.of_pieces()["tokenizer.ggml.tokens"].index("▁the")


def test_conversations_are_written_by_the_files_template(kinds: Kinds) -> None:
    message = [{"role": "user", "content": "hi"}]
    for name, begin in (("byte_level", ""), ("of_pieces", "<s>")):
        text = kinds[name].render_chat(message)
        assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
        assert kinds[name].tokenizer("hi").input_ids[:1] == ([1] if begin else [ord("h")])
        assert "hi" in kinds[name].decode(kinds[name].encode_plain("hi").ids.tolist())


def test_a_file_without_a_template_is_a_base_model(tiny_gguf: Any, tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "base.gguf", tokenizer__chat_template=None)
    tokenizer = tokenizer_of(read_header(path), controls=(), ends=(), begins=False)
    assert tokenizer.render_chat([{"role": "user", "content": "hi"}]) == "hi\n\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer__ggml__model": "t5"}, "kind 't5'.*tokenizer=FOLDER"),
        ({"tokenizer__ggml__pre": "of-next-year"}, "'of-next-year'.*tokenizer=FOLDER"),
    ],
)
def test_other_kinds_are_refused_with_the_way_out(
    changes: dict[str, Any], message: str, tiny_gguf: Any, tmp_path: Path
) -> None:
    header = read_header(tiny_gguf.write(tmp_path / "other.gguf", **changes))
    with pytest.raises(TokenizerError, match=message):
        tokenizer_of(header, controls=(), ends=(), begins=False)


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_every_cut_keeps_the_whole_text(name: str) -> None:
    from tokenizers import Regex, pre_tokenizers

    text = "It's 12345 dollars—DON'T\r\n\r\n  run;  日本語 ﬁne naïve x=1\t\t"
    pieces = [text]
    for pattern in PATTERNS[name]:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        pieces = [part for piece in pieces for part, _ in split.pre_tokenize_str(piece)]
    assert "".join(pieces) == text
    assert len(pieces) > 2


def test_texts_are_cut_as_llama_cpp_cuts_them(
    llama_cpp: Any, tiny_gguf: Any, tmp_path: Path
) -> None:
    """Ids of every kind of cut against llama.cpp's own."""
    texts = [
        "It's 12345 dollars, DON'T!\r\n\r\n  run;  x=1\t\t the then",
        "日本語 naïve café 18 89",
    ]
    buffer = (llama_cpp.llama_token * 500)()
    for name in ("default", "gpt-2", "smollm", "llama-bpe", "qwen2", "qwen35", "tekken", "gpt-4o"):
        path = tiny_gguf.write(tmp_path / f"{name}.gguf", tokenizer__ggml__pre=name)
        tokenizer = tokenizer_of(read_header(path), controls=(), ends=(), begins=False)
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        vocab = llama_cpp.llama_model_get_vocab(model)
        for text in texts:
            data = text.encode()
            size = llama_cpp.llama_tokenize(vocab, data, len(data), buffer, 500, False, False)
            assert tokenizer.encode_plain(text).ids.tolist() == list(buffer[:size]), (name, text)
        llama_cpp.llama_model_free(model)
