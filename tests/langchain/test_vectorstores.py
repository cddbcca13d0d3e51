from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding

from langchain_recallm import RecallEmbeddings, RecallFAISS, as_core_embedder
from recallm_core.errors import CorpusIndexError, DocumentError

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


LIFT = [
    Document(id="a", page_content="The lift is checked every May.", metadata={"kind": "lift"}),
    Document(id="b", page_content="The lift is checked each May.", metadata={"kind": "lift"}),
    Document(id="c", page_content="The stairs are cleaned weekly.", metadata={"kind": "stairs"}),
]
ASKED = "When is the lift checked?"


def names(found: list[Document]) -> list[str]:
    return [document.id or "" for document in found]


async def test_results_can_differ_from_one_another() -> None:
    store, embeddings = RecallFAISS.from_documents(LIFT, RecallEmbeddings()), RecallEmbeddings()
    assert set(names(store.similarity_search(ASKED, k=2))) == {"a", "b"}
    vector = embeddings.embed_query(ASKED)
    ways = [
        store.max_marginal_relevance_search(ASKED, k=2),
        await store.amax_marginal_relevance_search(ASKED, k=2, fetch_k=3),
        store.max_marginal_relevance_search_by_vector(vector, k=2),
        await store.amax_marginal_relevance_search_by_vector([2 * x for x in vector], k=2),
        store.search(ASKED, "mmr", k=2),
        store.as_retriever(search_type="mmr", search_kwargs={"k": 2, "fetch_k": 3}).invoke(ASKED),
    ]
    first = names(store.similarity_search(ASKED, k=1))
    assert all(names(found) == [*first, "c"] for found in ways)
    near = store.max_marginal_relevance_search(ASKED, k=2, lambda_mult=1.0)
    assert names(near) == names(store.similarity_search(ASKED, k=2))
    of_a_kind = store.max_marginal_relevance_search(ASKED, k=3, filter={"kind": "lift"})
    assert set(names(of_a_kind)) == {"a", "b"}
    assert RecallFAISS().max_marginal_relevance_search(ASKED) == []


async def test_searches_by_vector_and_threshold() -> None:
    store, embeddings = RecallFAISS.from_documents(LIFT, RecallEmbeddings()), RecallEmbeddings()
    vector, scored = embeddings.embed_query(ASKED), store.similarity_search_with_score(ASKED, k=3)
    assert store.similarity_search_with_score_by_vector(vector, k=3) == scored
    assert store.similarity_search_by_vector(vector, k=3) == [document for document, _ in scored]
    assert names(await store.asimilarity_search_by_vector(vector, k=1)) == names([scored[0][0]])
    least = (scored[1][1] + scored[2][1]) / 2
    limit = {"k": 3, "score_threshold": least}
    retriever = store.as_retriever(search_type="similarity_score_threshold", search_kwargs=limit)
    for found in (retriever.invoke(ASKED), store.similarity_search(ASKED, **limit)):
        assert set(names(found)) == {"a", "b"}
    assert store.similarity_search_by_vector([0.0] * len(vector)) == []
    with pytest.raises(ValueError, match="finite numbers"):
        store.similarity_search_by_vector([1.0])


def test_stores_are_made_as_those_of_faiss_are(tmp_path: Path) -> None:
    embeddings = RecallEmbeddings()
    texts = [document.page_content for document in LIFT]
    pairs = zip(texts, embeddings.embed_documents(texts), strict=True)
    made = RecallFAISS.from_embeddings(pairs, embeddings, ids=["a", "b", "c"])
    assert made.add_embeddings([("x", embeddings.embed_query("x"))], [{"n": 1}], ids=["a"]) == ["a"]
    assert made.get_by_ids(["a"]) == [Document(id="a", page_content="x", metadata={"n": 1})]
    assert made.add_embeddings([]) == []
    made.save_local(tmp_path, "lift")
    filled().save_local(tmp_path, index_name="notes")
    again = RecallFAISS.load_local(
        tmp_path, embeddings, index_name="lift", allow_dangerous_deserialization=True
    )
    again.merge_from(RecallFAISS.load_local(tmp_path, embeddings, "notes"))
    assert set(again.index.documents) == {"a", "b", "c", "ferry", "leave"}
    for name in ("..", "a/b", ""):
        with pytest.raises(ValueError, match="index_name must be a plain name"):
            made.save_local(tmp_path, name)


def test_a_question_of_broken_text_is_refused() -> None:
    with pytest.raises(DocumentError, match="surrogate"):
        filled().max_marginal_relevance_search("\udfff")
