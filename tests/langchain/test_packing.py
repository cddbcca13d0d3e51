from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_recallm import PackedContextRetriever, PackingCompressor, RecallFAISS
from langchain_recallm.packing import Budget, pack_documents

TEXT = "Ferries leave at nine. Tickets cost 14 euros. \U0001f6a2 Dogs travel free. The bar is shut."


def pieces(size: int = 30, overlap: int = 10, text: str = TEXT) -> list[Document]:
    return [
        Document(
            id=f"c{at}",
            page_content=text[at : at + size],
            metadata={"source": "ferry", "start_index": at, "rank": at},
        )
        for at in range(0, len(text), size - overlap)
    ]


def check_members(packed: list[Document], given: list[Document]) -> None:
    """Every member's range in the packed text is the retrieved chunk's text."""
    texts = {document.id: document.page_content for document in given}
    for document in packed:
        for member in document.metadata["recallm"]["members"]:
            part = document.page_content[member["start"] : member["end"]]
            assert part == texts[member["id"]]


def test_overlapping_neighbours_become_one_exact_text() -> None:
    (packed,) = pack_documents(pieces(), Budget(1000, len))
    assert packed.page_content == TEXT
    check_members([packed], pieces())
    assert packed.metadata["source"] == "ferry"
    assert "rank" not in packed.metadata
    assert "start" not in packed.metadata["recallm"]  # nobody showed the source


def test_touching_neighbours_are_joined_only_where_the_source_proves_it() -> None:
    apart = pieces(20, 0)
    alone = pack_documents(apart, Budget(1000, len))
    assert len(alone) == len(apart)
    (packed,) = pack_documents(apart, Budget(1000, len), texts={"ferry": TEXT})
    assert packed.page_content == TEXT
    assert packed.metadata["recallm"]["start"] == 0
    check_members([packed], apart)


@pytest.mark.parametrize(
    "texts", [None, {"ferry": TEXT}, {"ferry": Document(TEXT)}, lambda _: TEXT]
)
def test_a_wrong_start_index_joins_nothing_that_isn_t_there(texts: Any) -> None:
    wrong = pieces()
    wrong[1].metadata["start_index"] = 3
    wrong[2].metadata["start_index"] = -1
    wrong[3].metadata["start_index"] = True
    packed = pack_documents(wrong, Budget(1000, len), texts=texts)
    check_members(packed, wrong)
    kept = {m["id"] for d in packed for m in d.metadata["recallm"]["members"]}
    assert {"c0", "c20", "c40", "c60"} <= kept  # c80 says nothing that c60 does not
    for document in packed:
        assert document.page_content in TEXT
        if "start" in document.metadata["recallm"]:
            start, end = (document.metadata["recallm"][key] for key in ("start", "end"))
            assert TEXT[start:end] == document.page_content == TEXT[start:][: end - start]


@given(
    text=st.text("ab .\n\u00e9\u4e2d\U0001f6a2", min_size=1, max_size=80),
    cuts=st.lists(st.tuples(st.integers(0, 79), st.integers(1, 40)), max_size=8),
    lies=st.lists(st.integers(-2, 90), max_size=8),
    budget=st.integers(0, 120),
    known=st.booleans(),
)
def test_packs_hold_only_what_was_retrieved_or_stands_in_the_source(
    text: str, cuts: list[tuple[int, int]], lies: list[int], budget: int, known: bool
) -> None:
    given_documents = [
        Document(
            id=str(n),
            page_content=text[a : a + b],
            metadata={"source": "s", "start_index": lies[n] if n < len(lies) else a},
        )
        for n, (a, b) in enumerate(cuts)
    ]
    texts = {"s": text} if known else None
    packed = pack_documents(given_documents, Budget(budget, len, overhead=1), texts=texts)
    check_members(packed, given_documents)
    assert sum(len(document.page_content) + 1 for document in packed) <= budget
    for document in packed:
        record = document.metadata["recallm"]
        if "start" in record:
            assert known
            assert text[record["start"] : record["end"]] == document.page_content
        if known:
            assert document.page_content in text


def test_k_keeps_the_best() -> None:
    chosen = pack_documents(pieces(20, 0), Budget(1000, len, k=2))
    assert [d.id for d in chosen] == ["c0", "c20"]


def test_a_single_document_comes_back_as_it_was() -> None:
    own = Document(id="x", page_content="text", metadata={"start_index": 7, "a": 1})
    (packed,) = pack_documents([own], Budget(100, len))
    assert packed.id == "x"
    assert packed.metadata["a"] == 1
    assert packed.metadata["start_index"] == 7


def test_the_retriever_packs_from_any_store(kit: Any) -> None:
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
    store.add_documents(pieces())
    model = kit.chat()
    retriever = PackedContextRetriever(source=store, count=model, max_tokens=500)
    (packed,) = retriever.invoke("dogs?")
    assert packed.page_content == TEXT
    tight = PackedContextRetriever(source=store, count=model, max_tokens=50)
    assert sum(model.get_num_tokens(d.page_content) for d in tight.invoke("dogs?")) <= 50


async def test_the_retriever_is_the_same_for_asynchronous_code() -> None:
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
    store.add_documents(pieces(20, 0))
    retriever = PackedContextRetriever(source=store, count=len, max_tokens=60)
    assert await retriever.ainvoke("dogs?") == retriever.invoke("dogs?")
    assert len(await retriever.ainvoke("dogs?", k=1)) == 1


def test_the_retriever_over_an_index_gives_slices_of_its_documents() -> None:
    store = RecallFAISS()
    store.add_documents(
        [
            Document(" ".join(f"Rule {n} of topic {t}." for n in range(60)), id=f"t{t}")
            for t in "abc"
        ]
    )
    retriever = PackedContextRetriever(source=store, count=len, max_tokens=900)
    found = retriever.invoke("rule 17 of topic b")
    assert found
    for document in found:
        record = document.metadata["recallm"]
        whole = store.index.documents[record["source"]].text
        assert whole[record["start"] : record["end"]] == document.page_content


def test_a_quote_from_a_packed_document_names_the_chunks_that_hold_it(kit: Any) -> None:
    script = "</think><|start_recall|>Tickets cost 14 euros<|end_recall|>."
    packed = PackingCompressor(count=len).compress_documents(pieces(), "?")
    message = kit.chat(script).invoke("?", documents=packed)
    (citation,) = kit.check(message, packed)
    parts = citation["extras"]["parts"]
    texts = {d.id: d.page_content for d in pieces()}
    said = [texts[p["member_id"]][p["start_char_index"] : p["end_char_index"]] for p in parts]
    assert said
    assert all(part in "Tickets cost 14 euros" for part in said)


def test_bad_arguments_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="vector store"):
        PackedContextRetriever(source="index")
    with pytest.raises(ValueError, match="negative"):
        PackedContextRetriever(source=RecallFAISS(), k=-1)
    with pytest.raises(TypeError, match="get_num_tokens"):
        PackedContextRetriever(source=RecallFAISS(), count=3).invoke("?")
