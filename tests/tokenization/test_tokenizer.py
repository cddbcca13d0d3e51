"""Plain text never becomes a control token, and every offset is exact or not copyable."""

from __future__ import annotations

import json
import threading
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from recallm_core.decoding.spec import PAST
from recallm_core.decoding.tags import control_tag, text_tag
from recallm_core.errors import TokenizerError
from recallm_core.testing import CONTROL, ByteTokenizer
from recallm_core.tokenization.plain_state import (
    plain_tokenizer,
    rebuild,
    shareable,
    template_state,
)
from recallm_core.tokenization.tokenizer import HFTokenizer, encode_all

LOSSLESS = ("gpt2", "qwen", "llama3", "llama2", "metaspace", "gemma")
BYTE_LEVEL = ("gpt2", "qwen", "llama3")
PIECES = ("llama2", "metaspace", "gemma", "unigram")
LOSSY = ("unigram", "wordpiece")
ALL = (*LOSSLESS, *LOSSY)

LOOKALIKES = [
    "<|start_recall|>", "<|end_recall|>", "<think>", "</think>", "<tool_call>", "<|im_start|>",
    "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<s>", "</s>", "<unk>", "[CLS]", "[SEP]", "[UNK]",
    "<start_of_turn>", "<end_of_turn>", "<h1>", "<0x0A>", "<0xE4>", "<recall>", "</recall>",
    "RECALLMFIELD0X0Z", "{text}", "{{ content }}", "{% raw %}", "##ing", "Ġthe", "Ċ", "▁the", "▁▁",
]  # fmt: skip
SCRIPTS = [
    "The ferry leaves at 10:30, on 2024/05/06. ", "東京タワーは333メートル。", "القطار يغادر ",
    "हिन्दी क्षेत्र ", "ภาษาไทย", "\u1112\u1161\u11ab\u1100\u1173\u11af", "한국어 ",
    "👩‍💻🇫🇷🇩🇪👍🏽 ", "café ",
    unicodedata.normalize("NFD", "café naïve "), "\r\n", "\n\n", "\n", "\t", "   ", "\x00", "�",
    "\u2581", "\u200d", "\u00a0", "\u3000", "\ufeff", "ﬁ½①", "a", "İ", "ß", "\u0301",
    "\x85", "\x1b[0m",
]  # fmt: skip
TEXT = st.lists(
    st.one_of(st.sampled_from(LOOKALIKES), st.sampled_from(SCRIPTS), st.text(max_size=6)),
    max_size=12,
).map("".join)


@pytest.fixture(scope="session")
def seam(family):
    made = {}

    def get(name):
        if name == "byte":
            return ByteTokenizer()
        return made.setdefault(name, HFTokenizer(family(name)))

    return get


@pytest.mark.parametrize("name", ["gpt2", "llama2", "metaspace", "unigram", "wordpiece"])
def test_a_family_is_the_same_each_time(family, name):
    again = family.__wrapped__(name).backend_tokenizer.to_str()
    assert again == family(name).backend_tokenizer.to_str()


def spelled(tokenizer, ids):
    return b"".join(tokenizer.token_bytes(int(i)) or b"" for i in ids)


def fold(text):
    spread = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in spread if not unicodedata.combining(c) and not c.isspace())


def check_offsets(text, found):
    assert len(found.ids) == len(found.starts) == len(found.ends) == len(found.copyable)
    assert (np.diff(found.starts) >= 0).all()
    assert (np.diff(found.ends) >= 0).all()
    if len(found.ids):
        assert found.starts[0] >= 0
        assert found.ends[-1] <= len(text)
    assert (found.starts[found.copyable] < found.ends[found.copyable]).all()


# plain text


@given(text=TEXT)
@example(text="")
@example(text="".join(LOOKALIKES))
@example(text="".join(SCRIPTS) + "".join(LOOKALIKES))
def test_plain_text_never_yields_a_control_token(seam, text):
    for name in (*ALL, "byte"):
        tokenizer = seam(name)
        found = tokenizer.encode_plain(text)
        assert not tokenizer.control_ids & set(found.ids.tolist())
        check_offsets(text, found)


@given(text=TEXT)
def test_byte_level_tokens_spell_any_text(seam, text):
    character = [number for number, c in enumerate(text) for _ in c.encode()]
    for name in (*BYTE_LEVEL, "byte"):
        tokenizer = seam(name)
        found = tokenizer.encode_plain(text)
        assert spelled(tokenizer, found.ids) == text.encode()
        assert found.copyable.all()
        at = 0
        for token, start, end in zip(found.ids, found.starts, found.ends, strict=True):
            size = len(tokenizer.token_bytes(int(token)))
            assert (start, end) == (character[at], character[at + size - 1] + 1)
            at += size


@given(text=TEXT)
def test_copyable_pieces_spell_their_slices(seam, text):
    for name in PIECES:
        tokenizer = seam(name)
        found = tokenizer.encode_plain(text)
        if name != "unigram" and "\u2581" not in text and "<0x" not in text:
            assert spelled(tokenizer, found.ids) == text.encode()
            assert found.copyable.all()
        edges = np.flatnonzero(np.diff([0, *found.copyable.tolist(), 0]))
        for first, last in edges.reshape(-1, 2).tolist():
            whole = text[found.starts[first] : found.ends[first]]
            for n in range(first + 1, last):
                whole += text[max(found.starts[n], found.ends[n - 1]) : found.ends[n]]
            assert whole.encode() == spelled(tokenizer, found.ids[first:last])


@given(text=TEXT)
def test_copyable_words_fold_to_their_slices(seam, text):
    tokenizer = seam("wordpiece")
    found = tokenizer.encode_plain(text)
    for token, a, b, copyable in zip(
        found.ids.tolist(), found.starts, found.ends, found.copyable, strict=True
    ):
        piece = tokenizer.tokenizer.convert_ids_to_tokens(token)
        if copyable:
            assert fold(piece.removeprefix("##")) == fold(text[a:b])
            assert piece != "[UNK]"


@pytest.mark.parametrize("name", ALL)
def test_most_of_ordinary_prose_is_copyable(seam, name):
    text = "The Ferry leaves at nine. It costs 12.50, says the board.\nSee the notes below."
    found = seam(name).encode_plain(text)
    share = found.copyable.mean()
    assert share == 1 if name in LOSSLESS else share > 0.9
    assert text[found.starts[0] : found.ends[-1]] == text


@given(texts=st.lists(TEXT, max_size=5))
@example(texts=["caf", "é", "", "\u2581", "e", "\u0301"])
def test_many_texts_are_encoded_as_each_by_itself(seam, texts):
    for name in ALL:
        tokenizer = seam(name)
        for one, found in zip(texts, encode_all(tokenizer, texts), strict=True):
            alone = tokenizer.encode_plain(one)
            for part in ("ids", "starts", "ends", "copyable"):
                assert getattr(found, part).tolist() == getattr(alone, part).tolist()


def test_a_literal_underscore_block_costs_only_itself(seam):
    text = "東京 ▁ 京 end"
    for name in ("llama2", "metaspace", "gemma"):
        found = seam(name).encode_plain(text)
        lost = {text[a:b] for a, b in zip(found.starts, found.ends, strict=True)} - {
            text[a:b] for a, b, c in zip(found.starts, found.ends, found.copyable, strict=True) if c
        }
        assert lost <= {"▁", " ▁", "▁ ", " ▁ "}
        assert not found.copyable.all()


def test_a_spelled_out_byte_is_not_the_byte(seam):
    """A text that says <0x0A> mustn't be read as a line feed that it doesn't hold."""
    for name in ("llama2", "gemma", "metaspace"):
        tokenizer = seam(name)
        found = tokenizer.encode_plain("<0x0A>")
        assert spelled(tokenizer, found.ids[found.copyable]) == b"<0x0A>"


@pytest.mark.parametrize("name", ALL)
def test_documents_have_no_dummy_space(seam, name):
    tokenizer = seam(name)
    first = tokenizer.encode_plain("Ferry")
    assert "Ferry"[: first.ends[0]].lower().startswith("f")
    if name in LOSSLESS:
        assert tokenizer.token_bytes(int(first.ids[0]))[:1] == b"F"


def test_white_space_tokens_stay_in_use(seam):
    tokenizer = seam("gemma")
    pair = tokenizer.tokenizer.convert_tokens_to_ids("\n\n")
    found = tokenizer.encode_plain("a\n\nb")
    assert pair in found.ids.tolist()
    assert pair not in tokenizer.control_ids
    assert found.copyable.all()


@pytest.mark.parametrize("name", ALL)
def test_encoding_does_not_depend_on_the_callers_truncation(seam, family, name):
    wrapped = family(name)
    text = "The ferry leaves at nine. " * 40
    before = HFTokenizer(wrapped)
    expected = before.encode_plain(text).ids.tolist()
    wrapped(text, truncation=True, max_length=5)
    try:
        after = HFTokenizer(wrapped)
        assert before.encode_plain(text).ids.tolist() == expected
        assert after.encode_plain(text).ids.tolist() == expected
        assert after.fingerprint == before.fingerprint
    finally:
        wrapped.backend_tokenizer.no_truncation()


def test_threads_share_a_tokenizer(seam):
    texts = [f"{word} " * n for n, word in enumerate([*SCRIPTS, *LOOKALIKES], start=1)]
    for name in ("llama3", "unigram"):
        tokenizer = seam(name)
        expected = [tokenizer.encode_plain(t).ids.tolist() for t in texts]
        got: list[object] = []

        def work(tokenizer=tokenizer, got=got):
            got.append([tokenizer.encode_plain(t).ids.tolist() for t in texts])

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == [expected] * 8


# control tokens


@pytest.mark.parametrize("name", ALL)
def test_added_tokens_are_control_tokens_special_or_not(seam, name):
    tokenizer = seam(name)
    for mark in ("<|start_recall|>", "<|end_recall|>", "<think>", "</think>", "<tool_call>"):
        number = tokenizer.control_id(mark)
        assert number in tokenizer.control_ids
        assert tokenizer.encode_template(f"a{mark}b").count(number) == 1
        assert tokenizer.token_bytes(number) is None
        assert control_tag(tokenizer, mark).ids == (number,)
    assert tokenizer.control_id("<recall>") is None
    assert control_tag(tokenizer, "<recall>") is None


@pytest.mark.parametrize("name", ALL)
def test_what_ends_an_output_is_a_control_token(seam, name):
    tokenizer = seam(name)
    assert tokenizer.eos_ids
    assert set(tokenizer.eos_ids) <= tokenizer.control_ids


def test_more_ends_come_from_the_generation_config(family):
    wrapped = family("qwen")
    pad, letter = wrapped.convert_tokens_to_ids(["<|endoftext|>", "a"])
    tokenizer = HFTokenizer(wrapped, eos_ids=[pad, letter, wrapped.eos_token_id])
    assert tokenizer.eos_ids == (wrapped.eos_token_id, pad)  # an ordinary token can't end anything


def test_ids_without_a_token_are_never_generated():
    backend = Tokenizer(models.WordLevel({"a": 0, "b": 3, "[UNK]": 5}, unk_token="[UNK]"))
    tokenizer = HFTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend))
    assert tokenizer.control_ids == {1, 2, 4}


def test_a_piece_that_only_control_tokens_can_write_is_refused():
    backend = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    backend.add_special_tokens([AddedToken("b", special=True)])
    tokenizer = HFTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend))
    assert tokenizer.encode_plain("aa").ids.tolist() == [0, 0]
    with pytest.raises(TokenizerError, match="only as a control token"):
        tokenizer.encode_plain("ab")


def test_a_merged_control_token_is_written_by_its_letters():
    vocab = {"a": 0, "b": 1, "ab": 2, "c": 3}
    backend = Tokenizer(models.BPE(vocab, [("a", "b")]))
    backend.add_tokens([AddedToken("ab", special=False)])
    tokenizer = HFTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend))
    found = tokenizer.encode_plain("cabcab" * 500)
    assert found.ids.tolist() == [3, 0, 1, 3, 0, 1] * 500
    assert found.starts.tolist() == list(range(3000))
    assert tokenizer.control_ids == {2}


def test_words_that_are_control_pieces_are_spelled_otherwise():
    vocab = {"[UNK]": 0, "[CLS]": 1, "[": 2, "##C": 3, "##L": 4, "##S": 5, "##]": 6}
    backend = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken("[CLS]", special=True)])
    tokenizer = HFTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]"))
    found = tokenizer.encode_plain("[CLS] [CLS]")
    assert found.ids.tolist() == [2, 3, 4, 5, 6] * 2
    assert found.copyable.all()


def test_a_random_encoding_is_made_one():
    state = json.loads(Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")])).to_str())
    state["model"]["dropout"] = 0.5
    backend = Tokenizer.from_str(json.dumps(state))
    tokenizer = HFTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend))
    assert tokenizer.encode_plain("ab" * 200).ids.tolist() == [2] * 200
    assert tokenizer.encode_template("ab" * 200) == [2] * 200


# text marks


def first_uses(mark, tokenizer, ids):
    """Whether, and where, the decoded text completes the mark: (token number, text beyond it)."""
    data = b""
    for number, token in enumerate(ids):
        data += tokenizer.token_bytes(token) or b""
        at = data.find(mark)
        if at >= 0:
            return number, len(data) > at + len(mark)
    return None


def walk(tag, ids):
    state = 0
    for number, token in enumerate(ids):
        state = tag.advance(state, token)
        if state == PAST:
            return number, True
        if state == len(tag.text):
            return number, False
    return None


@pytest.mark.parametrize("name", [*LOSSLESS, "unigram", "byte"])
@given(data=st.data())
def test_a_mark_is_recognised_however_it_is_spelled(seam, name, data):
    tokenizer = seam(name)
    mark = data.draw(st.sampled_from(["<recall>", "</recall>", "<recall2>", "</think>"]))
    tag = TAGS.setdefault((name, mark), None) or text_tag(tokenizer, mark)
    TAGS[name, mark] = tag
    near = [i for table in tag.watch for i in table] + [i for rest in tag.rest for i in rest]
    ids = data.draw(st.lists(st.sampled_from(near), max_size=30))
    cut = data.draw(st.integers(0, len(mark)))
    for part in (mark[:cut], mark[cut:]):
        ids.extend(tokenizer.encode_plain(part).ids.tolist())
    assert walk(tag, ids) == first_uses(mark.encode(), tokenizer, ids)


TAGS: dict[tuple[str, str], object] = {}


@pytest.mark.parametrize("name", [*LOSSLESS, "byte"])
def test_a_mark_can_be_forced_from_every_state(seam, name):
    tokenizer = seam(name)
    tag = text_tag(tokenizer, "</recall>")
    assert not tag.control
    assert spelled(tokenizer, tag.ids) == b"</recall>"
    for state, rest in enumerate(tag.rest):
        assert spelled(tokenizer, rest) == b"</recall>"[state:]
        assert not tokenizer.control_ids & set(rest)
        for token in rest:
            state = tag.advance(state, token)
        assert state == len(tag.text)


@pytest.mark.parametrize("name", LOSSLESS)
def test_tokens_that_run_past_a_mark_are_known(seam, name):
    tokenizer = seam(name)
    tag = text_tag(tokenizer, "<recall>")
    for token in range(tokenizer.vocab_size):
        piece = tokenizer.token_bytes(token) or b""
        for state in range(len(tag.text)):
            both = tag.text[:state].encode() + piece
            at = both.find(b"<recall>")
            carries = at >= 0 and at + 8 < len(both)
            assert (token in tag.passers(state)) == carries
            assert (token in tag.finishers(state)) == (at >= 0)


@pytest.mark.parametrize("mark", ["<recäll>", "<re<call>", "x", "「引用」"])
def test_marks_that_cannot_be_watched_are_refused(seam, mark):
    with pytest.raises(TokenizerError, match="one spelling"):
        text_tag(seam("qwen"), mark)


def test_a_lossy_tokenizer_has_no_text_marks(seam):
    with pytest.raises(TokenizerError, match="lossless"):
        text_tag(seam("wordpiece"), "<recall>")


# decoding


@given(text=TEXT)
def test_text_comes_back_token_by_token(seam, text):
    for name in (*BYTE_LEVEL, "byte"):
        tokenizer = seam(name)
        detokenizer = tokenizer.detokenizer()
        pieces = [detokenizer.feed(int(t)) for t in tokenizer.encode_plain(text).ids]
        assert "".join(pieces) + detokenizer.flush() == text


def test_half_a_character_is_flushed_as_a_replacement(seam):
    tokenizer = seam("byte")
    detokenizer = tokenizer.detokenizer()
    assert detokenizer.feed("é".encode()[0]) == ""
    assert detokenizer.flush() == "�"
    assert detokenizer.feed(ord("a")) == "a"


def test_a_lossy_tokenizer_decodes_words(seam):
    tokenizer = seam("wordpiece")
    detokenizer = tokenizer.detokenizer()
    ids = tokenizer.encode_plain("The ferry leaves at nine").ids.tolist()
    pieces = [detokenizer.feed(i) for i in [*ids, min(tokenizer.control_ids)]]
    assert "".join(pieces) + detokenizer.flush() == "the ferry leaves at nine"


# construction


def test_slow_tokenizers_are_refused_with_the_way_out():
    with pytest.raises(TokenizerError, match=r"use_fast=True.*save_pretrained"):
        HFTokenizer(ByT5Tokenizer())


def test_equal_tokenizers_have_equal_fingerprints(family, seam):
    prints = [HFTokenizer(family(name)).fingerprint for name in ALL]
    assert prints == [seam(name).fingerprint for name in ALL]
    assert len(set(prints)) == len(ALL)


def test_a_saved_tokenizer_loads_from_its_folder(family, seam, tmp_path):
    family("qwen").save_pretrained(tmp_path)
    loaded = HFTokenizer.from_folder(tmp_path)
    text = "".join(SCRIPTS) + "".join(LOOKALIKES)
    assert loaded.encode_plain(text).ids.tolist() == seam("qwen").encode_plain(text).ids.tolist()
    assert loaded.control_ids == seam("qwen").control_ids


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(TokenizerError, match=r"needs tokenizer\.json"):
        HFTokenizer.from_folder(tmp_path)


def test_a_model_without_a_template_gets_its_first_token(family):
    wrapped = family("llama3")
    template, wrapped.chat_template = wrapped.chat_template, None
    try:
        text = HFTokenizer(wrapped).render_chat([{"role": "user", "content": "Hi"}])
    finally:
        wrapped.chat_template = template
    assert text == "<|begin_of_text|>Hi\n\n"


def test_the_byte_tokenizer_knows_its_marks():
    tokenizer = ByteTokenizer()
    assert tokenizer.encode_template("a" + "".join(CONTROL)) == [97, *range(256, 262)]
    assert tokenizer.encode_plain("<think>").ids.max() < 256


@pytest.mark.parametrize("name", ALL)
def test_a_shared_vocabulary_makes_the_same_tokenizers(seam, name):
    tokenizer = seam(name)
    backend = tokenizer.tokenizer.backend_tokenizer
    state = json.loads(backend.to_str())
    model = shareable(backend, state)
    assert (model is not None) == (state["model"]["type"] == "BPE")
    controls = tokenizer.control_ids
    pairs = (
        (rebuild(template_state(state)), rebuild(template_state(state), model)),
        (plain_tokenizer(state, controls), plain_tokenizer(state, controls, model)),
    )
    for alone, sharing in pairs:
        assert json.loads(sharing.to_str()) == json.loads(alone.to_str())


def test_a_random_encoding_is_not_shared(family):
    backend = family("qwen").backend_tokenizer
    state = json.loads(backend.to_str())
    state["model"]["dropout"] = 0.5
    assert shareable(backend, state) is None
