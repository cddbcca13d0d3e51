"""Packs nodes: those that fit a token budget, neighbours merged, as exact slices of documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llama_index.core.schema import NodeRelationship, NodeWithScore, TextNode

import recallm_core as recallm
from llama_index_recallm import fitting, sources
from llama_index_recallm.anchors import Nodes, anchors, nodes_of
from llama_index_recallm.sources import MEMBERS, Anchor, Originals, Source
from recallm_core import Pack, Passage, ScoredChunk, pack
from recallm_core.adapting import (
    DEFAULT_OVERHEAD,
    Count,
    Order,
    common_metadata,
    expanded,
    stable_id,
)

Place = tuple[str, int, int]
_Member = tuple[int, int, Source]

GAP_TOKENS = 8
"""White space that splitters drop between neighbours is filled in again, so that they can meet."""


def pack_nodes(
    nodes: Sequence[NodeWithScore],
    *,
    token_budget: int,
    count: Count,
    documents: Any = None,
    docstore: Any = None,
    order: Order = "document",
    gap_tokens: int = GAP_TOKENS,
    expand_top: int | None = None,
) -> list[NodeWithScore]:
    """Returns the best nodes that fit a budget, those of one document merged where they meet.

    A node that was merged with nothing comes back as it is. A merged one is a new node whose text
    is an exact slice of the document; its metadata says, under a key hidden from models, which
    nodes it was merged from. Nothing that was passed in is changed.

    Args:
        nodes: Candidates; a higher score is better. Without scores, earlier is better.
        token_budget: Tokens at most, labels included.
        count: Tokens of a text.
        documents: The original texts, as for ``RecaLLMSynthesizer``. Without them, nodes are merged
            only where they overlap and agree on every shared character.
        docstore: Where the nodes beside a node are found, by its ``PREVIOUS`` and ``NEXT``: a
            docstore, an index, or a vector store that keeps texts. Those that come in this way
            have no score.
        order: As in ``recallm_core.packing.pack``.
        gap_tokens: Gaps of at most so many tokens between two nodes are filled from the document.
        expand_top: How many of the best nodes get those beside them, if the budget allows; None:
            one for every 4,096 tokens of the budget.
    """
    placed = _Candidates.of(nodes, Originals(documents), nodes_of(docstore, documents))
    top = expanded(token_budget) if expand_top is None else expand_top
    packed = _pack(placed, token_budget, count, order, gap_tokens, top)
    return [_node(passage, placed) for passage in packed.passages]


@dataclass(frozen=True, slots=True)
class _Candidates:
    """The candidates as chunks, and what is known of the documents that they are chunks of.

    Attributes:
        chunks: The candidates.
        texts: The documents' texts, as far as they are known.
        sources: The nodes behind the chunks; grows as the nodes beside them come in.
        originals: Where texts come from.
        nodes: Where nodes beside others come from.
    """

    chunks: tuple[ScoredChunk, ...]
    texts: Mapping[str, recallm.Document]
    sources: dict[Place, Source]
    originals: Originals
    nodes: Nodes

    @classmethod
    def of(
        cls, nodes_with_scores: Sequence[NodeWithScore], originals: Originals, nodes: Nodes
    ) -> _Candidates:
        """Returns nodes with their places."""
        sources_read = [
            source for source in map(sources.read, nodes_with_scores) if source.readable
        ]
        chunks: list[ScoredChunk] = []
        texts: dict[str, recallm.Document] = {}
        behind: dict[Place, Source] = {}
        every = zip(
            sources_read,
            anchors(sources_read, originals, nodes),
            fitting.ranks(sources_read),
            strict=True,
        )
        for source, anchor, score in every:
            key, start = _home(source, anchor, originals, texts)
            chunk = ScoredChunk(key, start, start + len(source.text), source.text, score)
            if _place(chunk) in behind:
                continue  # the same slice again
            chunks.append(chunk)
            behind[_place(chunk)] = source
        return cls(*_apart(tuple(chunks), behind, texts), originals, nodes)

    def neighbours_of(self, hit: ScoredChunk) -> list[ScoredChunk]:
        """Returns the chunks of the nodes before and after one, where they are known."""
        source = self.sources[_place(hit)]
        out = []
        for kind in (NodeRelationship.PREVIOUS, NodeRelationship.NEXT):
            node = self.nodes.neighbour(source.node, kind)
            read = None if node is None else sources.read(NodeWithScore(node=node))
            if read is None or not read.readable:
                continue
            start = anchors([source, read], self.originals, self.nodes)[1].start
            if start is None or hit.document_id != source.node.ref_doc_id:
                continue
            chunk = ScoredChunk(hit.document_id, start, start + len(read.text), read.text, 0.0)
            self.sources.setdefault(_place(chunk), read)
            out.append(chunk)
        return out


def _place(chunk: ScoredChunk) -> Place:
    return chunk.document_id, chunk.start, chunk.end


def _home(
    source: Source, anchor: Anchor, originals: Originals, texts: dict[str, recallm.Document]
) -> tuple[str, int]:
    """The document that a node is a slice of, and where; a node of unknown place is its own."""
    document_id = source.node.ref_doc_id
    if document_id is None or anchor.start is None:
        return f"node:{source.node.node_id}", 0
    if anchor.checked and document_id not in texts:
        text = originals.text(document_id)
        assert text is not None  # the anchor was checked in it
        texts[document_id] = recallm.Document(text, document_id)
    return document_id, anchor.start


def _apart(
    chunks: tuple[ScoredChunk, ...],
    behind: Mapping[Place, Source],
    texts: Mapping[str, recallm.Document],
) -> tuple[
    tuple[ScoredChunk, ...],
    Mapping[str, recallm.Document],
    dict[Place, Source],
]:
    """Gives chunks whose claimed places contradict each other homes of their own."""
    by_document: dict[str, list[ScoredChunk]] = {}
    for chunk in chunks:
        by_document.setdefault(chunk.document_id, []).append(chunk)
    wrong = {
        disputed
        for key, group in by_document.items()
        if key not in texts
        for disputed in _contradictions(group)
    }
    out, homes = [], dict(behind)
    for chunk in chunks:
        if chunk in wrong:
            source = homes.pop(_place(chunk))
            home = f"node:{source.node.node_id}"
            chunk = replace(chunk, document_id=home, start=0, end=len(chunk.text))
            homes[home, 0, chunk.end] = source
        out.append(chunk)
    return tuple(out), texts, homes


def _contradictions(group: Sequence[ScoredChunk]) -> list[ScoredChunk]:
    ordered = sorted(group, key=lambda chunk: (chunk.start, chunk.end))
    wrong: list[ScoredChunk] = []
    for place, earlier in enumerate(ordered):
        for later in ordered[place + 1 :]:
            if later.start >= earlier.end:
                break
            size = min(earlier.end, later.end) - later.start
            shift = later.start - earlier.start
            if earlier.text[shift : shift + size] != later.text[:size]:
                wrong += [earlier, later]
    return wrong


def _pack(
    placed: _Candidates,
    token_budget: int,
    count: Count,
    order: Order,
    gap_tokens: int,
    expand_top: int,
) -> Pack:
    labels: dict[str, str] = {}
    for (key, _, _), source in placed.sources.items():
        labels.setdefault(key, source.label(metadata=True))

    def overhead(passage: Passage) -> int:
        label = labels.get(passage.document_id, "")
        return 2 * DEFAULT_OVERHEAD + (count(label) if label else 0)

    return pack(
        placed.chunks,
        placed.texts,
        token_budget=token_budget,
        count=count,
        overhead=overhead,
        order=order,
        neighbours=placed.neighbours_of if placed.nodes else None,
        expand_top=expand_top,
        gap_tokens=gap_tokens,
    )


def _node(passage: Passage, placed: _Candidates) -> NodeWithScore:
    members = sorted(_members(passage, placed), key=lambda member: member[:2])
    if len(members) == 1:
        only = members[0][2]
        if only.shift == 0 and only.text == only.node_text == passage.text:
            return only.given
    scores = [source.given.score for _, _, source in members if source.given.score is not None]
    return NodeWithScore(node=_merge(passage, members), score=max(scores, default=None))


def _members(passage: Passage, placed: _Candidates) -> Iterator[_Member]:
    """The nodes that lie in a passage, however they got there."""
    for (document_id, start, end), source in placed.sources.items():
        inside = document_id == passage.document_id and passage.start <= start <= end <= passage.end
        if inside and passage.text.startswith(source.text, start - passage.start):
            yield start, end, source


def _merge(passage: Passage, members: Sequence[_Member]) -> TextNode:
    nodes = [source.node for _, _, source in members]
    is_own_home = passage.document_id.startswith("node:")
    related: dict[Any, Any] = {}
    source = nodes[0].relationships.get(NodeRelationship.SOURCE)
    if source is not None:
        related[NodeRelationship.SOURCE] = source
    for kind, node in (
        (NodeRelationship.PREVIOUS, nodes[0]),
        (NodeRelationship.NEXT, nodes[-1]),
    ):
        if kind in node.relationships:
            related[kind] = node.relationships[kind]
    shared = common_metadata([node.metadata for node in nodes], without=(MEMBERS,))
    hidden = {key for node in nodes for key in node.excluded_llm_metadata_keys}
    unseen = {key for node in nodes for key in node.excluded_embed_metadata_keys}
    ids = "\0".join(node.node_id for node in nodes)
    return TextNode(
        id_=stable_id("packed", ids, passage.start, passage.end),
        text=passage.text,
        start_char_idx=None if is_own_home else passage.start,
        end_char_idx=None if is_own_home else passage.end,
        relationships=related,
        metadata={**shared, MEMBERS: [_member(passage, *member) for member in members]},
        excluded_llm_metadata_keys=sorted({*hidden, MEMBERS}),
        excluded_embed_metadata_keys=sorted({*unseen, MEMBERS}),
    )


def _member(passage: Passage, start: int, end: int, source: Source) -> dict[str, Any]:
    """A merged node in the packed one: ``packed.text[start:end]`` begins at its ``node_start``."""
    return {
        "node_id": source.node.node_id,
        "start": start - passage.start,
        "end": end - passage.start,
        "node_start": source.shift,
        "score": source.given.score,
    }
