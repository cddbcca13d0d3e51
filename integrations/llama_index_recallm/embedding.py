"""The embedder that ships with the library, as a LlamaIndex embedding: no key, no download."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr

from recallm_core import Embedder
from recallm_core.adapting import as_embedder


class RecaLLMEmbedding(BaseEmbedding):
    """Vectors from a static table of 7 MB that is part of the package; runs on any machine.

    ```python
    index = VectorStoreIndex.from_documents(documents, embed_model=RecaLLMEmbedding())
    ```

    Args:
        embedder: Another embedder of the core; None: the one that ships.
        options: Fields of LlamaIndex embeddings, such as ``embed_batch_size``.
    """

    _embedder: Any = PrivateAttr()

    def __init__(self, embedder: Embedder | str | None = None, **options: Any) -> None:
        core_embedder = as_embedder(embedder)
        options.setdefault("model_name", core_embedder.fingerprint)
        options.setdefault("embed_batch_size", 512)
        super().__init__(**options)
        self._embedder = core_embedder

    @classmethod
    def class_name(cls) -> str:
        """Returns the name under which the class is serialised."""
        return "RecaLLMEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self._embedder.encode_query(query).tolist()
        return vector

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._embedder.encode_documents(texts).tolist()
        return vectors
