"""Packed context for engines: a postprocessor, and a retriever that fetches until it is full."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping, Sequence
from typing import Any

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
from llama_index_recallm import sources
from llama_index_recallm.anchors import nodes_of
from llama_index_recallm.cited_llm import AnsweringLLM
from llama_index_recallm.packing import GAP_TOKENS, pack_nodes
from llama_index_recallm.sources import Originals
from recallm_core import Passage
from recallm_core.adapting import (
    DEFAULT_OVERHEAD,
    Count,
    Order,
    budget_within,
    shipped,
    stable_id,
)

_FIRST = 32  # nodes asked for at first
_MOST = 4096
_WORDING = 1024  # tokens of the context for wording and question; the synthesizer counts exactly


def _measure(llm: AnsweringLLM | None, token_budget: int | None) -> tuple[Count, int]:
    """How tokens are counted, and the budget."""
    if llm is None:
        count, usual = shipped()
        return count, usual if token_budget is None else token_budget
    metadata = llm.metadata
    room = metadata.context_window - metadata.num_output - _WORDING
    usual = budget_within(room)
    return llm.count_tokens, usual if token_budget is None else token_budget


class RecaLLMContextPacker(BaseNodePostprocessor):
    """Packs retrieved nodes into a token budget; the last postprocessor of a list.

    See ``pack_nodes``. Works in every engine that takes postprocessors.
    """

    token_budget: int | None = Field(
        default=None, description="Tokens at most; None: what the model's context leaves.", ge=0
    )
    order: Order = "document"
    gap_tokens: int = Field(default=GAP_TOKENS, ge=0)
    expand_top: int | None = Field(
        default=None, description="How many of the best nodes get those beside them.", ge=0
    )

    _llm: AnsweringLLM | None = PrivateAttr(default=None)
    _documents: Any = PrivateAttr(default=None)
    _docstore: Any = PrivateAttr(default=None)

    def __init__(
        self,
        *,
        llm: AnsweringLLM | None = None,
        documents: Any = None,
        docstore: Any = None,
        token_budget: int | None = None,
        **options: Any,
    ) -> None:
        """Takes the fields by name.

        Args:
            llm: Who reads the pack: its tokenizer counts. None: the model that ships.
            documents: The original texts, as for ``RecaLLMSynthesizer``.
            docstore: Where the nodes beside a node are found, as for ``pack_nodes``.
            token_budget: Tokens at most.
            options: The other fields.
        """
        super().__init__(**{"token_budget": token_budget, **options})
        Originals(documents)
        self._llm, self._documents = llm, documents
        self._docstore = nodes_of(docstore, documents)

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
            docstore=self._docstore,
            order=self.order,
            gap_tokens=self.gap_tokens,
            expand_top=self.expand_top,
        )


class PackedContextRetriever(BaseRetriever):
    """Fetches nodes from another retriever, wider and wider, until a token budget is full.

    Args:
        retriever: A LlamaIndex retriever with ``similarity_top_k``, another one (asked once), or a
            ``CorpusIndex`` of the core.
        llm: Who reads the pack: its tokenizer counts. None: the model that ships.
        documents: The original texts, as for ``RecaLLMSynthesizer``.
        docstore: Where the nodes beside a node are found, as for ``pack_nodes``.
        token_budget: Tokens at most; None: what the model's context leaves.
        order: As in ``recallm_core.packing.pack``.
        gap_tokens: Gaps of at most so many tokens between two nodes are filled from the document.
        max_nodes: Nodes fetched at most.
        callback_manager: As in every retriever.
    """

    def __init__(
        self,
        retriever: BaseRetriever | recallm.CorpusIndex,
        *,
        llm: AnsweringLLM | None = None,
        documents: Any = None,
        docstore: Any = None,
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
        self._docstore = nodes_of(docstore, documents)
        self._order: Order = order
        self._gap_tokens, self._max_nodes = gap_tokens, max_nodes

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        count, budget = _measure(self._llm, self._token_budget)
        if not isinstance(self._base, BaseRetriever):
            return self._from_corpus(query_bundle.query_str, count, budget)
        count_wanted = min(_FIRST, self._max_nodes)
        while True:
            # not base.retrieve, which tells tracers of a second retrieval
            base = self._wide(count_wanted)
            hits = base._retrieve(query_bundle)
            nodes = base._handle_recursive_retrieval(query_bundle, hits)
            if self._enough(nodes, count_wanted, count, budget):
                return self._pack(nodes, count, budget)
            count_wanted = min(2 * count_wanted, self._max_nodes)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        count, budget = await asyncio.to_thread(_measure, self._llm, self._token_budget)
        if not isinstance(self._base, BaseRetriever):
            question = query_bundle.query_str
            return await asyncio.to_thread(self._from_corpus, question, count, budget)
        count_wanted = min(_FIRST, self._max_nodes)
        while True:
            base = self._wide(count_wanted)
            hits = await base._aretrieve(query_bundle)
            nodes = await base._ahandle_recursive_retrieval(query_bundle, hits)
            if await asyncio.to_thread(self._enough, nodes, count_wanted, count, budget):
                return await asyncio.to_thread(self._pack, nodes, count, budget)
            count_wanted = min(2 * count_wanted, self._max_nodes)

    def _wide(self, number: int) -> BaseRetriever:
        """The base retriever for so many nodes: a copy, as others may use it at the same time."""
        base = self._base
        assert isinstance(base, BaseRetriever)
        if not hasattr(base, "similarity_top_k"):
            return base
        wide: Any = copy.copy(base)
        wide.similarity_top_k = number
        retriever: BaseRetriever = wide
        return retriever

    def _enough(
        self, nodes: Sequence[NodeWithScore], number: int, count: Count, budget: int
    ) -> bool:
        if len(nodes) < number or number >= self._max_nodes:
            return True
        if not hasattr(self._base, "similarity_top_k"):
            return True
        return sum(count(sources.read(node).text) for node in nodes) >= budget

    def _pack(
        self, nodes: Sequence[NodeWithScore], count: Count, budget: int
    ) -> list[NodeWithScore]:
        return pack_nodes(
            nodes,
            token_budget=budget,
            count=count,
            documents=self._documents,
            docstore=self._docstore,
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
    node = TextNode(
        id_=stable_id("packed", passage.document_id, passage.start, passage.end),
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
