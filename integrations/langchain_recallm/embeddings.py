"""Embeddings both ways: the library's in LangChain, LangChain's in an index."""

from __future__ import annotations

from langchain_core.embeddings import Embeddings

from recallm_core import Embedder, FunctionEmbedder
from recallm_core.adapting import as_embedder


class RecallEmbeddings(Embeddings):
    """An embedder of the core as LangChain embeddings.

    Args:
        embedder: One of the core, or the name of a ``sentence-transformers`` model; None: the table
            that ships with the library, which needs no download.
    """

    def __init__(self, embedder: Embedder | str | None = None) -> None:
        self.embedder = as_embedder(embedder)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Returns a unit vector for each text."""
        vectors: list[list[float]] = self.embedder.encode_documents(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Returns the unit vector of a question."""
        vector: list[float] = self.embedder.encode_query(text).tolist()
        return vector


def as_core_embedder(embeddings: Embeddings | None, *, name: str | None = None) -> Embedder | None:
    """Returns LangChain embeddings as an embedder for a ``CorpusIndex``.

    Args:
        embeddings: Any; None stays None, which is the embedder that ships.
        name: Says which model this is: a saved index opens only with an embedder of the same name.
            None: what the embeddings say of themselves.
    """
    if embeddings is None:
        return None
    if isinstance(embeddings, RecallEmbeddings):
        return embeddings.embedder
    return FunctionEmbedder(
        embeddings.embed_documents, query=embeddings.embed_query, name=name or _name(embeddings)
    )


def _name(embeddings: Embeddings) -> str:
    for key in ("model", "model_name", "model_id", "deployment"):
        name = getattr(embeddings, key, None)
        if isinstance(name, str) and name:
            return f"{type(embeddings).__name__}:{name}"
    return type(embeddings).__name__
