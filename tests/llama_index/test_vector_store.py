from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from llama_index_recallm import RecaLLMEmbedding, RecaLLMVectorStore
from recallm_core.errors import CorpusIndexError


def node(name: str, vector: list[float], doc: str = "d", **metadata: Any) -> TextNode:
    return TextNode(
        id_=name,
        text=f"text {name} \U0001f476\r\n\x00",
        embedding=vector,
        metadata=metadata,
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=doc)},
    )


def asked(store: RecaLLMVectorStore, vector: list[float], k: int = 3, **more: Any) -> Any:
    query = VectorStoreQuery(query_embedding=vector, similarity_top_k=k, **more)
    return store.query(query)


def filled() -> RecaLLMVectorStore:
    store = RecaLLMVectorStore()
    store.add(
        [
            node("a", [1.0, 0.0], "d1", year=1),
            node("b", [3.0, 4.0], "d1", year=2),
            node("c", [0.0, 0.5], "d2", year=3),
        ]
    )
    return store


def test_scores_are_cosines() -> None:
    found = asked(filled(), [10.0, 0.0])
    assert found.ids == ["a", "b", "c"]
    assert found.similarities == pytest.approx([1.0, 0.6, 0.0])
    assert found.nodes[0].text == "text a \U0001f476\r\n\x00"
    assert found.nodes[0].embedding is None


async def test_documents_and_nodes_can_be_deleted_and_replaced() -> None:
    store = filled()
    store.delete("d1")
    assert asked(store, [1.0, 0.0]).ids == ["c"]
    await store.async_add([node("a", [0.0, 1.0], "d3"), node("c", [1.0, 0.0])])
    found = await store.aquery(VectorStoreQuery(query_embedding=[1.0, 0.0], similarity_top_k=9))
    assert (found.ids, found.similarities) == (["c", "a"], [1.0, 0.0])
    store.delete_nodes(["a", "unknown"])
    assert [each.node_id for each in store.get_nodes()] == ["c"]
    store.delete_nodes()
    assert len(store.get_nodes()) == 1
    await store.adelete("d")
    assert asked(store, [1.0, 0.0]).ids == []
    store.add([node("a", [1.0, 2.0, 3.0])])  # an empty store takes any dimension
    store.clear()
    assert store.client is None


def test_filters_ids_and_documents_narrow_a_search() -> None:
    store = filled()
    later = MetadataFilters(filters=[MetadataFilter(key="year", value=2, operator=">=")])
    assert asked(store, [1.0, 0.0], filters=later).ids == ["b", "c"]
    assert asked(store, [1.0, 0.0], doc_ids=["d2"]).ids == ["c"]
    assert asked(store, [1.0, 0.0], node_ids=["c", "a"], k=1).ids == ["a"]
    assert [each.node_id for each in store.get_nodes(filters=later)] == ["b", "c"]


operations = st.lists(
    st.tuples(
        st.sampled_from(["add", "delete", "node"]),
        st.integers(0, 9),
        st.tuples(*[st.floats(-2, 2, width=32)] * 3),
    ),
    max_size=25,
)


@settings(max_examples=40)
@given(operations=operations, question=st.tuples(*[st.floats(-2, 2, width=32)] * 3))
def test_any_changes_leave_what_brute_force_finds(operations: Any, question: Any) -> None:
    store, known = RecaLLMVectorStore(), {}
    for kind, number, vector in operations:
        name, doc = f"n{number}", f"d{number % 3}"
        if kind == "add":
            store.add([node(name, list(vector), doc)])
            known[name] = (np.array(vector, np.float64), doc)
        elif kind == "delete":
            store.delete(doc)
            known = {key: row for key, row in known.items() if row[1] != doc}
        else:
            store.delete_nodes([name])
            known.pop(name, None)
    found = asked(store, list(question), k=4)

    def cosine(vector: Any) -> float:
        asked_for = np.array(question, np.float64)
        length = np.linalg.norm(vector) * np.linalg.norm(asked_for)
        return float(vector @ asked_for / length) if length > 1e-30 else 0.0

    best = sorted((cosine(row[0]) for row in known.values()), reverse=True)[:4]
    assert found.similarities == pytest.approx(best, abs=1e-5)
    for name, score in zip(found.ids, found.similarities, strict=True):
        assert cosine(known[name][0]) == pytest.approx(score, abs=1e-5)


def test_it_works_in_an_index_without_a_docstore(tmp_path: Path) -> None:
    documents = [Document(id_="d1", text="The ferry leaves at nine."), Document(text="Tea is hot.")]
    store = RecaLLMVectorStore()
    index = VectorStoreIndex.from_documents(
        documents,
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=RecaLLMEmbedding(),
    )
    assert index.vector_store is store  # an empty one is still a store
    store.persist(tmp_path / "sub" / "store.safetensors")
    again = VectorStoreIndex.from_vector_store(
        RecaLLMVectorStore.from_persist_path(tmp_path / "sub" / "store.safetensors"),
        embed_model=RecaLLMEmbedding(),
    )
    question = "The ferry leaves at nine."
    found = again.as_retriever(similarity_top_k=1).retrieve(question)
    assert found == index.as_retriever(similarity_top_k=1).retrieve(question)
    assert found[0].score == pytest.approx(1.0, abs=1e-5)
    assert SimilarityPostprocessor(similarity_cutoff=0.5).postprocess_nodes(found) == found
    index.delete_ref_doc("d1")
    assert [each.node.text for each in index.as_retriever().retrieve(question)] == ["Tea is hot."]


def test_what_was_saved_comes_back_and_damage_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "store"
    store = filled()
    store.persist(path)
    store.persist(path)  # again, over the first
    back = RecaLLMVectorStore.from_persist_path(path)
    assert back.get_nodes() == store.get_nodes()
    assert asked(back, [0.3, 0.7]) == asked(store, [0.3, 0.7])
    assert list(tmp_path.iterdir()) == [path]
    content = path.read_bytes()
    for place in (3, 40, len(content) // 2, len(content) - 2):
        broken = bytearray(content)
        broken[place] ^= 1
        path.write_bytes(bytes(broken))
        with pytest.raises(CorpusIndexError):
            RecaLLMVectorStore.from_persist_path(path)
    for other in (b"", b"\x80\x04K\x01.", content[:-5]):
        path.write_bytes(other)
        with pytest.raises(CorpusIndexError):
            RecaLLMVectorStore.from_persist_path(path)
    path.write_bytes(content)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(CorpusIndexError, match="symbolic link"):
        RecaLLMVectorStore.from_persist_path(link)
    with pytest.raises(FileNotFoundError):
        RecaLLMVectorStore.from_persist_path(tmp_path / "none")
    empty = RecaLLMVectorStore()
    empty.persist(path)
    assert RecaLLMVectorStore.from_persist_path(path).get_nodes() == []


def test_wrong_vectors_and_queries_are_refused_with_words() -> None:
    store = filled()
    bare = node("x", [1.0, 0.0])
    bare.embedding = None
    for wrong, words in (
        (bare, "no embedding"),
        (node("x", [1.0]), "2 finite numbers"),
        (node("x", [1.0, float("nan")]), "finite"),
    ):
        with pytest.raises(ValueError, match=words):
            store.add([node("y", [1.0, 1.0]), wrong])
    assert len(store.get_nodes()) == 3
    with pytest.raises(ValueError, match="no embedding"):
        store.query(VectorStoreQuery(query_str="a"))
    with pytest.raises(ValueError, match="2 finite"):
        asked(store, [1.0])
    with pytest.raises(ValueError, match="vectors only"):
        asked(store, [1.0, 0.0], mode=VectorStoreQueryMode.HYBRID)
