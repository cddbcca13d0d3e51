from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.schema import (
    ImageNode,
    IndexNode,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.types import (
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from llama_index_recallm import RecaLLMEmbedding, RecaLLMVectorStore
from recallm_core import CorpusIndex
from recallm_core import Document as CoreDocument
from recallm_core.errors import CorpusIndexError
from recallm_core.retrieval.embedding import GivenVectors


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
    assert found.similarities == pytest.approx([1.0, 0.6, 0.0], abs=1e-3)
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
        largest = np.abs(vector).max() * np.abs(asked_for).max()
        if not largest:
            return 0.0
        vector, asked_for = vector / np.abs(vector).max(), asked_for / np.abs(asked_for).max()
        return float(vector @ asked_for / np.linalg.norm(vector) / np.linalg.norm(asked_for))

    best = sorted((cosine(row[0]) for row in known.values()), reverse=True)[:4]
    assert found.similarities == pytest.approx(best, abs=1e-3)
    for name, score in zip(found.ids, found.similarities, strict=True):
        assert cosine(known[name][0]) == pytest.approx(score, abs=1e-3)


def test_it_works_in_an_index_without_a_docstore(tmp_path: Path) -> None:
    documents = [Document(id_="d1", text="The ferry leaves at nine."), Document(text="Tea is hot.")]
    store = RecaLLMVectorStore()
    index = VectorStoreIndex.from_documents(
        documents,
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=RecaLLMEmbedding(),
    )
    assert index.vector_store is store  # an empty one is still a store
    store.persist(tmp_path / "sub" / "store")
    again = VectorStoreIndex.from_vector_store(
        RecaLLMVectorStore.from_persist_path(tmp_path / "sub" / "store"),
        embed_model=RecaLLMEmbedding(),
    )
    question = "The ferry leaves at nine."
    found = again.as_retriever(similarity_top_k=1).retrieve(question)
    assert found == index.as_retriever(similarity_top_k=1).retrieve(question)
    assert found[0].score == pytest.approx(1.0, abs=1e-3)
    assert SimilarityPostprocessor(similarity_cutoff=0.5).postprocess_nodes(found) == found
    index.delete_ref_doc("d1")
    assert [each.node.text for each in index.as_retriever().retrieve(question)] == ["Tea is hot."]


def test_what_was_saved_comes_back_and_damage_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "store"
    store = filled()
    store.persist(path)
    store.persist(path)  # again, over the first
    back = RecaLLMVectorStore.from_persist_path(str(path))
    assert back.get_nodes() == store.get_nodes()
    assert asked(back, [0.3, 0.7]) == asked(store, [0.3, 0.7])
    back.delete("d1")
    back.add([node("z", [1.0, 1.0])])
    back.persist(path)
    again = RecaLLMVectorStore.from_persist_path(path)
    assert [each.node_id for each in again.get_nodes()] == ["c", "z"]
    newest = sorted(path.glob("generation-*"))[-1]
    for file in sorted(newest.iterdir()):
        content = file.read_bytes()
        broken = bytearray(content)
        broken[len(content) // 2] ^= 1
        file.unlink()  # files of generations are links to each other
        file.write_bytes(bytes(broken))
        with pytest.raises(CorpusIndexError):
            RecaLLMVectorStore.from_persist_path(path)
        file.write_bytes(content)
    empty = RecaLLMVectorStore()
    empty.persist(path)
    assert RecaLLMVectorStore.from_persist_path(path).get_nodes() == []


def test_only_stores_are_opened_and_only_local_folders_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="persist"):
        RecaLLMVectorStore.from_persist_path(tmp_path / "none")
    file = tmp_path / "file"
    file.write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(CorpusIndexError):
        RecaLLMVectorStore.from_persist_path(file)
    with pytest.raises(CorpusIndexError):
        filled().persist(file)
    CorpusIndex.build(["text"], path=tmp_path / "words")
    with pytest.raises(CorpusIndexError, match="embedder"):
        RecaLLMVectorStore.from_persist_path(tmp_path / "words")
    bare = CorpusIndex(GivenVectors(2))
    bare.add_vectors([CoreDocument("x", "x")], np.ones((1, 2), np.float32))
    bare.save(tmp_path / "bare")
    with pytest.raises(CorpusIndexError, match="not nodes"):
        RecaLLMVectorStore.from_persist_path(tmp_path / "bare")
    with pytest.raises(ValueError, match="local file system"):
        filled().persist(tmp_path / "store", fs=fsspec.filesystem("memory"))


def test_a_storage_context_saves_and_opens_it(tmp_path: Path) -> None:
    store = filled()
    storage = StorageContext.from_defaults(vector_store=store)
    storage.persist(str(tmp_path / "all"))
    (path,) = (tmp_path / "all").glob("default__vector_store*")
    back = RecaLLMVectorStore.from_persist_path(path, fs=fsspec.filesystem("file"))
    assert back.get_nodes() == store.get_nodes()


def test_nodes_of_every_kind_come_back_as_they_were() -> None:
    nodes: list[Any] = [
        ImageNode(id_="image", image="eA==", embedding=[1.0, 0.0]),
        IndexNode(id_="index", text="points", index_id="e", embedding=[0.0, 1.0]),
        node("text", [1.0, 1.0], tags=["a", {"b": None}], excluded=1.5),
        node("same", [1.0, 1.0]),
    ]
    store = RecaLLMVectorStore()
    store.add(nodes)
    bare = [each.model_copy(update={"embedding": None}) for each in nodes]
    assert store.get_nodes() == bare
    assert store.get_nodes(["same", "image", "unknown"]) == [bare[3], bare[0]]
    assert all(each.embedding for each in nodes)
    with pytest.raises(ValueError, match="'odd' can't be kept as JSON"):
        store.add([node("odd", [1.0, 1.0], thing=object())])


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


def test_what_a_storage_context_wrote_is_read_from_its_folder(tmp_path: Path) -> None:
    storage = StorageContext.from_defaults(vector_stores={"default": filled(), "more": filled()})
    storage.persist(persist_dir=tmp_path)
    one = RecaLLMVectorStore.from_persist_dir(str(tmp_path), namespace="more")
    assert asked(one, [1.0, 0.0]).ids == ["a", "b", "c"]
    every = RecaLLMVectorStore.from_namespaced_persist_dir(tmp_path)
    assert {name: type(store).__name__ for name, store in every.items()} == {
        "default": "RecaLLMVectorStore",
        "more": "RecaLLMVectorStore",
        "image": "SimpleVectorStore",
    }
    with pytest.raises(FileNotFoundError, match="no vector store is saved"):
        RecaLLMVectorStore.from_persist_dir(tmp_path, namespace="none")
    with pytest.raises(ValueError, match="local"):
        RecaLLMVectorStore.from_persist_dir("x", fs=fsspec.filesystem("memory"))


async def test_results_can_differ_from_one_another() -> None:
    store = RecaLLMVectorStore()
    store.add([node("a", [1.0, 0.1, 0.0]), node("b", [1.0, 0.11, 0.0]), node("c", [0.6, 0.0, 0.8])])
    question, mode = [1.0, 0.0, 0.0], VectorStoreQueryMode.MMR
    assert asked(store, question, 2).ids == ["a", "b"]
    found = asked(store, question, 2, mode=mode)
    assert found.ids == ["a", "c"]
    assert found.similarities == pytest.approx([0.995, 0.6], abs=1e-2)
    assert [each.node_id for each in found.nodes] == ["a", "c"]
    assert asked(store, question, 2, mode=mode, mmr_threshold=1.0).ids == ["a", "b"]
    query = VectorStoreQuery(query_embedding=question, similarity_top_k=2, mode=mode)
    assert (await store.aquery(query, mmr_threshold=1.0)).ids == ["a", "b"]
    assert (await store.aquery(query, mmr_prefetch_k=2)).ids == ["a", "b"]
    with pytest.raises(ValueError, match="not both"):
        store.query(query, mmr_prefetch_k=2, mmr_prefetch_factor=2)
    index = VectorStoreIndex.from_vector_store(store, embed_model=RecaLLMEmbedding())
    retriever = index.as_retriever(vector_store_query_mode="mmr", similarity_top_k=2)
    assert retriever._vector_store_query_mode == mode  # type: ignore[attr-defined]
