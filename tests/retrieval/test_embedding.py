"""Vectors are unit, repeatable and known by content; broken tables are refused."""

import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from recallm_core.errors import CheckpointError, DocumentError, MissingExtraError
from recallm_core.retrieval.embedding import (
    CachedEmbedder,
    FunctionEmbedder,
    StaticEmbedder,
    as_embedder,
    default_embedder,
    sentence_transformer,
)


@pytest.fixture(scope="module")
def embedder():
    return default_embedder()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=80), max_size=8))
def test_vectors_are_unit_or_zero_and_dont_depend_on_the_batch(texts):
    embedder = default_embedder()
    vectors = embedder.encode_documents(texts)
    assert vectors.shape == (len(texts), embedder.dim)
    assert vectors.dtype == np.float32
    for text, vector in zip(texts, vectors, strict=True):
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5) or not vector.any()
        assert np.array_equal(embedder.encode_query(text), vector)


def test_what_means_the_same_is_nearer_than_what_doesnt(embedder):
    question = embedder.encode_query("How do plants turn sunlight into energy?")
    passages = [
        "Photosynthesis converts light into chemical energy in the leaves of plants.",
        "The stock exchange closed lower after the central bank raised its rates.",
        "He scored two goals in the second half of the match.",
    ]
    products = embedder.encode_documents(passages) @ question
    assert products.argmax() == 0
    assert products[0] > 0.2 + max(products[1], products[2])


def test_int8_rows_are_the_whole_model(embedder):
    total = sum(path.stat().st_size for path in embedder._folder.iterdir())
    assert total < 8_200_000
    assert (embedder._folder / "NOTICE").is_file()


def test_hostile_texts_are_encoded_or_refused(embedder):
    texts = ["", "\0\0", "\x1b[31m", "é" * 10, "x" * 300_000, "語" * 100, "\U0001f469" * 50]
    vectors = embedder.encode_documents(texts)
    assert np.isfinite(vectors).all()
    with pytest.raises(DocumentError, match="lone surrogate"):
        embedder.encode_query("\ud800")


def copied(embedder, folder, **tensors):
    (folder / "tokenizer.json").write_bytes((embedder._folder / "tokenizer.json").read_bytes())
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_tables_of_another_shape_or_type_are_refused(embedder, tmp_path):
    pieces = embedder._tokenizer.get_vocab_size()
    rows, scales = np.zeros((pieces, 4), np.int8), np.ones(pieces, np.float32)
    assert StaticEmbedder(copied(embedder, tmp_path, rows=rows, scales=scales)).dim == 4
    wrong = [
        {"rows": rows[:-1], "scales": scales},
        {"rows": rows.astype(np.float32), "scales": scales},
        {"rows": rows, "scales": scales[:-1]},
        {"rows": rows.reshape(-1), "scales": scales},
        {"rows": rows},
    ]
    for tensors in wrong:
        with pytest.raises(CheckpointError, match="int8 rows"):
            StaticEmbedder(copied(embedder, tmp_path, **tensors))


def test_broken_files_are_refused(embedder, tmp_path):
    with pytest.raises(CheckpointError, match=r"no usable model\.safetensors"):
        StaticEmbedder(tmp_path)
    pieces = embedder._tokenizer.get_vocab_size()
    rows, scales = np.zeros((pieces, 4), np.int8), np.ones(pieces, np.float32)
    folder = copied(embedder, tmp_path, rows=rows, scales=scales)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="no safetensors file"):
        StaticEmbedder(folder)
    (folder / "model.safetensors").write_bytes(whole)
    (folder / "tokenizer.json").write_text(json.dumps({"model": 1}))
    with pytest.raises(CheckpointError, match="as a tokenizer"):
        StaticEmbedder(folder)


def test_a_fingerprint_changes_with_the_table(embedder, tmp_path):
    pieces = embedder._tokenizer.get_vocab_size()
    made = []
    for value in (0, 1):
        folder = tmp_path / str(value)
        folder.mkdir()
        rows = np.full((pieces, 4), value, np.int8)
        made.append(
            StaticEmbedder(copied(embedder, folder, rows=rows, scales=np.ones(pieces, np.float32)))
        )
    assert made[0].fingerprint != made[1].fingerprint
    assert embedder.fingerprint == StaticEmbedder().fingerprint


def letters(texts):
    return [[text.count(letter) + 0.5 for letter in "abc"] for text in texts]


def test_a_function_is_an_embedder():
    calls = []

    def counted(texts):
        calls.append(len(texts))
        return letters(texts)

    made = FunctionEmbedder(counted, name="letters", batch_size=2)
    vectors = made.encode_documents(["aa", "b", "abc"])
    assert calls == [2, 1]
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0)
    assert vectors[0].argmax() == 0
    assert made.dim == 3
    assert "letters" in made.fingerprint
    assert np.allclose(made.encode_query("aa"), vectors[0])
    other = FunctionEmbedder(letters, name="letters", query=lambda text: [0, 0, 2])
    assert other.encode_query("aa").tolist() == [0, 0, 1]
    assert other.encode_documents([]).shape == (0, 3)


@pytest.mark.parametrize(
    "answer", [[[1.0]], [[1.0], [float("nan")]], [1.0, 2.0], [[float("inf")], [1.0]]]
)
def test_a_function_that_returns_anything_else_is_refused(answer):
    made = FunctionEmbedder(lambda texts: answer, name="broken")
    with pytest.raises(ValueError, match=r"'broken' should return 2 vectors"):
        made.encode_documents(["a", "b"])
    with pytest.raises(ValueError, match="batch_size"):
        FunctionEmbedder(letters, name="letters", batch_size=0)


def test_a_cache_pays_for_each_text_once(tmp_path):
    encoded = []

    def counted(texts):
        encoded.extend(texts)
        return letters(texts)

    path = tmp_path / "cache" / "vectors.db"
    inner = FunctionEmbedder(counted, name="letters")
    assert inner.dim == 3
    encoded.clear()
    first = CachedEmbedder(inner, path).encode_documents(["a", "b", "a"])
    again = CachedEmbedder(inner, path).encode_documents(["b", "c", "a"])
    assert encoded == ["a", "b", "c"]
    assert np.array_equal(first[[1, 0]], again[[0, 2]])
    other = CachedEmbedder(FunctionEmbedder(counted, name="others"), path)
    other.encode_documents(["a"])
    assert encoded.count("a") == 2
    assert other.fingerprint.endswith("others")
    assert other.encode_documents([]).shape == (0, 3)
    assert np.array_equal(other.encode_query("a"), again[2])


def test_a_model_by_name_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match="pip install sentence-transformers"):
        sentence_transformer("all-MiniLM-L6-v2")
    assert as_embedder(None) is as_embedder("static") is default_embedder()
    with pytest.raises(MissingExtraError):
        as_embedder("all-MiniLM-L6-v2")


def test_a_model_by_name_runs_no_code_of_its_own_and_tells_questions_apart(monkeypatch):
    made = {}

    class SentenceTransformer:
        def __init__(self, name, **options):
            made.update(options, name=name)

        def encode(self, texts, show_progress_bar):
            raise AssertionError("an older way, for models without one for each")

        def encode_document(self, texts, show_progress_bar):
            return letters(texts)

        def encode_query(self, text, show_progress_bar):
            return letters([text[::-1] + "cc"])[0]

    module = type(sys)("sentence_transformers")
    module.SentenceTransformer = SentenceTransformer
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    model = as_embedder("owner/model")
    assert made == {
        "name": "owner/model",
        "device": "cpu",
        "trust_remote_code": False,
        "model_kwargs": {"use_safetensors": True},
    }
    assert model.dim == 3
    assert model.fingerprint == "function-3-sentence-transformers:owner/model"
    assert model.encode_documents(["aaa"])[0].argmax() == 0
    assert model.encode_query("a").argmax() == 2
