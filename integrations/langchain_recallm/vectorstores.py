"""RecallFAISS: a vector store that can delete, tells true similarities and needs no pickle."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

import recallm_core as recallm
from langchain_recallm.embeddings import RecallEmbeddings, as_core_embedder
from langchain_recallm.sources import title_of

if TYPE_CHECKING:
    from recallm_core.retrieval import CorpusIndex

Filter = Mapping[str, Any] | Callable[[Mapping[str, Any]], bool]


class RecallFAISS(VectorStore):
    """A thin cover over ``CorpusIndex``: long documents are chunked inside, whole ones come back.

    ```python
    store = RecallFAISS(embeddings)
    store.add_documents(documents)
    store.save_local("index")
    store = RecallFAISS.load_local("index", embeddings)
    ```

    Args:
        embedding: Any LangChain embeddings; None: the table that ships with the library.
        index: An index to cover, instead of a new one.
    """

    def __init__(
        self, embedding: Embeddings | None = None, *, index: CorpusIndex | None = None
    ) -> None:
        from recallm_core.retrieval import CorpusIndex

        self.index = CorpusIndex(as_core_embedder(embedding)) if index is None else index
        self._embedding = embedding or RecallEmbeddings(self.index.embedder)

    @property
    def embeddings(self) -> Embeddings:
        """What makes the vectors."""
        return self._embedding

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Adds texts; those whose id is there already are replaced. Returns their ids."""
        given = list(texts)
        for name, values in (("metadatas", metadatas), ("ids", ids)):
            if values is not None and len(values) != len(given):
                raise ValueError(f"got {len(given)} texts but {len(values)} {name}")
        rows = zip(given, metadatas or repeat({}), ids or repeat(None), strict=False)
        documents = [
            Document(id=name, page_content=text, metadata=dict(metadata))
            for text, metadata, name in rows
        ]
        return self.add_documents(documents)

    def add_documents(
        self, documents: list[Document], *, ids: Sequence[str | None] | None = None, **kwargs: Any
    ) -> list[str]:
        """Adds documents; those whose id is there already are replaced. Returns their ids."""
        names = list(ids) if ids is not None else [document.id for document in documents]
        if len(names) != len(documents):
            raise ValueError(f"got {len(documents)} documents but {len(names)} ids")
        fresh: dict[str, recallm.Document] = {}
        out = []
        for document, name in zip(documents, names, strict=True):
            chosen = name or document.id or str(uuid.uuid4())
            title = title_of(document.metadata)
            fresh[chosen] = recallm.Document(
                document.page_content, chosen, title, document.metadata
            )
            out.append(chosen)
        self.index.add(fresh.values())
        return out

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        """Removes documents; ids that aren't there don't matter. None removes all."""
        known = self.index.documents
        wanted = list(known) if ids is None else [name for name in set(ids) if name in known]
        if wanted:
            self.index.delete(wanted)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Returns the documents with some ids; ids that aren't there are left out."""
        known = self.index.documents
        return [self._document(known[name]) for name in ids if name in known]

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The same; nothing waits for anything."""
        return self.get_by_ids(ids)

    @staticmethod
    def _document(found: recallm.Document) -> Document:
        return Document(id=found.id, page_content=found.text, metadata=dict(found.metadata))

    def similarity_search(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Filter | None = None,  # noqa: A002
        **kwargs: Any,
    ) -> list[Document]:
        """Returns the documents nearest to a question, best first."""
        return [found for found, _ in self.similarity_search_with_score(query, k, filter=filter)]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Filter | None = None,  # noqa: A002
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """Returns documents with their cosine similarity, that of their nearest chunk.

        Args:
            query: Anything.
            k: How many documents.
            filter: Values that metadata must have, or a function of the metadata.
            kwargs: Not used.
        """
        total = self.index.stats().chunks
        depth = min(2 * k, total)
        while True:
            hits = self.index.search(query, depth, mode="dense", where=filter)
            scores: dict[str, float] = {}
            for hit in hits:
                scores.setdefault(hit.document_id, hit.score)
            if len(scores) >= k or len(hits) < depth or depth >= total:
                break
            depth = min(4 * depth, total)
        known = self.index.documents
        best = list(scores.items())[:k]
        return [(self._document(known[name]), score) for name, score in best]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda similarity: min(1.0, max(0.0, similarity))

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Returns a store of some texts."""
        store = cls(embedding)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def save_local(self, folder: str | Path) -> None:
        """Writes the store into a folder: plain arrays and JSON, checked when they are read."""
        self.index.save(folder)

    @classmethod
    def load_local(cls, folder: str | Path, embedding: Embeddings | None = None) -> Self:
        """Returns the store saved in a folder.

        Raises:
            CorpusIndexError: The folder holds no index, or one of another embedder.
        """
        from recallm_core.retrieval import CorpusIndex

        index = CorpusIndex.open(folder, as_core_embedder(embedding))
        return cls(embedding, index=index)
