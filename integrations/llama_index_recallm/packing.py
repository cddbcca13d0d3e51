"""Packed context: the retrieved nodes that fit a token budget, neighbours merged, as exact slices.

One pure function of the core does the packing. Around it stand a postprocessor, for any engine
that takes one, and a retriever that fetches wider until the budget is full.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks import CallbackManager
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import (
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)

import recallm_core as recallm
from llama_index_recallm import fitting, sources
from llama_index_recallm.llms import RecaLLM
from llama_index_recallm.sources import MEMBERS, Originals, Source
from recallm_core.documents import Member, Passage, ScoredChunk
from recallm_core.packing import DEFAULT_OVERHEAD, Pack, pack
from recallm_core.retrieval import packs

Order = Literal["document", "relevance", "edges"]
Count = Callable[[str], int]

GAP_TOKENS = 8
"""White space that splitters drop between neighbours is filled in again, so that they can meet."""

_FIRST = 32  # nodes asked for at first
_MOST = 4096


def pack_nodes(
    nodes: Sequence[NodeWithScore],
    *,
    token_budget: int,
    count: Count,
    documents: Any = None,
    order: Order = "document",
    gap_tokens: int = GAP_TOKENS,
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
        order: As in ``recallm_core.packing.pack``.
        gap_tokens: Gaps of at most so many tokens between two nodes are filled from the document.
    """
    placed = _placed(nodes, Originals(documents))
    found = _packed(placed, token_budget, count, order, gap_tokens)
    return [_node(passage, placed) for passage in found.passages]


@dataclass(frozen=True, slots=True)
class _Placed:
    """The candidates as chunks, the texts they are chunks of, and the nodes behind them."""

    chunks: tuple[ScoredChunk, ...]
    texts: Mapping[str, recallm.Document]
    sources: Mapping[tuple[str, int, int], Source]


def _placed(nodes: Sequence[NodeWithScore], originals: Originals) -> _Placed:
    found = [source for source in map(sources.read, nodes) if source.readable]
    chunks: list[ScoredChunk] = []
    texts: dict[str, recallm.Document] = {}
    behind: dict[tuple[str, int, int], Source] = {}
    for source, score in zip(found, fitting.ranks(found), strict=True):
        key, start = _home(source, originals, texts)
        chunk = ScoredChunk(key, start, start + len(source.text), source.text, score)
        if (key, chunk.start, chunk.end) in behind:
            continue  # the same slice again
        chunks.append(chunk)
        behind[key, chunk.start, chunk.end] = source
    return _Placed(*_apart(tuple(chunks), behind, texts))


def _home(
    source: Source, originals: Originals, texts: dict[str, recallm.Document]
) -> tuple[str, int]:
    """The document that a node is a slice of, and where; a node of unknown place is its own."""
    anchor = source.anchor(originals)
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
    behind: Mapping[tuple[str, int, int], Source],
    texts: Mapping[str, recallm.Document],
) -> tuple[
    tuple[ScoredChunk, ...],
    Mapping[str, recallm.Document],
    Mapping[tuple[str, int, int], Source],
]:
    """Gives chunks whose claimed places contradict each other homes of their own."""
    by_document: dict[str, list[ScoredChunk]] = {}
    for chunk in chunks:
        by_document.setdefault(chunk.document_id, []).append(chunk)
    wrong = {
        each
        for key, group in by_document.items()
        if key not in texts
        for each in _contradicting(group)
    }
    out, homes = [], dict(behind)
    for chunk in chunks:
        if chunk in wrong:
            source = homes.pop((chunk.document_id, chunk.start, chunk.end))
            own = f"node:{source.node.node_id}"
            chunk = replace(chunk, document_id=own, start=0, end=len(chunk.text))
            homes[own, 0, chunk.end] = source
        out.append(chunk)
    return tuple(out), texts, homes


def _contradicting(group: Sequence[ScoredChunk]) -> list[ScoredChunk]:
    ordered = sorted(group, key=lambda chunk: (chunk.start, chunk.end))
    wrong: list[ScoredChunk] = []
    for place, left in enumerate(ordered):
        for right in ordered[place + 1 :]:
            if right.start >= left.end:
                break
            size = min(left.end, right.end) - right.start
            shift = right.start - left.start
            if left.text[shift : shift + size] != right.text[:size]:
                wrong += [left, right]
    return wrong


def _packed(
    placed: _Placed, token_budget: int, count: Count, order: Order, gap_tokens: int
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
        gap_tokens=gap_tokens,
    )


def _node(passage: Passage, placed: _Placed) -> NodeWithScore:
    members = [
        (member, placed.sources[passage.document_id, member.start, member.end])
        for member in passage.members
    ]
    if len(members) == 1:
        only = members[0][1]
        if only.shift == 0 and only.text == only.node_text == passage.text:
            return only.given
    return NodeWithScore(node=_merged(passage, members), score=passage.score)


def _merged(passage: Passage, members: Sequence[tuple[Member, Source]]) -> TextNode:
    nodes = [source.node for _, source in members]
    own = passage.document_id.startswith("node:")
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
    shared = {
        key: value
        for key, value in nodes[0].metadata.items()
        if all(node.metadata.get(key) == value for node in nodes)
    }
    hidden = {key for node in nodes for key in node.excluded_llm_metadata_keys}
    unseen = {key for node in nodes for key in node.excluded_embed_metadata_keys}
    ids = "\0".join(node.node_id for node in nodes)
    said = f"{ids}\0{passage.start}\0{passage.end}"
    return TextNode(
        id_="packed-" + hashlib.blake2b(said.encode("utf-8"), digest_size=10).hexdigest(),
        text=passage.text,
        start_char_idx=None if own else passage.start,
        end_char_idx=None if own else passage.end,
        relationships=related,
        metadata={**shared, MEMBERS: [_member(passage, *each) for each in members]},
        excluded_llm_metadata_keys=sorted({*hidden, MEMBERS}),
        excluded_embed_metadata_keys=sorted({*unseen, MEMBERS}),
    )


def _member(passage: Passage, member: Member, source: Source) -> dict[str, Any]:
    """A merged node in the packed one: ``packed.text[start:end]`` begins at its ``node_start``."""
    return {
        "node_id": source.node.node_id,
        "start": member.start - passage.start,
        "end": member.end - passage.start,
        "node_start": source.shift,
        "score": member.score,
    }


def _measure(llm: RecaLLM | None, token_budget: int | None) -> tuple[Count, int]:
    """How tokens are counted, and the budget."""
    if llm is None:
        count, usual = packs.shipped()
        return count, usual if token_budget is None else token_budget
    metadata = llm.metadata
    left = metadata.context_window - metadata.num_output - _WORDING
    usual = max(0, min(packs.DEFAULT_BUDGET, left))
    return llm.count_tokens, usual if token_budget is None else token_budget


_WORDING = 1024  # tokens of the window for wording and question; the synthesizer counts exactly


class RecaLLMContextPacker(BaseNodePostprocessor):
    """Packs retrieved nodes into a token budget; the last postprocessor of a list.

    See ``pack_nodes``. Works in every engine that takes postprocessors.
    """

    token_budget: int | None = Field(
        default=None, description="Tokens at most; None: what the model's window leaves.", ge=0
    )
    order: Order = "document"
    gap_tokens: int = Field(default=GAP_TOKENS, ge=0)

    _llm: RecaLLM | None = PrivateAttr(default=None)
    _documents: Any = PrivateAttr(default=None)

    def __init__(
        self,
        *,
        llm: RecaLLM | None = None,
        documents: Any = None,
        token_budget: int | None = None,
        **options: Any,
    ) -> None:
        """Takes the fields by name.

        Args:
            llm: Who reads the pack: its tokenizer counts. None: the model that ships.
            documents: The original texts, as for ``RecaLLMSynthesizer``.
            token_budget: Tokens at most.
            options: The other fields.
        """
        super().__init__(**{"token_budget": token_budget, **options})
        Originals(documents)
        self._llm, self._documents = llm, documents

    @classmethod
    def class_name(cls) -> str:
        """Returns the name under which the class is serialised."""
        return "RecaLLMContextPacker"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        count, budget = _measure(self._llm, self.token_budget)
        return pack_nodes(
            nodes,
            token_budget=budget,
            count=count,
            documents=self._documents,
            order=self.order,
            gap_tokens=self.gap_tokens,
        )


class PackedContextRetriever(BaseRetriever):
    """Fetches nodes from another retriever, wider and wider, until a token budget is full.

    Args:
        retriever: A LlamaIndex retriever with ``similarity_top_k``, another one (asked once), or a
            ``CorpusIndex`` of the core.
        llm: Who reads the pack: its tokenizer counts. None: the model that ships.
        documents: The original texts, as for ``RecaLLMSynthesizer``.
        token_budget: Tokens at most; None: what the model's window leaves.
        order: As in ``recallm_core.packing.pack``.
        gap_tokens: Gaps of at most so many tokens between two nodes are filled from the document.
        max_nodes: Nodes fetched at most.
        callback_manager: As in every retriever.
    """

    def __init__(
        self,
        retriever: BaseRetriever | recallm.CorpusIndex,
        *,
        llm: RecaLLM | None = None,
        documents: Any = None,
        token_budget: int | None = None,
        order: Order = "document",
        gap_tokens: int = GAP_TOKENS,
        max_nodes: int = _MOST,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        if not isinstance(retriever, BaseRetriever) and not hasattr(retriever, "pack_report"):
            raise TypeError(
                f"retriever must be a LlamaIndex retriever or a CorpusIndex, got "
                f"{type(retriever).__name__}; give index.as_retriever()"
            )
        if token_budget is not None and token_budget < 0:
            raise ValueError(f"token_budget must not be negative, got {token_budget}")
        if max_nodes < 1:
            raise ValueError(f"max_nodes must be at least 1, got {max_nodes}")
        Originals(documents)
        super().__init__(callback_manager=callback_manager)
        self._base = retriever
        self._llm, self._documents, self._token_budget = llm, documents, token_budget
        self._order: Order = order
        self._gap_tokens, self._max_nodes = gap_tokens, max_nodes

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        count, budget = _measure(self._llm, self._token_budget)
        if not isinstance(self._base, BaseRetriever):
            return self._from_corpus(query_bundle.query_str, count, budget)
        wanted = min(_FIRST, self._max_nodes)
        while True:
            # not base.retrieve, which tells tracers of a second retrieval
            base = self._wide(wanted)
            found = base._retrieve(query_bundle)
            nodes = base._handle_recursive_retrieval(query_bundle, found)
            if self._enough(nodes, wanted, count, budget):
                return self._pack(nodes, count, budget)
            wanted = min(2 * wanted, self._max_nodes)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        count, budget = await asyncio.to_thread(_measure, self._llm, self._token_budget)
        if not isinstance(self._base, BaseRetriever):
            question = query_bundle.query_str
            return await asyncio.to_thread(self._from_corpus, question, count, budget)
        wanted = min(_FIRST, self._max_nodes)
        while True:
            base = self._wide(wanted)
            found = await base._aretrieve(query_bundle)
            nodes = await base._ahandle_recursive_retrieval(query_bundle, found)
            if await asyncio.to_thread(self._enough, nodes, wanted, count, budget):
                return await asyncio.to_thread(self._pack, nodes, count, budget)
            wanted = min(2 * wanted, self._max_nodes)

    def _wide(self, wanted: int) -> BaseRetriever:
        """The base retriever for so many nodes: a copy, as others may use it at the same time."""
        base = self._base
        assert isinstance(base, BaseRetriever)
        if not hasattr(base, "similarity_top_k"):
            return base
        wide: Any = copy.copy(base)
        wide.similarity_top_k = wanted
        found: BaseRetriever = wide
        return found

    def _enough(
        self, nodes: Sequence[NodeWithScore], wanted: int, count: Count, budget: int
    ) -> bool:
        if len(nodes) < wanted or wanted >= self._max_nodes:
            return True
        if not hasattr(self._base, "similarity_top_k"):
            return True
        return sum(count(sources.read(each).text) for each in nodes) >= budget

    def _pack(
        self, nodes: Sequence[NodeWithScore], count: Count, budget: int
    ) -> list[NodeWithScore]:
        return pack_nodes(
            nodes,
            token_budget=budget,
            count=count,
            documents=self._documents,
            order=self._order,
            gap_tokens=self._gap_tokens,
        )

    def _from_corpus(self, question: str, count: Count, budget: int) -> list[NodeWithScore]:
        index: Any = self._base
        report = index.pack_report(
            question, budget, count, overhead=2 * DEFAULT_OVERHEAD, order=self._order
        )
        return [_corpus_node(passage, index.documents) for passage in report.passages]


def _corpus_node(passage: Passage, documents: Mapping[str, recallm.Document]) -> NodeWithScore:
    document = documents[passage.document_id]
    metadata = {key: value for key, value in document.metadata.items() if _plain(value)}
    if passage.title:
        metadata.setdefault("title", passage.title)
    if document.source_map is not None:
        page = document.page_at(passage.start)
        if page is not None:
            metadata.setdefault("page_label", str(page))
    said = f"{passage.document_id}\0{passage.start}\0{passage.end}"
    node = TextNode(
        id_="packed-" + hashlib.blake2b(said.encode("utf-8"), digest_size=10).hexdigest(),
        text=passage.text,
        start_char_idx=passage.start,
        end_char_idx=passage.end,
        relationships={
            NodeRelationship.SOURCE: RelatedNodeInfo(node_id=passage.document_id),
        },
        metadata=metadata,
    )
    return NodeWithScore(node=node, score=passage.score)


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)
