"""Offsets are checked, found again or left out: chained parsers, repeats, replaced texts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import (
    HierarchicalNodeParser,
    MarkdownNodeParser,
    SentenceSplitter,
    SentenceWindowNodeParser,
)
from llama_index.core.postprocessor import MetadataReplacementPostProcessor
from llama_index.core.schema import Document, NodeWithScore
from llama_index.core.storage.docstore import SimpleDocumentStore

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
