"""From an answer's raw data to citations of nodes and documents, each checked by slicing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from llama_index.core.schema import BaseNode, NodeWithScore

import recallm_core as recallm
from llama_index_recallm import messages
from llama_index_recallm.anchors import Nodes, anchors
from llama_index_recallm.responses import Citation, Evidence, Level, NodeRange
from llama_index_recallm.sources import (
    MEMBERS,
    Anchor,
    Originals,
    Source,
)
from recallm_core.adapting import nearest, occurrences
from recallm_core.errors import CitationError


class Reader:
    """The sources of one call, and what their quotes become.

    Args:
        sources: What the model reads, in the order of the call's citable blocks.
        originals: The documents that the nodes were cut from.
        additional: Nodes behind the sources, where these are sub-answers of another engine.
        nodes: Where the nodes beside them are, to place those whose texts repeat.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        originals: Originals,
        additional: Sequence[Source] = (),
        nodes: Nodes | None = None,
    ) -> None:
        self.sources = tuple(sources)
        self._originals = originals
        self._additional = tuple(additional)
        self._nodes = nodes or Nodes()

    def evidence(self, answer: Mapping[str, Any]) -> Evidence:
        """Returns the evidence of an answer.

        Args:
            answer: ``raw["recallm"]`` of a response of ``RecaLLM``.

        Raises:
            CitationError: A quote isn't the slice that it claims to be; never hidden.
        """
        citations, cited = self._read(answer["citations"])
        return Evidence(
            citations=citations,
            cited_nodes=cited,
            abstained=bool(answer["abstained"]),
            nearest=self._read(answer["nearest"])[0],
            reasoning=_reasoning(answer),
            finish_reason=str(answer["finish_reason"]),
        )

    def unshown_nodes(self, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Returns the nodes of which the model wasn't shown all, with the ranges that it wasn't."""
        out = []
        for place in answer.get("left_out", ()):
            source = self._source(place)
            start, end = place["start"] + source.shift, place["end"] + source.shift
            node = {"node_id": source.node.node_id, "reason": "budget"}
            out.append({**node, "node_start": start, "node_end": end})
        return out

    def _read(
        self, citations_of_core: Sequence[Mapping[str, Any]]
    ) -> tuple[list[Citation], list[NodeWithScore]]:
        """The citations, and the nodes that they cite, each once."""
        numbers: dict[tuple[str, int, int], int] = {}
        citations: list[Citation] = []
        cited: dict[int, NodeWithScore] = {}
        for citation in citations_of_core:
            source, start, derived = self._place(citation)
            start += source.shift
            key = (source.node.node_id, start, start + len(citation["text"]))
            number = numbers.setdefault(key, len(numbers) + 1)
            citations.append(self._citation(citation, source, start, number, derived=derived))
            cited.setdefault(id(source.given), source.given)
        return citations, list(cited.values())

    def _place(self, citation: Mapping[str, Any]) -> tuple[Source, int, bool]:
        """The source that is cited, where in its text, and whether it is a sub-answer."""
        source = self._source(citation)
        if not self._additional or source.node.ref_doc_id is not None:
            return source, int(citation["start"]), False
        for behind in self._additional:
            at = behind.text.find(citation["text"])
            if at >= 0:
                return behind, at, False
        return source, int(citation["start"]), True

    def _source(self, place: Mapping[str, Any]) -> Source:
        return self.sources[messages.citable_of(place["document_id"])[0]]

    def _citation(
        self, citation: Mapping[str, Any], source: Source, start: int, number: int, *, derived: bool
    ) -> Citation:
        text = citation["text"]
        end = start + len(text)
        if source.node_text[start:end] != text:
            raise CitationError(
                f"the quote {text[:60]!r} isn't node {source.node.node_id!r}[{start}:{end}]; this "
                "is a fault of the library, please report it"
            )
        level, doc_start, unsure = self._in_document(source, start, text)
        doc_end = None if doc_start is None else doc_start + len(text)
        node = recallm.Document(source.node_text, source.node.node_id)
        page = source.node.metadata.get("page_label")
        return Citation(
            n=number,
            text=text,
            node_id=source.node.node_id,
            node_start=start,
            node_end=end,
            ref_doc_id=source.node.ref_doc_id,
            doc_start=doc_start,
            doc_end=doc_end,
            level=level,
            node_utf16_range=node.utf16_range(start, end),
            node_utf8_range=node.utf8_range(start, end),
            **self._encode(source, level, doc_start, doc_end),
            basis=citation["basis"],
            answer_start=citation["answer_start"],
            answer_end=citation["answer_end"],
            ambiguous=unsure or bool(citation["ambiguous"]),
            occurrences=[self._range(place) for place in citation["occurrences"]],
            parts=_parts(source.node, start, end),
            derived=derived,
            title=source.label(metadata=False) or None,
            page_label=None if page is None else str(page),
        )

    def _range(self, place: Mapping[str, Any]) -> NodeRange:
        source = self._source(place)
        return NodeRange(
            node_id=source.node.node_id,
            node_start=source.shift + place["start"],
            node_end=source.shift + place["end"],
        )

    def _encode(
        self, source: Source, level: Level, start: int | None, end: int | None
    ) -> dict[str, tuple[int, int]]:
        """The range in the document as others count, where the document's text is known."""
        original = self._originals.text(source.node.ref_doc_id)
        if level != "document" or original is None or start is None or end is None:
            return {}
        document = recallm.Document(original, source.node.ref_doc_id)
        return {
            "utf16_range": document.utf16_range(start, end),
            "utf8_range": document.utf8_range(start, end),
        }

    @cached_property
    def _anchors(self) -> dict[int, Anchor]:
        """Where each source begins in its document; looked up when the first quote comes."""
        every = (*self.sources, *self._additional)
        placed = anchors(every, self._originals, self._nodes)
        return {id(source): anchor for source, anchor in zip(every, placed, strict=True)}

    def _in_document(self, source: Source, start: int, text: str) -> tuple[Level, int | None, bool]:
        """How far the place in the document is known, where it is, and whether it is unsure."""
        anchor = self._anchors[id(source)]
        within = start - source.shift
        if anchor.start is not None:
            level: Level = "document" if anchor.checked else "node"
            return level, anchor.start + within, anchor.ambiguous
        original = self._originals.text(source.node.ref_doc_id)
        place_in_document = None if original is None else nearest(text, original, source.begins)
        if original is None or place_in_document is None:
            return "text", None, False
        return "document", place_in_document, len(list(occurrences(text, original, 2))) > 1


def _parts(node: BaseNode, start: int, end: int) -> list[NodeRange]:
    """The quote in the nodes that a packed node was merged from."""
    out = []
    for member in _members(node):
        a, b = max(start, member["start"]), min(end, member["end"])
        if a < b:
            shift = member["node_start"] - member["start"]
            part = NodeRange(node_id=member["node_id"], node_start=a + shift, node_end=b + shift)
            out.append(part)
    return out


def _members(node: BaseNode) -> list[Any]:
    """What packing wrote into the node; metadata may come from anywhere, so its form is checked."""
    members = node.metadata.get(MEMBERS)
    keys = ("start", "end", "node_start")
    fits = isinstance(members, list) and all(
        isinstance(member, dict)
        and isinstance(member.get("node_id"), str)
        and all(isinstance(member.get(key), int) for key in keys)
        for member in members
    )
    return list(members or ()) if fits else []


def _reasoning(answer: Mapping[str, Any]) -> str:
    return "".join(
        segment["text"]
        for segment in answer["trace"]
        if segment["type"] == "reasoning" or segment.get("section", "answer") != "answer"
    )
