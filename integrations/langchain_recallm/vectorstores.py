"""RecallFAISS: a vector store that can delete, tells true similarities and needs no pickle."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

import recallm_core as recallm
from langchain_recallm.embeddings import RecallEmbeddings, as_core_embedder
from langchain_recallm.sources import title_of
from recallm_core.adapting import check_text

if TYPE_CHECKING:
    from recallm_core import CorpusIndex, ScoredChunk
    from recallm_core.adapting import Floats

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
        from recallm_core import CorpusIndex

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
        return self.add_documents(_rows(list(texts), metadatas, ids))

    def add_documents(
        self, documents: list[Document], *, ids: Sequence[str | None] | None = None, **kwargs: Any
    ) -> list[str]:
        """Adds documents; those whose id is there already are replaced. Returns their ids."""
        names = list(ids) if ids is not None else [document.id for document in documents]
        if len(names) != len(documents):
            raise ValueError(f"got {len(documents)} documents but {len(names)} ids")
        fresh = _core_documents(documents, names)
        self.index.add({document.id: document for document in fresh}.values())
        return [document.id for document in fresh]

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        """Removes documents; ids that aren't there don't matter. None removes all."""
        known = self.index.documents
        present = list(known) if ids is None else [name for name in set(ids) if name in known]
        if present:
            self.index.delete(present)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Returns the documents with some ids; ids that aren't there are left out."""
        known = self.index.documents
        return [self._document(known[name]) for name in ids if name in known]

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The same; nothing waits for anything."""
        return self.get_by_ids(ids)

    @staticmethod
    def _document(document: recallm.Document) -> Document:
        return Document(
            id=document.id, page_content=document.text, metadata=dict(document.metadata)
        )

    # searching

    def similarity_search(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Filter | None = None,  # noqa: A002
        **kwargs: Any,
    ) -> list[Document]:
        """Returns the documents nearest to a question, best first; see the next method."""
        scored = self.similarity_search_with_score(query, k, filter=filter, **kwargs)
        return [document for document, _ in scored]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Filter | None = None,  # noqa: A002
        score_threshold: float | None = None,
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """Returns documents with their cosine similarity, that of their nearest chunk.

        Args:
            query: Anything.
            k: How many documents.
            filter: Values that metadata must have, or a function of the metadata.
            score_threshold: Only documents that are at least so similar.
            kwargs: Not used: all of the index is searched, whatever ``fetch_k`` is.
        """
        vector = self._vector(query)
        nearest = self._nearest(vector, k, filter)
        threshold = -1.0 if score_threshold is None else score_threshold
        return [(document, score) for document, score in nearest if score >= threshold]

    def similarity_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        *,
        filter: Filter | None = None,  # noqa: A002
        **kwargs: Any,
    ) -> list[Document]:
        """Returns the documents nearest to a vector, best first."""
        scored = self.similarity_search_with_score_by_vector(embedding, k, filter=filter)
        return [document for document, _ in scored]

    def similarity_search_with_score_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        *,
        filter: Filter | None = None,  # noqa: A002
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """Returns the documents nearest to a vector with their cosine similarity."""
        return self._nearest(np.array(embedding, np.float32), k, filter)

    def _vector(self, query: str) -> Floats:
        check_text(query, "a question")
        return self.index.embedder.encode_query(query)

    def _nearest(
        self, vector: Floats, k: int, where: Filter | None
    ) -> list[tuple[Document, float]]:
        """What is nearest to a vector; nothing to one of zeros, which has no direction."""
        if not vector.any():
            return []
        return self._scored_documents(self.index.search_documents(vector, k, where=where))

    def _scored_documents(self, hits: Sequence[ScoredChunk]) -> list[tuple[Document, float]]:
        """The documents of some hits; one that was deleted meanwhile is left out."""
        known = self.index.documents
        return [
            (self._document(known[hit.document_id]), hit.score)
            for hit in hits
            if hit.document_id in known
        ]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,  # noqa: A002
        **kwargs: Any,
    ) -> list[Document]:
        """Returns near documents that differ from one another.

        Args:
            query: Anything.
            k: How many documents.
            fetch_k: Among how many of the nearest they are chosen.
            lambda_mult: 1: by nearness alone; 0: the nearest one, then whatever differs most.
            filter: Values that metadata must have, or a function of the metadata.
            kwargs: Not used.
        """
        vector = self._vector(query)
        return self._diverse(vector, k, fetch_k, lambda_mult, filter)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,  # noqa: A002
        **kwargs: Any,
    ) -> list[Document]:
        """Returns documents near a vector that differ from one another."""
        vector = np.array(embedding, np.float32)
        return self._diverse(vector, k, fetch_k, lambda_mult, filter)

    def _diverse(
        self, vector: Floats, k: int, fetch_k: int, relevance: float, where: Filter | None
    ) -> list[Document]:
        if not vector.any():
            return []
        hits = self.index.search_diverse(
            vector, k, fetch_k=fetch_k, relevance=relevance, where=where
        )
        return [document for document, _ in self._scored_documents(hits)]

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

    @classmethod
    def from_embeddings(
        cls,
        text_embeddings: Iterable[tuple[str, list[float]]],
        embedding: Embeddings | None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Returns a store of texts whose vectors were made before; none is cut into chunks."""
        store = cls(embedding)
        store.add_embeddings(text_embeddings, metadatas, ids=ids)
        return store

    def add_embeddings(
        self,
        text_embeddings: Iterable[tuple[str, list[float]]],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Adds texts with vectors of this store's embeddings. Returns their ids."""
        pairs = list(text_embeddings)
        documents = _rows([text for text, _ in pairs], metadatas, ids)
        fresh = _core_documents(documents, [document.id for document in documents])
        vectors = np.array([vector for _, vector in pairs], np.float32)
        if pairs:
            rows = {document.id: vector for document, vector in zip(fresh, vectors, strict=True)}
            last = {document.id: document for document in fresh}
            self.index.add_vectors([*last.values()], np.stack([rows[name] for name in last]))
        return [document.id for document in fresh]

    def merge_from(self, target: RecallFAISS) -> None:
        """Adds the documents of another store; those whose id is there already are replaced."""
        self.index.add(target.index.documents.values())

    # files

    def save_local(self, folder_path: str | Path, index_name: str = "index") -> None:
        """Writes the store into a folder: plain arrays and JSON, checked when they are read.

        Args:
            folder_path: The folder.
            index_name: Another name than ``index`` is a folder in it, for several stores.
        """
        self.index.save(_place(folder_path, index_name))

    @classmethod
    def load_local(
        cls,
        folder_path: str | Path,
        embeddings: Embeddings | None = None,
        index_name: str = "index",
        *,
        allow_dangerous_deserialization: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Returns the store saved in a folder.

        Args:
            folder_path: The folder.
            embeddings: Those that the store was made with.
            index_name: As for ``save_local``.
            allow_dangerous_deserialization: Of no effect: nothing in the folder is ever run.
            kwargs: Not used.

        Raises:
            CorpusIndexError: The folder holds no index, or one of another embedder.
        """
        from recallm_core import CorpusIndex

        index = CorpusIndex.open(_place(folder_path, index_name), as_core_embedder(embeddings))
        return cls(embeddings, index=index)


def _place(folder: str | Path, name: str) -> Path:
    """Where a store of some name is kept.

    Raises:
        ValueError: The name is no plain one.
    """
    if name in ("", ".", "..") or Path(name).name != name:
        raise ValueError(f"index_name must be a plain name such as 'index', got {name!r}")
    return Path(folder) if name == "index" else Path(folder) / name


def _rows(
    texts: Sequence[str], metadatas: Sequence[dict[str, Any]] | None, ids: Sequence[str] | None
) -> list[Document]:
    """Texts with their metadata and ids as documents.

    Raises:
        ValueError: There aren't as many of one as of the other.
    """
    for name, values in (("metadatas", metadatas), ("ids", ids)):
        if values is not None and len(values) != len(texts):
            raise ValueError(f"got {len(texts)} texts but {len(values)} {name}")
    rows = zip(texts, metadatas or repeat({}), ids or repeat(None), strict=False)
    return [
        Document(id=name, page_content=text, metadata=dict(metadata))
        for text, metadata, name in rows
    ]


def _core_documents(
    documents: Sequence[Document], names: Sequence[str | None]
) -> list[recallm.Document]:
    """Documents as the core's, each under the name given, its own id, or a new one."""
    return [
        recallm.Document(
            document.page_content,
            name or document.id or str(uuid.uuid4()),
            title_of(document.metadata),
            document.metadata,
        )
        for document, name in zip(documents, names, strict=True)
    ]
