"""Windows hold every token once or twice, scores don't depend on the batch, folders are checked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import BertConfig, BertForTokenClassification

from recallm_core.errors import CheckpointError
from recallm_core.evidence.reader import BUILT_IN, EvidenceReader
from recallm_core.evidence.reader_windows import Window, cut
from recallm_core.inputs.model_files import whole_tokenizer
from recallm_core.models import shipped
from recallm_core.text import lexical
from recallm_core.text.lexical import sentences
from recallm_core.train.reader.base import write_folder

PIECES = [
    "The ferry leaves at nine. ",
    "Ann Lee runs it.\n",
    "é",
    "\n\n",
    "东京塔。",
    "x" * 30,
    "1,5 ",
]
TEXT = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=12).map("".join)
WORDS = "the ferry leaves at nine from pier 7 when does it leave who runs ann lee ? . : , 9 1"


def tokenizer() -> Tokenizer:
    """Words, and single characters for the rest."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *dict.fromkeys([*WORDS.split(), *letters])]
    pieces += [f"##{letter}" for letter in letters]
    vocab = {piece: n for n, piece in enumerate(pieces)}
    made = Tokenizer(WordPiece(vocab, unk_token="[UNK]"))
    made.normalizer = BertNormalizer()
    made.pre_tokenizer = BertPreTokenizer()
    return made


def config() -> dict[str, int]:
    return {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": tokenizer().get_vocab_size(),
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
    }


def write_reader(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    model = BertForTokenClassification(BertConfig(**config(), num_labels=3))
    torch.nn.init.normal_(model.classifier.weight, std=2.0)
    weights = {name: value.detach() for name, value in model.named_parameters()}
    write_folder(weights, config(), tokenizer(), folder)
    return folder


TOKENIZER = tokenizer()


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> EvidenceReader:
    return EvidenceReader(write_reader(tmp_path_factory.mktemp("reader")))


@given(TEXT, st.integers(1, 40))
@example(">", 1)
def test_windows_hold_every_token_that_is_read(text: str, limit: int) -> None:
    windows = cut(text, 3, TOKENIZER, limit=limit)
    read = lexical.units(text).text  # without the marks of comments and quoted mail
    whole = TOKENIZER.encode(read, add_special_tokens=False)
    held = {
        (a, b) for w in windows for a, b in zip(w.starts.tolist(), w.ends.tolist(), strict=True)
    }
    assert held == set(whole.offsets)
    units = sentences(text)
    for window in windows:
        assert window.passage == 3
        assert 0 < len(window.ids) <= limit or len(window.heads) == 1
        assert len(window.ids) == len(window.starts) == len(window.ends)
        assert list(window.heads) == sorted(window.heads)
        assert max(window.heads) < len(window.ids)
        assert window.first + len(window.heads) <= len(units)


@given(TEXT)
@example("Ann Lee runs it.\n>")
def test_a_head_is_where_its_sentence_begins(text: str) -> None:
    units, read = sentences(text), lexical.units(text).text  # marks of the layout aren't read
    for window in cut(text, 0, TOKENIZER, limit=10_000):
        for number, head in enumerate(window.heads):
            start, end = units[window.first + number]
            spelt = TOKENIZER.encode(read[start:end], add_special_tokens=False).ids
            assert not spelt or (window.ends[head] > start and window.starts[head] < end)


@settings(max_examples=25, deadline=None)
@given(st.lists(TEXT.filter(str.strip), min_size=1, max_size=4), st.sampled_from([(), ("Ann",)]))
def test_a_window_is_read_alike_alone_and_among_others(
    reader: EvidenceReader, texts: list[str], recalled: tuple[str, ...]
) -> None:
    windows = reader.windows(texts)
    titles = ["Ferry", None, "", "Pier 7"]
    together = reader.read("When does it leave?", windows, titles, recalled)
    assert [r.window for r in together] == windows
    for window, reading in zip(windows, together, strict=True):
        (alone,) = reader.read("When does it leave?", [window], titles, recalled)
        for name in ("start", "end", "evidence"):
            found, wanted = getattr(reading, name), getattr(alone, name)
            assert np.isfinite(found).all()
            np.testing.assert_allclose(found, wanted, atol=0.25)  # 16-bit sums, other orders
        assert len(reading.start) == len(reading.end) == len(window.ids)
        assert len(reading.evidence) == len(window.heads)


def test_evidence_counts_the_likeliest_answer_in_its_own_sentence(reader: EvidenceReader) -> None:
    (window,) = reader.windows(["The ferry leaves at nine. Ann Lee runs it. 9 1 9 1."])
    (reading,) = reader.read("who runs it ?", [window], [None])
    bounds = [*window.heads, len(window.ids)]
    for number in range(len(window.heads)):
        part = range(bounds[number], bounds[number + 1])
        best = max(reading.start[i] + reading.end[j] for i in part for j in part if i <= j) / 2
        alone = 2 * reading.evidence[number] - best  # the sentence's own score
        assert np.isfinite(alone)
    assert reading.answerable == max(reading.start.max() + reading.end.max(), -np.inf) / 2


def test_a_long_message_is_read_from_its_end(reader: EvidenceReader) -> None:
    windows = reader.windows(["The ferry leaves at nine."])
    asked = "when does it leave ? " * 12
    (long,) = reader.read("Ann Lee runs it. " * 50 + asked, windows, [None])
    (short,) = reader.read(asked, windows, [None])
    assert long.start.tolist() == short.start.tolist()


@pytest.mark.parametrize("closing", ["?", " ?", "??", "?!", "\uff1f", "\u061f\n", "? "])
def test_the_mark_that_closes_a_question_says_nothing(reader: EvidenceReader, closing: str) -> None:
    """Of questions that end with one, the reader took one in four for unanswerable."""
    windows = reader.windows(["The ferry leaves at nine.", "Ann Lee runs it."])
    bare = reader.read("Is it so? When does it leave", windows, [None, None])
    closed = reader.read("Is it so? When does it leave" + closing, windows, [None, None])
    assert [r.answerable for r in closed] == [r.answerable for r in bare]
    for one, other in zip(closed, bare, strict=True):
        assert one.start.tolist() == other.start.tolist()
        assert one.evidence.tolist() == other.evidence.tolist()


def test_processors_without_bfloat16_read_in_32_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_reader(tmp_path)
    texts = ["The ferry leaves at nine. Ann Lee runs it."]
    found = []
    for native in (True, False):
        monkeypatch.setattr(
            "recallm_core.evidence.reader.computes_in_16_bits", lambda native=native: native
        )
        reader = EvidenceReader(folder)
        assert reader._model.dtype == (torch.bfloat16 if native else torch.float32)
        (reading,) = reader.read("who runs it ?", reader.windows(texts), [None])
        found.append(reading)
    np.testing.assert_allclose(found[0].start, found[1].start, atol=0.25)


def test_no_window_is_no_reading(reader: EvidenceReader) -> None:
    assert reader.windows(["", "  \n"]) == []
    assert reader.read("q", [], []) == []


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_incomplete_folders_are_refused(tmp_path: Path, name: str) -> None:
    write_reader(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match="reinstall"):
        EvidenceReader(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hidden_size": 1 << 20}, "hidden_size from 1 to"),
        ({"num_hidden_layers": "6"}, "num_hidden_layers"),
        ({"vocab_size": 9}, "mixes two models"),
    ],
)
def test_odd_configs_are_refused(tmp_path: Path, change: dict[str, object], says: str) -> None:
    write_reader(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | change), "utf-8")
    with pytest.raises(CheckpointError, match=says):
        EvidenceReader(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "shape", "type", "scale", "cut"])
def test_odd_weights_are_refused(tmp_path: Path, damage: str) -> None:
    path = write_reader(tmp_path) / "model.safetensors"
    arrays = load_file(path)
    if damage == "missing":
        del arrays["classifier.weight"]
    elif damage == "shape":
        arrays["classifier.weight"] = np.zeros((4, 16), np.int8)
    elif damage == "type":
        arrays["classifier.weight"] = np.zeros((3, 16), np.float32)
    elif damage == "scale":
        arrays["classifier.weight.scale"] = np.zeros(7, np.float32)
    save_file(arrays, path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError):
        EvidenceReader(tmp_path)


def test_a_tokenizer_without_its_marks_is_refused(tmp_path: Path) -> None:
    write_reader(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text("utf-8").replace("[CLS]", "[ABC]"), "utf-8")
    with pytest.raises(CheckpointError, match="CLS"):
        EvidenceReader(tmp_path)


def test_the_shipped_reader_finds_answers_and_their_absence() -> None:
    reader = EvidenceReader()
    texts = [
        "The harbour was built in 1904. The ferry leaves Port Hallow at 9:30. "
        "A ticket costs 4 euros."
    ]
    windows = reader.windows(texts)
    for question, answer in [
        ("When does the ferry leave?", "9:30"),
        ("How much is a ticket?", "4 euros"),
        ("In which year was the harbour built?", "1904"),
    ]:
        (reading,) = reader.read(question, windows, [None])
        window: Window = reading.window
        start, end = window.starts[reading.start.argmax()], window.ends[reading.end.argmax()]
        assert texts[0][start:end] == answer
        assert reading.answerable > 0
    (unrelated,) = reader.read("Which planets did Galileo observe?", windows, [None])
    assert unrelated.answerable < 0


def test_reader_and_mini_take_little_room() -> None:
    mini = shipped("recallm-mini")
    assert mini is not None
    folders = (Path(mini), Path(mini).parent / "evidence-reader")
    assert sum(path.stat().st_size for folder in folders for path in folder.iterdir()) < 50_000_000


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("The guaran-tee lasts.", "The guarantee lasts."),
        ("The guaran-\n  tee lasts.", "The guarantee lasts."),
        ("The guaran\xad\ntee lasts.", "The guarantee lasts."),
        ("A well-known ofﬁce.", "A well-known office."),
        ("> It is known to the\n> office.", "It is known to the office."),
    ],
)
def test_words_are_read_as_a_reader_sees_them(written: str, read: str) -> None:
    tokenizer = whole_tokenizer(BUILT_IN / "tokenizer.json")
    (window,) = cut(written, 0, tokenizer)
    assert list(window.ids) == tokenizer.encode(read, add_special_tokens=False).ids
    shown = [written[a:b] for a, b in zip(window.starts, window.ends, strict=True)]
    assert all(piece.strip() for piece in shown)
    assert shown[0] in ("The", "A", "It")
    assert shown[-1] == "."
