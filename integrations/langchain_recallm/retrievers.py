"""Packed context from any vector store, retriever or index, within a token budget."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
    Callbacks,
)
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from pydantic import ConfigDict, Field, field_validator

from langchain_recallm.packing import Budget, pack_documents
from langchain_recallm.sources import PACKED, from_core
from recallm_core import Pack, Passage, pack
from recallm_core.adapting import Order, best_passages, token_counter


class PackedContextRetriever(BaseRetriever):
    """Fills a token budget with the most useful text, not with the top k.

    ```python
    retriever = PackedContextRetriever(source=vector_store, max_tokens=8000, count=model)
    ```

    Neighbouring chunks of one source are merged, duplicates dropped, and the texts stay exact
    slices. ``metadata["recallm"]`` says what a document was merged from.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    source: Any
    """A vector store, a retriever, a ``CorpusIndex`` or a ``RecallFAISS``."""
    max_tokens: int = 8192
    """The budget, headers included."""
    count: Any = Field(default=None, exclude=True, repr=False)
    """Who counts: ``ChatRecaLLM``, ``RecaLLM``, a function; None: the shipped model's tokenizer."""
    k: int | None = None
    """Documents at most; None: as many as fit."""
    fetch_k: int = 50
    """Candidates asked of a vector store or an index."""
    texts: Any = Field(default=None, exclude=True, repr=False)
    """Full texts by source name (or a function), to verify offsets and join neighbours."""
    source_key: str = "source"
    """The metadata key that names a chunk's source."""
    order: Order = "document"
    """``document``: as in the document, best documents first; ``relevance``; ``edges``."""

    @field_validator("source")
    @classmethod
    def _known_source(cls, source: Any) -> Any:
        index = _index_of(source)
        if index is None and not isinstance(source, VectorStore | BaseRetriever):
            raise ValueError(
                "source must be a vector store, a retriever or a CorpusIndex, got "
                f"{type(source).__name__}"
            )
        return source

    @field_validator("k", "fetch_k", "max_tokens")
    @classmethod
    def _not_negative(cls, value: int | None) -> int | None:
        if value is not None and value < 0:
            raise ValueError(f"k, fetch_k and max_tokens can't be negative, got {value}")
        return value

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        budget = self._budget(k)
        index = _index_of(self.source)
        if index is not None:
            return _from_index(index, query, budget, self.fetch_k)
        source = self.source
        if isinstance(source, VectorStore):
            candidates = source.similarity_search(query, k=self._candidates(budget))
        else:
            candidates = source.invoke(query, config={"callbacks": run_manager.get_child()})
        return self._pack(candidates, budget)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        budget = await asyncio.to_thread(self._budget, k)
        index = _index_of(self.source)
        if index is not None:
            return await asyncio.to_thread(_from_index, index, query, budget, self.fetch_k)
        source = self.source
        if isinstance(source, VectorStore):
            candidates = await source.asimilarity_search(query, k=self._candidates(budget))
        else:
            candidates = await source.ainvoke(query, config={"callbacks": run_manager.get_child()})
        return await asyncio.to_thread(self._pack, candidates, budget)

    def _budget(self, k: int | None) -> Budget:
        return Budget(
            self.max_tokens,
            token_counter(self.count),
            order=self.order,
            k=self._not_negative(self.k if k is None else k),
        )

    def _candidates(self, budget: Budget) -> int:
        return max(self.fetch_k, budget.k or 0)

    def _pack(self, candidates: Sequence[Document], budget: Budget) -> list[Document]:
        return pack_documents(candidates, budget, texts=self.texts, source_key=self.source_key)


class PackingCompressor(BaseDocumentCompressor):
    """The packer for ``ContextualCompressionRetriever`` and other pipelines of documents.

    The documents are taken to come best first.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    max_tokens: int = 8192
    """The budget, headers included."""
    count: Any = Field(default=None, exclude=True, repr=False)
    """Who counts, as in ``PackedContextRetriever``."""
    k: int | None = None
    """Documents at most."""
    texts: Any = Field(default=None, exclude=True, repr=False)
    """Full texts by source name, as in ``PackedContextRetriever``."""
    source_key: str = "source"
    """The metadata key that names a chunk's source."""
    order: Order = "document"
    """As in ``PackedContextRetriever``."""

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks = None
    ) -> list[Document]:
        """Returns the best documents that fit the budget, neighbours merged."""
        budget = Budget(self.max_tokens, token_counter(self.count), order=self.order, k=self.k)
        return pack_documents(documents, budget, texts=self.texts, source_key=self.source_key)


def _index_of(source: Any) -> Any:
    """The ``CorpusIndex`` that a source is or covers; None for any other source."""
    index = getattr(source, "index", source)
    return index if hasattr(index, "pack_report") else None


def _from_index(index: Any, query: str, budget: Budget, fetch_k: int) -> list[Document]:
    """The passages of an index; with ``k``, the best so many, so that it has to rank."""
    if budget.k is None:
        report: Pack = index.pack_report(
            query, budget.tokens, budget.count, overhead=budget.overhead, order=budget.order
        )
        passages: Sequence[Passage] = report.passages
    else:
        chunks = index.search(query, max(fetch_k, 4 * budget.k))
        packed = pack(
            chunks,
            index.documents,
            token_budget=budget.tokens,
            count=budget.count,
            overhead=budget.overhead,
            order=budget.order,
        )
        passages = best_passages(packed.passages, budget.k)
    return [_passage_document(index, passage) for passage in passages]


def _passage_document(index: Any, passage: Passage) -> Document:
    whole = from_core(index.documents[passage.document_id])
    record = {
        "source": passage.document_id,
        "start": passage.start,
        "end": passage.end,
        "score": passage.score,
    }
    metadata = {**whole.metadata, "start_index": passage.start, PACKED: record}
    entire = passage.text == whole.page_content
    name = passage.document_id if entire else f"{passage.document_id}#{passage.start}"
    return Document(id=name, page_content=passage.text, metadata=metadata)
