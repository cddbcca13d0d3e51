"""A vector store over ``CorpusIndex``: true similarities, deletes, and files that run no code."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.storage.docstore.utils import doc_to_json, json_to_doc
from llama_index.core.vector_stores.simple import (
    DEFAULT_VECTOR_STORE,
    NAMESPACE_SEP,
    SimpleVectorStore,
)
from llama_index.core.vector_stores.types import (
    DEFAULT_PERSIST_DIR,
    DEFAULT_PERSIST_FNAME,
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

import recallm_core as recallm
from recallm_core.adapting import GivenVectors
from recallm_core.errors import CorpusIndexError

_MODES = (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR)
_PREFETCH = 4  # times as many candidates as nodes that are asked for, as LlamaIndex's own stores
_SUFFIX = f"{NAMESPACE_SEP}{DEFAULT_PERSIST_FNAME}"

Vectors = npt.NDArray[np.float32]
Stored = Mapping[str, Any]


class RecaLLMVectorStore(BasePydanticVectorStore):
    """Nodes with their vectors in a ``CorpusIndex``; a score is the cosine, 1 for an exact match.

    ```python
    store = RecaLLMVectorStore()
    storage = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex.from_documents(documents, storage_context=storage, embed_model=...)
    store.persist("vectors")
    index = VectorStoreIndex.from_vector_store(
        RecaLLMVectorStore.from_persist_path("vectors"), embed_model=...
    )
    ```

    Nodes are kept in the store, so it works without a docstore. A node that is added again replaces
    the one with its id. Vectors are kept as ``float16``, so cosines are true to three decimals.
    Searches may run in several threads while another one changes the store.
    """

    stores_text: bool = True
    is_embedding_query: bool = True
    flat_metadata: bool = False

    _index: recallm.CorpusIndex | None = PrivateAttr(default=None)
    _changing: Any = PrivateAttr(default_factory=threading.Lock)

    @classmethod
    def class_name(cls) -> str:
        """Returns the name under which the class is serialised."""
        return "RecaLLMVectorStore"

    @property
    def client(self) -> Any:
        """The ``CorpusIndex``, or None while the store is empty."""
        return self._index

    # changing

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Adds nodes that have embeddings; returns their ids.

        Raises:
            ValueError: A node has no embedding, one of another dimension, one with values that
                aren't numbers, or metadata that JSON doesn't know; then none is added.
            DocumentError: A text can't be UTF-8; then none is added.
        """
        by_id = {node.node_id: node for node in nodes}
        documents = [_document(node) for node in by_id.values()]
        with self._changing:
            vectors = _vectors([*by_id.values()], self._dimension())
            if documents:
                if self._index is None or not len(self._index.documents):
                    self._index = recallm.CorpusIndex(GivenVectors(vectors.shape[1]))
                self._index.add_vectors(documents, vectors)
        return [node.node_id for node in nodes]

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """``add`` without blocking the event loop."""
        return await asyncio.to_thread(self.add, nodes)

    def _dimension(self) -> int | None:
        """Numbers in a vector; None while there is none."""
        index = self._index
        return index.embedder.dim if index is not None and len(index.documents) else None

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Removes every node of a document."""
        self._remove(lambda stored: stored["ref_doc_id"] == ref_doc_id)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """``delete`` without blocking the event loop."""
        await asyncio.to_thread(self.delete, ref_doc_id)

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Removes the nodes with some ids that pass some filters; without either, none."""
        if node_ids is not None or filters is not None:
            self._remove(_where(node_ids, None, filters))

    def _remove(self, gone: Callable[[Stored], bool]) -> None:
        with self._changing:
            if self._index is not None:
                self._index.delete(self._index.matching(gone))

    def clear(self) -> None:
        """Removes everything."""
        with self._changing:
            self._index = None

    # reading

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Returns the nodes with some ids that pass some filters."""
        index = self._index
        if index is None:
            return []
        if filters is None and node_ids is not None:
            return self._nodes_of(index, node_ids)
        return self._nodes_of(index, index.matching(_where(node_ids, None, filters)))

    @staticmethod
    def _nodes_of(index: recallm.CorpusIndex, node_ids: Sequence[str]) -> list[BaseNode]:
        known = index.documents
        return [_node(known[key]) for key in dict.fromkeys(node_ids) if key in known]

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Returns the nodes with the highest cosine, best first; equal ones by their ids.

        In mode ``mmr``, near nodes that differ from one another, in the order of choice.

        Args:
            query: With an embedding. Its ``mmr_threshold`` (0.5) is 1 for nearness alone and 0 for
                whatever differs most from the nearest one.
            kwargs: ``mmr_threshold``, and ``mmr_prefetch_k`` or ``mmr_prefetch_factor`` (4): among
                how many of the nearest nodes, or how many times those asked for, they are chosen.

        Raises:
            ValueError: There is no embedding of the right size, or the mode is another one.
        """
        if query.mode not in _MODES:
            raise ValueError(
                f"the store searches by vectors only, got mode {query.mode.value!r}; for words and "
                "vectors together use PackedContextRetriever over a CorpusIndex"
            )
        vector, index = _query_vectors(query, self._dimension()), self._index
        if index is None or not len(index.documents):
            return VectorStoreQueryResult(nodes=[], similarities=[], ids=[])
        where = None
        if query.node_ids or query.doc_ids or query.filters is not None:
            # an index over a store that holds its texts knows no ids, and asks with an empty list
            where = _where(query.node_ids or None, query.doc_ids or None, query.filters)
        k = max(0, query.similarity_top_k)
        if query.mode == VectorStoreQueryMode.MMR:
            fetch_k, weight = _diversity(query, k, kwargs)
            hits = index.search_diverse(vector, k, fetch_k=fetch_k, relevance=weight, where=where)
        else:
            hits = index.search_vector(vector, k, where=where)
        scores = {hit.document_id: min(1.0, max(-1.0, hit.score)) for hit in hits}
        nodes = self._nodes_of(index, [*scores])  # one that was deleted meanwhile is left out
        ids = [node.node_id for node in nodes]
        return VectorStoreQueryResult(
            nodes=nodes, similarities=[scores[key] for key in ids], ids=ids
        )

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """``query`` without blocking the event loop."""
        return await asyncio.to_thread(self.query, query, **kwargs)

    # files

    def persist(self, persist_path: str | Path, fs: Any = None) -> None:
        """Saves the store as a folder; until the last moment, an older one stands.

        Args:
            persist_path: The folder.
            fs: Local, or None; an index is never written to any other file system.

        Raises:
            CorpusIndexError: It can't be written, or the folder holds something else.
        """
        index = self._index or recallm.CorpusIndex(GivenVectors(0))
        index.save(_local(persist_path, fs))

    @classmethod
    def from_persist_path(cls, persist_path: str | Path, fs: Any = None) -> Self:
        """Returns the store saved in a folder; every file is checked, and nothing in it is run.

        Args:
            persist_path: The folder.
            fs: Local, or None.

        Raises:
            FileNotFoundError: There is nothing there.
            CorpusIndexError: The folder holds no such store, or was changed since it was written.
        """
        path = _local(persist_path, fs)
        if not path.exists():
            raise FileNotFoundError(f"no vector store is saved at {path}; persist() makes one")
        index = recallm.CorpusIndex.open(path, GivenVectors(0))
        if index.matching(lambda stored: not isinstance(stored.get("node"), dict)):
            raise CorpusIndexError(
                f"the index {path} holds documents, not nodes; open it with CorpusIndex.open, or "
                "fill a vector store anew"
            )
        store = cls()
        store._index = index
        return store

    @classmethod
    def from_persist_dir(
        cls,
        persist_dir: str | Path = DEFAULT_PERSIST_DIR,
        namespace: str = DEFAULT_VECTOR_STORE,
        fs: Any = None,
    ) -> Self:
        """Returns the store that ``storage_context.persist`` wrote into a folder.

        Args:
            persist_dir: The folder.
            namespace: The store's name in the storage context.
            fs: Local, or None.

        Raises:
            FileNotFoundError: There is no such store there.
            CorpusIndexError: It is no store of this kind, or was changed since it was written.
        """
        return cls.from_persist_path(_local(persist_dir, fs) / f"{namespace}{_SUFFIX}", fs)

    @classmethod
    def from_namespaced_persist_dir(
        cls, persist_dir: str | Path = DEFAULT_PERSIST_DIR, fs: Any = None
    ) -> dict[str, BasePydanticVectorStore]:
        """Returns all stores that ``storage_context.persist`` wrote into a folder, by their names.

        Those of LlamaIndex's own kind, one file each, are read by LlamaIndex.
        """
        stores: dict[str, BasePydanticVectorStore] = {}
        for path in sorted(_local(persist_dir, fs).glob(f"*{_SUFFIX}")):
            kind = cls if path.is_dir() else SimpleVectorStore
            stores[path.name.removesuffix(_SUFFIX)] = kind.from_persist_path(str(path))
        return stores


def _diversity(query: VectorStoreQuery, k: int, options: Mapping[str, Any]) -> tuple[int, float]:
    """Among how many nodes to choose, and how much nearness counts.

    Raises:
        ValueError: Both ways to say how many candidates there are were taken.
    """
    weight = options.get("mmr_threshold", query.mmr_threshold)
    factor, fetch = options.get("mmr_prefetch_factor"), options.get("mmr_prefetch_k")
    if factor is not None and fetch is not None:
        raise ValueError("give mmr_prefetch_factor or mmr_prefetch_k, not both")
    if fetch is None:
        fetch = int((_PREFETCH if factor is None else factor) * k)
    return int(fetch), 0.5 if weight is None else float(weight)


def _document(node: BaseNode) -> recallm.Document:
    """A node as a document of an index: its text, and everything else as metadata."""
    text = node.get_content(metadata_mode=MetadataMode.NONE)
    plain = doc_to_json(node.model_copy(update={"embedding": None}))
    if plain["__data__"].get("text") == text:
        del plain["__data__"]["text"]
    try:
        stored = json.loads(json.dumps(plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"node {node.node_id!r} can't be kept as JSON ({error}); its metadata may hold "
            "strings, numbers, booleans, None, lists and dicts"
        ) from error
    metadata = {"node": stored, "ref_doc_id": node.ref_doc_id}
    return recallm.Document(text, node.node_id, metadata=metadata)


def _node(document: recallm.Document) -> BaseNode:
    """The node that a document of the index was made from."""
    stored = document.metadata["node"]
    try:
        data = {"text": document.text, **stored["__data__"]}
        return json_to_doc({**stored, "__data__": data})
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusIndexError(
            f"the store has something under {document.id!r} that is no node ({error}); add it anew"
        ) from error


def _where(
    node_ids: Sequence[str] | None,
    doc_ids: Sequence[str] | None,
    filters: MetadataFilters | None,
) -> Callable[[Stored], bool]:
    names = None if node_ids is None else set(node_ids)
    documents = None if doc_ids is None else set(doc_ids)

    def matches(stored: Stored) -> bool:
        data = stored["node"]["__data__"]
        passes = build_metadata_filter_fn(lambda _: data.get("metadata", {}), filters)
        return (
            (names is None or data["id_"] in names)
            and (documents is None or stored["ref_doc_id"] in documents)
            and passes(data["id_"])
        )

    return matches


def _vectors(nodes: Sequence[BaseNode], dimension: int | None) -> Vectors:
    """The embeddings of some nodes, ``float32[n, dim]``."""
    out = np.zeros((0, dimension or 0), np.float32)
    for number, node in enumerate(nodes):
        if node.embedding is None:
            raise ValueError(
                f"node {node.node_id!r} has no embedding; add nodes through a VectorStoreIndex"
            )
        vector = np.array(node.embedding, np.float32)
        if number == 0:
            dimension = len(node.embedding) if dimension is None else dimension
            out = np.zeros((len(nodes), dimension), np.float32)
        if vector.shape != (dimension,) or not dimension or not np.isfinite(vector).all():
            raise ValueError(
                f"the embedding of node {node.node_id!r} should be {dimension} finite numbers, got "
                f"shape {vector.shape}; one store holds vectors of one model"
            )
        out[number] = vector
    return out


def _query_vectors(query: VectorStoreQuery, dimension: int | None) -> Vectors:
    if query.query_embedding is None:
        raise ValueError("the query has no embedding; ask through a VectorStoreIndex")
    vector = np.array(query.query_embedding, np.float32)
    if vector.shape != (dimension or vector.size,) or not np.isfinite(vector).all():
        raise ValueError(
            f"the query's embedding should be {dimension} finite numbers, got shape "
            f"{vector.shape}; use the embedding model that the nodes were added with"
        )
    return vector


def _local(path: str | Path, fs: Any) -> Path:
    protocols = getattr(fs, "protocol", "file")
    if "file" not in ((protocols,) if isinstance(protocols, str) else protocols):
        raise ValueError(
            f"the store is a folder of checked files on a local file system, got {protocols!r}; "
            "persist locally and copy the folder"
        )
    return Path(path)
