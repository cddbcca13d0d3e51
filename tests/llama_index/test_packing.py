from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import (
    Document,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
)
from llama_index.core.storage.docstore import SimpleDocumentStore

from llama_index_recallm import (
    PackedContextRetriever,
    RecaLLMContextPacker,
    RecaLLMEmbedding,
    RecaLLMVectorStore,
    pack_nodes,
)
from llama_index_recallm.sources import MEMBERS
from recallm_core import CorpusIndex
from recallm_core import Document as CoreDocument

TEXT = "".join(f"Sentence {n} says that box {n} holds {n * 7} pears. " for n in range(80))
DOCUMENT = Document(id_="doc", text=TEXT, metadata={"file_name": "pears.txt"})


def split(overlap: int = 10) -> list[NodeWithScore]:
    nodes = SentenceSplitter(chunk_size=60, chunk_overlap=overlap).get_nodes_from_documents(
        [DOCUMENT]
    )
    return [NodeWithScore(node=node, score=1.0 / (n + 1)) for n, node in enumerate(nodes)]


def pack(nodes: list[NodeWithScore], **options: Any) -> list[NodeWithScore]:
    return pack_nodes(nodes, **{"token_budget": 10_000, "count": len, **options})


def test_neighbours_become_one_slice_that_remembers_its_members() -> None:
    nodes = split()[2:6]
    before = [each.model_dump_json() for each in nodes]
    (packed,) = pack(nodes, documents=[DOCUMENT])
    node = packed.node
    assert TEXT[node.start_char_idx : node.end_char_idx] == node.text
    assert node.ref_doc_id == "doc"
    assert packed.score == nodes[0].score
    assert node.metadata["file_name"] == "pears.txt"
    assert MEMBERS in node.excluded_llm_metadata_keys
    assert MEMBERS in node.excluded_embed_metadata_keys
    assert [m["node_id"] for m in node.metadata[MEMBERS]] == [n.node.node_id for n in nodes]
    for member, given_node in zip(node.metadata[MEMBERS], nodes, strict=True):
        assert node.text[member["start"] : member["end"]] == given_node.node.text
    assert node.relationships[NodeRelationship.PREVIOUS] == nodes[0].node.prev_node
    assert node.relationships[NodeRelationship.NEXT] == nodes[-1].node.next_node
    assert [each.model_dump_json() for each in nodes] == before
    (again,) = pack(nodes, documents=[DOCUMENT])
    assert again.node.id_ == node.id_


def test_a_node_alone_comes_back_as_it_is() -> None:
    nodes = split()
    apart = [nodes[0], nodes[4]]
    assert pack(apart, documents=[DOCUMENT]) == apart
    assert pack(apart) == apart


def test_a_quote_over_two_members_names_both(kit: Any) -> None:
    nodes = split(0)[:3]
    left, right = nodes[0].node, nodes[1].node
    text = TEXT[TEXT.index("holds 14 pears") : right.start_char_idx + 10]
    assert left.end_char_idx < TEXT.index(text) + len(text)
    script = f"</think>See <|start_recall|>{text}<|end_recall|>."
    synthesizer = kit.synthesizer(script, documents=[DOCUMENT])
    packer = RecaLLMContextPacker(llm=kit.llm(), documents=[DOCUMENT])
    engine = RetrieverQueryEngine(kit.retriever(nodes), synthesizer, [packer])
    response = engine.query("Which?")
    (citation,) = kit.check(response, [DOCUMENT])
    assert citation.level == "document"
    assert [part.node_id for part in citation.parts] == [left.node_id, right.node_id]
    originals = {each.node.node_id: each.node.text for each in nodes}
    for part in citation.parts:
        found = originals[part.node_id][part.node_start : part.node_end]
        assert found
        assert found in citation.text


def test_without_documents_only_proven_overlaps_are_merged(kit: Any) -> None:
    overlapping = [kit.node("one two three", 0, "d"), kit.node("three four", 8, "d")]
    (merged,) = pack(overlapping)
    assert merged.node.text == "one two three four"
    liars = [kit.node("one two three", 0, "d"), kit.node("never four", 8, "d")]
    assert sorted(each.node.text for each in pack(liars)) == ["never four", "one two three"]
    touching = [kit.node("one ", 0, "d"), kit.node("two", 4, "d")]
    assert len(pack(touching)) <= 2


def test_the_budget_is_kept_and_the_best_are_in_it() -> None:
    nodes = split()
    for budget in (0, 150, 700, 2000):
        found = pack(nodes, token_budget=budget, documents=[DOCUMENT])
        assert sum(len(each.node.text) for each in found) <= budget
        if budget > 500:
            assert nodes[0].node.text[:40] in found[0].node.text


def test_scores_may_be_missing_and_nodes_empty(kit: Any) -> None:
    nodes = [kit.node("first " * 20), kit.node(""), kit.node("second " * 20)]
    found = pack(nodes, token_budget=150)
    assert [each.node.text for each in found] == [nodes[0].node.text]
    assert pack([]) == []
    assert pack([nodes[1]]) == []


@settings(max_examples=30)
@given(
    picks=st.lists(st.integers(0, 10), max_size=8),
    budget=st.integers(0, 3000),
    known=st.booleans(),
    shift=st.integers(0, 3),
)
def test_packed_nodes_are_slices_whatever_comes(
    picks: list[int], budget: int, known: bool, shift: int
) -> None:
    nodes = split()
    chosen = [nodes[n % len(nodes)].model_copy(deep=True) for n in picks]
    for n, each in enumerate(chosen):
        if n % 4 == 3 and each.node.start_char_idx is not None:
            each.node.start_char_idx += shift
            each.node.end_char_idx += shift
    found = pack(chosen, token_budget=budget, documents=[DOCUMENT] if known else None)
    assert sum(len(each.node.text) for each in found) <= budget
    for each in found:
        assert each.node.text in TEXT
        if known:
            node = each.node
            start, end = node.start_char_idx, node.end_char_idx
            untouched = any(node is given_node.node for given_node in chosen)
            assert untouched or TEXT[start:end] == node.text


# the retriever


async def test_it_fetches_wider_until_the_budget_is_full(kit: Any) -> None:
    index = VectorStoreIndex([each.node for each in split()], embed_model=RecaLLMEmbedding())
    base = index.as_retriever(similarity_top_k=2)
    retriever = PackedContextRetriever(base, llm=kit.llm(), documents=[DOCUMENT], token_budget=3000)
    found = retriever.retrieve("Which box holds 49 pears?")
    size = sum(len(each.node.text) for each in found)
    assert 2000 < size <= 3000
    assert base.similarity_top_k == 2
    assert await retriever.aretrieve("Which box holds 49 pears?") == found
    many = await asyncio.gather(*(retriever.aretrieve("Box 3?") for _ in range(5)))
    assert all(each == many[0] for each in many)
    everything = PackedContextRetriever(base, llm=kit.llm(), documents=[DOCUMENT])
    (whole,) = everything.retrieve("Box 3?")
    assert whole.node.text.strip() == TEXT.strip()


def test_it_packs_what_any_retriever_returns(kit: Any) -> None:
    nodes = split()
    retriever = PackedContextRetriever(kit.retriever(nodes), llm=kit.llm(), token_budget=800)
    found = retriever.retrieve(QueryBundle("Box 3?"))
    assert found
    assert sum(len(each.node.text) for each in found) <= 800


async def test_it_packs_from_a_corpus_index(kit: Any) -> None:
    index = CorpusIndex.build([CoreDocument(TEXT, "doc", "Pears", {"year": 3, "odd": object()})])
    retriever = PackedContextRetriever(index, llm=kit.llm(), token_budget=1000)
    found = retriever.retrieve("Which box holds 49 pears?")
    assert found == await retriever.aretrieve("Which box holds 49 pears?")
    for each in found:
        node = each.node
        assert TEXT[node.start_char_idx : node.end_char_idx] == node.text
        assert (node.ref_doc_id, node.metadata) == ("doc", {"year": 3, "title": "Pears"})


async def test_tracers_hear_of_one_retrieval(kit: Any, events: Any) -> None:
    index = VectorStoreIndex([each.node for each in split()], embed_model=RecaLLMEmbedding())
    retriever = PackedContextRetriever(index.as_retriever(), llm=kit.llm(), token_budget=3000)
    assert retriever.retrieve("Box 3?")
    assert await retriever.aretrieve("Box 3?")
    assert events.names.count("RetrievalStartEvent") == 2
    few = PackedContextRetriever(index.as_retriever(), llm=kit.llm(), max_nodes=3)
    assert len(few.retrieve("Box 3?")) <= 3


def test_forged_members_are_ignored(kit: Any) -> None:
    for forged in (3, [3], [{"node_id": "x"}], {"a": 1}, [{"node_id": 1, "start": 0}]):
        node = kit.node(kit.ferry, 0, "d", metadata={MEMBERS: forged})
        response = kit.synthesizer().synthesize("Q?", [node])
        assert all(citation.parts == [] for citation in kit.check(response))


def test_bad_arguments_are_refused_with_words(kit: Any) -> None:
    with pytest.raises(TypeError, match="retriever must be"):
        PackedContextRetriever("index")
    with pytest.raises(ValueError, match="token_budget"):
        PackedContextRetriever(kit.retriever([]), token_budget=-1)
    with pytest.raises(ValueError, match="token_budget"):
        RecaLLMContextPacker(token_budget=-1)
    with pytest.raises(ValueError, match="max_nodes"):
        PackedContextRetriever(kit.retriever([]), max_nodes=0)
    with pytest.raises(TypeError, match="documents must"):
        RecaLLMContextPacker(documents=3)
    with pytest.raises(TypeError, match="documents must"):
        PackedContextRetriever(kit.retriever([]), documents=3)


# the nodes beside those that were found


def store_of(nodes: list[NodeWithScore]) -> SimpleDocumentStore:
    store = SimpleDocumentStore()
    store.add_documents([each.node for each in nodes])
    return store


@pytest.mark.parametrize("overlap", [0, 20])
def test_the_nodes_beside_the_best_ones_come_in_from_the_docstore(overlap: int) -> None:
    nodes = split(overlap)
    hits = [nodes[5], nodes[12]]
    before = [each.model_dump_json() for each in nodes]
    found = pack(hits, documents=[DOCUMENT], docstore=store_of(nodes), expand_top=1)
    assert [each.node.text for each in found[1:]] == [nodes[12].node.text]
    node = found[0].node
    assert TEXT[node.start_char_idx : node.end_char_idx] == node.text
    assert [m["node_id"] for m in node.metadata[MEMBERS]] == [n.node.node_id for n in nodes[4:7]]
    assert [m["score"] for m in node.metadata[MEMBERS]] == [None, hits[0].score, None]
    assert found[0].score == hits[0].score
    assert node.relationships[NodeRelationship.PREVIOUS] == nodes[4].node.prev_node
    assert node.relationships[NodeRelationship.NEXT] == nodes[6].node.next_node
    assert [each.model_dump_json() for each in nodes] == before
    assert pack(hits, documents=[DOCUMENT], docstore=store_of(nodes), expand_top=0) == hits


def test_neighbours_come_in_only_while_the_budget_lasts() -> None:
    nodes = split()
    for budget in (150, 250, 400, 700):
        found = pack(
            [nodes[5]],
            token_budget=budget,
            documents=[DOCUMENT],
            docstore=store_of(nodes),
            expand_top=5,
        )
        assert sum(len(each.node.text) for each in found) <= budget
        assert all(nodes[5].node.text in each.node.text for each in found)


def test_without_documents_neighbours_stand_beside_their_nodes() -> None:
    nodes = split(0)
    found = pack([nodes[5]], docstore=store_of(nodes), expand_top=1)
    assert [each.node for each in found] == [each.node for each in nodes[4:7]]
    assert [each.score for each in found] == [None, nodes[5].score, None]


def test_neighbours_of_other_documents_and_unknown_ones_stay_out(kit: Any) -> None:
    node, stranger = kit.node("Here it is.", 0, "d"), kit.node("Not here.", 0, "e", id_="x")
    node.node.relationships[NodeRelationship.NEXT] = RelatedNodeInfo(node_id="x")
    node.node.relationships[NodeRelationship.PREVIOUS] = RelatedNodeInfo(node_id="gone")
    assert pack([node], docstore=store_of([stranger]), expand_top=1) == [node]


async def test_a_quote_from_a_neighbour_names_the_neighbour(kit: Any) -> None:
    nodes = split(0)
    hit, beside = nodes[5], nodes[6].node
    quote = beside.text[10:40].strip()
    quote = quote[quote.index(" ") + 1 : quote.rindex(" ")]
    script = f"</think>See <|start_recall|>{quote}<|end_recall|>."
    synthesizer = kit.synthesizer(script, documents=[DOCUMENT])
    packer = RecaLLMContextPacker(
        llm=kit.llm(), documents=[DOCUMENT], docstore=store_of(nodes), expand_top=1
    )
    engine = RetrieverQueryEngine(kit.retriever([hit]), synthesizer, [packer])
    for response in (engine.query("Which?"), await engine.aquery("Which?")):
        (citation,) = kit.check(response, [DOCUMENT])
        assert [part.node_id for part in citation.parts] == [beside.node_id]
        (part,) = citation.parts
        assert beside.text[part.node_start : part.node_end] == citation.text


def test_the_retriever_looks_in_the_index_that_it_is_given(kit: Any) -> None:
    nodes = split(0)
    plain = VectorStoreIndex([each.node for each in nodes], embed_model=RecaLLMEmbedding())
    store = RecaLLMVectorStore()
    kept = VectorStoreIndex(
        [each.node for each in nodes],
        embed_model=RecaLLMEmbedding(),
        storage_context=StorageContext.from_defaults(vector_store=store),
    )
    question = "Which box holds 49 pears?"
    for index in (plain, kept):
        for documents in ([DOCUMENT], None):
            alone, wide = (
                PackedContextRetriever(
                    kit.retriever(index.as_retriever(similarity_top_k=1).retrieve(question)),
                    llm=kit.llm(),
                    documents=documents,
                    docstore=docstore,
                    token_budget=8192,
                ).retrieve(question)
                for docstore in (None, index)
            )
            sizes = [sum(len(each.node.text) for each in found) for found in (alone, wide)]
            assert sizes[0] < sizes[1]


@settings(max_examples=25)
@given(
    picks=st.lists(st.integers(0, 10), max_size=6),
    budget=st.integers(0, 3000),
    top=st.integers(0, 4),
)
def test_packs_with_neighbours_are_slices_within_the_budget(
    picks: list[int], budget: int, top: int
) -> None:
    nodes = split()
    chosen = [nodes[n % len(nodes)] for n in picks]
    found = pack(
        chosen,
        token_budget=budget,
        documents=[DOCUMENT],
        docstore=store_of(nodes),
        expand_top=top,
    )
    assert sum(len(each.node.text) for each in found) <= budget
    for each in found:
        node = each.node
        assert TEXT[node.start_char_idx : node.end_char_idx] == node.text
