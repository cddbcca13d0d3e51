from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding

from langchain_recallm import RecallEmbeddings, RecallFAISS, as_core_embedder
from recallm_core.errors import CorpusIndexError

NOTES = [
    Document(id="ferry", page_content="The ferry leaves at nine.", metadata={"year": 2024}),
    Document(id="leave", page_content="Parental leave is 16 weeks.", metadata={"year": 2025}),
]


def filled() -> RecallFAISS:
    store = RecallFAISS()
    store.add_documents(NOTES)
    return store


def test_scores_are_cosine_similarities() -> None:
    store, embeddings = filled(), RecallEmbeddings()
    query = np.array(embeddings.embed_query("when does the ferry go?"))
    found = store.similarity_search_with_score("when does the ferry go?", k=2)
    assert [d.id for d, _ in found] == ["ferry", "leave"]
    for document, score in found:
        (vector,) = embeddings.embed_documents([document.page_content])
        assert score == pytest.approx(float(query @ np.array(vector)), abs=1e-3)
    near = store.similarity_search_with_relevance_scores("when does the ferry go?", k=2)
    assert all(0 <= score <= 1 for _, score in near)


def test_a_long_document_counts_once_and_comes_back_whole() -> None:
    long = Document(id="long", page_content=" ".join(f"The ferry number {n}." for n in range(400)))
    store = RecallFAISS()
    store.add_documents([long, *NOTES])
    found = store.similarity_search("the ferry", k=3)
    assert sorted(d.id or "" for d in found) == ["ferry", "leave", "long"]
    assert next(d for d in found if d.id == "long").page_content == long.page_content


def test_filters_look_at_metadata() -> None:
    store = filled()
    assert [d.id for d in store.similarity_search("x", filter={"year": 2025})] == ["leave"]
    found = store.similarity_search("x", filter=lambda metadata: metadata["year"] < 2025)
    assert [d.id for d in found] == ["ferry"]


def test_a_store_is_saved_and_loaded_and_can_forget(tmp_path: Path) -> None:
    filled().save_local(tmp_path / "index")
    again = RecallFAISS.load_local(tmp_path / "index")
    assert again.get_by_ids(["leave", "ferry", "nobody"]) == NOTES[::-1]
    assert again.delete(["ferry", "nobody"])
    assert [d.id for d in again.similarity_search("ferry")] == ["leave"]
    again.delete()
    assert again.similarity_search("ferry") == []
    with pytest.raises(CorpusIndexError):
        RecallFAISS.load_local(tmp_path / "index", DeterministicFakeEmbedding(size=8))


def test_embeddings_go_both_ways() -> None:
    ours = RecallEmbeddings()
    assert as_core_embedder(ours) is ours.embedder
    assert as_core_embedder(None) is None
    theirs = as_core_embedder(DeterministicFakeEmbedding(size=8), name="fake")
    assert theirs is not None
    assert theirs.fingerprint == "function-8-fake"
    assert np.linalg.norm(theirs.encode_query("x")) == pytest.approx(1.0)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="2 texts but 1 ids"):
        RecallFAISS().add_texts(["a", "b"], ids=["x"])
    with pytest.raises(ValueError, match="1 documents but 2 ids"):
        RecallFAISS().add_documents([Document("a")], ids=["x", "y"])
