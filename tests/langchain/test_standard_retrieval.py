"""LangChain's own suites for retrievers, vector stores and embeddings."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_tests.integration_tests import (
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.integration_tests.embeddings import EmbeddingsIntegrationTests
from langchain_tests.unit_tests.embeddings import EmbeddingsUnitTests

from langchain_recallm import PackedContextRetriever, RecallEmbeddings, RecallFAISS

TOPICS = ("ferries", "libraries", "parental leave", "kettles", "on-call duty")


def documents() -> list[Document]:
    return [Document(f"Some notes about {topic}.", id=topic) for topic in TOPICS]


class _Retriever(RetrieversIntegrationTests):
    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return PackedContextRetriever

    @property
    def retriever_query_example(self) -> str:
        return "what about kettles?"


class TestOverAVectorStore(_Retriever):
    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
        store.add_documents(documents())
        return {"source": store, "count": len, "max_tokens": 1000}


class TestOverARetriever(_Retriever):
    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
        store.add_documents(documents())
        return {"source": store.as_retriever(), "count": len, "max_tokens": 1000}


class TestOverAnIndex(_Retriever):
    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        store = RecallFAISS()
        store.add_documents(documents())
        return {"source": store.index, "count": len, "max_tokens": 1000}


class TestRecallFAISS(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self) -> VectorStore:
        return RecallFAISS(self.get_embeddings())


class TestRecallEmbeddingsUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[RecallEmbeddings]:
        return RecallEmbeddings


class TestRecallEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[RecallEmbeddings]:
        return RecallEmbeddings
