"""Offsets are checked, found again or left out: chained parsers, repeats, replaced texts."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import (
    HierarchicalNodeParser,
    MarkdownNodeParser,
    SentenceSplitter,
    SentenceWindowNodeParser,
)
from llama_index.core.postprocessor import MetadataReplacementPostProcessor
from llama_index.core.schema import Document, NodeRelationship, NodeWithScore, RelatedNodeInfo
from llama_index.core.storage.docstore import SimpleDocumentStore

from llama_index_recallm import RecaLLMEmbedding, RecaLLMVectorStore
from llama_index_recallm.anchors import Nodes, anchors, nodes_of
from llama_index_recallm.sources import Originals, read
from recallm_core import CorpusIndex
from recallm_core import Document as CoreDocument

SAME = "The valve is closed by hand. "
PROSE = "".join(f"Ward {n} has {n + 3} beds and a nurse called N{n}. {SAME}" for n in range(60))
MARKDOWN = "# Wards\n\nIntro here.\n\n## North\n\n" + PROSE + "\n\n## South\n\n" + PROSE
QUOTE = (
    "</think>So <|start_recall|>Ward 17 has 20 beds<|end_recall|> and "
    "<|start_recall|>The valve is closed by hand<|end_recall|>."
)


def parsed(kind: str) -> tuple[list[Any], Document]:
    text = {"repeats": SAME * 250, "markdown": MARKDOWN, "chained": MARKDOWN}.get(kind, PROSE)
    document = Document(id_="doc", text=text)
    parsers: dict[str, Any] = {
        "sentences": SentenceSplitter(chunk_size=128, chunk_overlap=20),
        "repeats": SentenceSplitter(chunk_size=64, chunk_overlap=0),
        "windows": SentenceWindowNodeParser.from_defaults(window_size=2),
        "hierarchy": HierarchicalNodeParser.from_defaults(chunk_sizes=[512, 128]),
        "markdown": MarkdownNodeParser(),
    }
    if kind == "chained":
        steps = [MarkdownNodeParser(), SentenceSplitter(chunk_size=128, chunk_overlap=0)]
        return list(IngestionPipeline(transformations=steps).run(documents=[document])), document
    return parsers[kind].get_nodes_from_documents([document]), document


@pytest.mark.parametrize(
    "kind", ["sentences", "repeats", "windows", "hierarchy", "markdown", "chained"]
)
def test_quotes_are_slices_of_their_documents_whatever_the_parser_claims(
    kit: Any, kind: str
) -> None:
    nodes, document = parsed(kind)
    if kind == "windows":
        given = [NodeWithScore(node=node, score=1.0) for node in nodes]
        given = MetadataReplacementPostProcessor("window").postprocess_nodes(given)
    else:
        given = [NodeWithScore(node=node, score=1.0) for node in nodes]
    response = kit.synthesizer(QUOTE, documents=[document]).synthesize("Q?", given)
    citations = kit.check(response, [document])
    assert {citation.level for citation in citations} == {"document"}
    valve = next(citation for citation in citations if "valve" in citation.text)
    assert valve.ambiguous
    claimed = kit.synthesizer(QUOTE).synthesize("Q?", given)
    levels = {citation.level for citation in kit.check(claimed)}
    assert levels <= {"node", "text"}


def test_wrong_offsets_are_never_passed_off_as_checked(kit: Any) -> None:
    text = f"{kit.leave} {kit.ferry} And {kit.ferry}"
    at = text.index(kit.ferry)
    cases = {"right": at, "wrong": 3, "none": None}
    found = {}
    for name, start in cases.items():
        node = kit.node(kit.ferry, start, "doc")
        synthesizer = kit.synthesizer(documents={"doc": text})
        found[name] = kit.check(
            synthesizer.synthesize("Q?", [node]), [Document(id_="doc", text=text)]
        )
    for citations in found.values():
        assert {citation.level for citation in citations} == {"document"}
        assert all(citation.ambiguous for citation in citations)
        assert [c.doc_start for c in citations] == [c.doc_start for c in found["right"]]
    liar = kit.node(kit.ferry, 3, "doc")
    liar.node.end_char_idx = 9
    citations = kit.check(kit.synthesizer().synthesize("Q?", [liar]))
    assert {citation.level for citation in citations} == {"text"}


def test_a_text_that_is_no_slice_is_cited_by_its_quotes(kit: Any) -> None:
    original = f"x {kit.ferry} y"
    changed = kit.node("SUMMARY: " + kit.ferry.replace("euros", "EUR"), 2, "doc")
    synthesizer = kit.synthesizer(documents={"doc": original})
    citations = kit.check(
        synthesizer.synthesize("Q?", [changed]), [Document(id_="doc", text=original)]
    )
    assert {citation.level for citation in citations} == {"document"}
    gone = kit.synthesizer(documents={"doc": "Nothing of it."}).synthesize("Q?", [changed])
    assert {citation.level for citation in kit.check(gone)} == {"text"}


def test_originals_come_from_wherever_they_are(kit: Any) -> None:
    document = Document(id_="d", text="Text \U0001f476.")
    store = SimpleDocumentStore()
    store.add_documents([document])
    core = CoreDocument(document.text, "d")
    for source in (
        [document],
        [core],
        {"d": document.text},
        {"d": document},
        store,
        CorpusIndex.build([core]),
        {"d": document.text}.get,
    ):
        originals = Originals(source)
        assert originals.text("d") == document.text
        assert originals.text("e") is None
        assert originals.text(None) is None
    with pytest.raises(TypeError, match="expected str or None"):
        Originals(lambda _: 3).text("d")
    with pytest.raises(TypeError, match="documents must hold"):
        Originals([3])


texts = st.text(st.sampled_from("ab \n\r\u00e9\u0301\U0001f476"), max_size=12)


@given(
    before=texts,
    text=texts.filter(lambda t: t.strip()),
    after=texts,
    claim=st.none() | st.integers(0, 30),
)
def test_an_anchor_is_a_place_where_the_text_stands(
    kit: Any, before: str, text: str, after: str, claim: int | None
) -> None:
    original = before + text + after
    source = read(kit.node(text, claim, "doc"))
    anchor = source.anchor(Originals({"doc": original}))
    assert anchor.checked
    assert anchor.start is not None
    assert original[anchor.start : anchor.start + len(text)] == text
    again = original.find(text, original.find(text) + 1)
    assert anchor.ambiguous == (again >= 0)
    if claim is not None and original.startswith(text, claim):
        assert anchor.start == claim
    unknown = source.anchor(Originals())
    assert (unknown.start, unknown.checked) == (claim, False)


# the order of the nodes


def tiles(nodes: list[Any], text: str) -> list[int]:
    """Where nodes that cover a document without overlaps begin, by laying them end to end."""
    out, at = [], 0
    for node in nodes:
        at = text.index(node.text, at)
        out.append(at)
        at += len(node.text)
    return out


def repeated(chained: bool) -> tuple[list[Any], str]:
    """A document of a sentence that repeats between headings, and its nodes in order."""
    section = SAME * 40
    text = (
        f"# Valves\n\nA first word.\n\n## North\n\n{section}\n\n## South\n\n{section}\n\nThe end."
    )
    steps: list[Any] = [MarkdownNodeParser()] if chained else []
    steps.append(SentenceSplitter(chunk_size=64, chunk_overlap=0))
    document = Document(id_="doc", text=text)
    return list(IngestionPipeline(transformations=steps).run(documents=[document])), text


def starts(nodes: list[Any], text: str, store: Any = None) -> list[Any]:
    found = [read(NodeWithScore(node=node)) for node in nodes]
    return anchors(found, Originals({"doc": text}), Nodes(store))


@pytest.mark.parametrize("chained", [True, False])
def test_repeated_sentences_are_placed_in_the_order_of_their_nodes(chained: bool) -> None:
    nodes, text = repeated(chained)
    expected = tiles(nodes, text)
    first_matches = [text.find(node.text) for node in nodes]
    assert first_matches != expected
    found = starts(nodes, text)
    assert [anchor.start for anchor in found] == expected
    shuffled = nodes[::2] + nodes[1::2]
    again = dict(zip([n.node_id for n in shuffled], starts(shuffled, text), strict=True))
    assert [again[node.node_id] for node in nodes] == found
    repeats = [text.count(node.text) > 1 for node in nodes]
    assert [anchor.ambiguous for anchor in found] == repeats
    assert any(repeats)


@pytest.mark.parametrize("chained", [True, False])
def test_one_node_of_many_equal_ones_is_placed_by_those_in_the_docstore(chained: bool) -> None:
    nodes, text = repeated(chained)
    expected = tiles(nodes, text)
    store = SimpleDocumentStore()
    store.add_documents(nodes)
    for number, node in enumerate(nodes):
        (anchor,) = starts([node], text, store)
        if chained and all(text.count(other.text) > 1 for other in nodes[number:]):
            continue
        assert anchor.start == expected[number]


def test_children_are_placed_in_their_parents() -> None:
    section = PROSE[: 30 * 80]
    text = f"North. {section}\n\nSouth. {section} End."
    parser = HierarchicalNodeParser.from_defaults(chunk_sizes=[512, 64], chunk_overlap=0)
    nodes = parser.get_nodes_from_documents([Document(id_="doc", text=text)])
    store = SimpleDocumentStore()
    store.add_documents(nodes)
    parents = {n.node_id: n for n in nodes if NodeRelationship.PARENT not in n.relationships}
    checked = 0
    for node in nodes:
        if node.node_id in parents:
            continue
        parent = parents[node.relationships[NodeRelationship.PARENT].node_id]
        if text.count(node.text) > 1 and text.count(parent.text) == 1:
            checked += parent.text.count(node.text) == 1
            (anchor,) = starts([node], text, store)
            assert anchor.start == text.index(parent.text) + parent.text.index(node.text)
    assert checked


def test_equal_nodes_without_neighbours_get_places_of_their_own(kit: Any) -> None:
    text = f"{SAME}x {SAME}y {SAME}"
    nodes = [kit.node(SAME, None, "doc").node for _ in range(4)]
    assert [anchor.start for anchor in starts(nodes, text)] == [0, 31, 62, 0]
    claims = [kit.node(SAME, start, "doc").node for start in (62, 62, 31)]
    assert [anchor.start for anchor in starts(claims, text)] == [62, 62, 31]


@given(
    order=st.permutations(range(5)),
    cuts=st.lists(st.integers(1, 40), min_size=4, max_size=4, unique=True),
    text=st.text(st.sampled_from("ab \u00e9\U0001f476"), min_size=41, max_size=60),
    claims=st.lists(st.none() | st.integers(-3, 70), min_size=5, max_size=5),
    loop=st.booleans(),
)
def test_whatever_nodes_claim_their_places_hold_their_texts(
    kit: Any, order: Any, cuts: Any, text: str, claims: Any, loop: bool
) -> None:
    edges = [0, *sorted(cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(edges)]
    nodes = [
        kit.node(piece, claim, "doc").node for piece, claim in zip(pieces, claims, strict=True)
    ]
    for left, right in pairwise([*nodes, nodes[0]] if loop else nodes):
        right.relationships[NodeRelationship.PREVIOUS] = RelatedNodeInfo(node_id=left.node_id)
    found = starts([nodes[n] for n in order], text)
    for number, anchor in zip(order, found, strict=True):
        assert anchor.start is not None
        assert text.startswith(pieces[number], anchor.start)


def test_a_document_that_only_ends_in_something_new_is_laid_out_from_its_end() -> None:
    text = f"{SAME * 30}The end."
    splitter = SentenceSplitter(chunk_size=64, chunk_overlap=0)
    nodes = splitter.get_nodes_from_documents([Document(id_="doc", text=text)])
    assert [anchor.start for anchor in starts(nodes, text)] == tiles(nodes, text)
    endless = SAME * 30
    nodes = splitter.get_nodes_from_documents([Document(id_="doc", text=endless)])
    assert [anchor.start for anchor in starts(nodes, endless)] == tiles(nodes, endless)


def test_offsets_that_fit_are_kept_where_neighbours_overlap() -> None:
    splitter = SentenceSplitter(chunk_size=64, chunk_overlap=24)
    text = "".join(f"{SAME}{SAME}{word} " for word in ("One.", "Two.", "Three.") * 9)
    nodes = splitter.get_nodes_from_documents([Document(id_="doc", text=text)])
    claimed = [node.start_char_idx for node in nodes]
    assert all(text.startswith(n.text, at) for n, at in zip(nodes, claimed, strict=True))
    found = [anchor.start for anchor in starts(nodes, text)]
    assert found == claimed


def test_nodes_come_from_wherever_they_are_kept(kit: Any) -> None:
    node = kit.node("text", 0, "d", id_="n", embedding=[1.0, 0.0]).node
    store, vectors = SimpleDocumentStore(), RecaLLMVectorStore()
    store.add_documents([node])
    vectors.add([node])
    kept = VectorStoreIndex([node], embed_model=RecaLLMEmbedding())
    told = VectorStoreIndex.from_vector_store(vectors, embed_model=RecaLLMEmbedding())
    for held in (store, vectors, kept, told, Nodes(store)):
        found = nodes_of(held).get("n")
        assert found is not None
        assert found.text == "text"
        assert nodes_of(held).get("m") is None
    assert nodes_of(None, store).get("n") is not None
    assert not nodes_of(None, [node])

    class Silent(RecaLLMVectorStore):
        def get_nodes(self, *_: Any, **__: Any) -> Any:
            raise NotImplementedError

    assert nodes_of(Silent()).get("n") is None
    with pytest.raises(TypeError, match="docstore must be"):
        kit.synthesizer(docstore={"n": node})


def test_a_synthesizer_places_one_of_many_equal_nodes_by_its_docstore(kit: Any) -> None:
    nodes, text = repeated(chained=True)
    store = SimpleDocumentStore()
    store.add_documents(nodes)
    expected = dict(zip([n.node_id for n in nodes], tiles(nodes, text), strict=True))
    script = "</think>So <|start_recall|>The valve is closed by hand<|end_recall|>."
    synthesizer = kit.synthesizer(script, documents={"doc": text}, docstore=store)
    for node in nodes[3:-1:3]:
        response = synthesizer.synthesize("Q?", [NodeWithScore(node=node)])
        (citation,) = kit.check(response, [Document(id_="doc", text=text)])
        within = node.text.index(citation.text)
        assert citation.doc_start == expected[node.node_id] + within
        assert citation.ambiguous
