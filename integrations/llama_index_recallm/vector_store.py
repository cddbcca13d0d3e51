"""A FAISS vector store with true similarities, deletes, and files that can't run code."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.storage.docstore.utils import doc_to_json, json_to_doc
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from recallm_core.retrieval import files

_FORMAT = "recallm-vector-store-1"
_MOST_BYTES = 1 << 34

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What a search sees, whatever changes meanwhile.

    Attributes:
        nodes: The nodes, a row each.
        vectors: Their unit vectors, ``float32[n, dim]``.
        index: A FAISS index of them; None while there are none.
    """

    nodes: tuple[BaseNode, ...]
    vectors: Vectors
    index: Any


class RecaLLMVectorStore(BasePydanticVectorStore):
    """Nodes with their vectors; a score is the cosine, 1 for an exact match.

    ```python
    store = RecaLLMVectorStore()
    storage = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex.from_documents(documents, storage_context=storage, embed_model=...)
    store.persist("vectors.safetensors")
    index = VectorStoreIndex.from_vector_store(
        RecaLLMVectorStore.from_persist_path("vectors.safetensors"), embed_model=...
    )
    ```

    Nodes are kept in the store, so it works without a docstore. A node that is added again replaces
    the one with its id. Searches may run in several threads while others change the store.
    """

    stores_text: bool = True
    is_embedding_query: bool = True
    flat_metadata: bool = False

    _rows: dict[str, tuple[BaseNode, Vectors]] = PrivateAttr(default_factory=dict)
    _found: _Snapshot | None = PrivateAttr(default=None)
    _changing: Any = PrivateAttr(default_factory=threading.Lock)

    @classmethod
    def class_name(cls) -> str:
        """Returns the name under which the class is serialised."""
        return "RecaLLMVectorStore"

    @property
    def client(self) -> Any:
        """The FAISS index, or None while the store is empty."""
        return self._snapshot().index

    # changing

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Adds nodes that have embeddings; returns their ids.

        Raises:
            ValueError: A node has no embedding, one of another dimension, or one with values that
                aren't numbers; then none is added.
        """
        vectors = _unit(nodes, self._dimension())
        bare = [node.model_copy(update={"embedding": None}) for node in nodes]
        with self._changing:
            for node, vector in zip(bare, vectors, strict=True):
                self._rows.pop(node.node_id, None)
                self._rows[node.node_id] = (node, vector)
            self._found = None
        return [node.node_id for node in nodes]

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """``add`` without blocking the event loop."""
        return await asyncio.to_thread(self.add, nodes)

    def _dimension(self) -> int | None:
        return next((len(vector) for _, vector in self._rows.values()), None)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Removes every node of a document."""
        self._remove(lambda node: node.ref_doc_id == ref_doc_id)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """``delete`` for asynchronous code."""
        self.delete(ref_doc_id)

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Removes the nodes with some ids that pass some filters; without either, none."""
        if node_ids is None and filters is None:
            return
        self._remove(self._wanted(node_ids, None, filters))

    def _remove(self, gone: Callable[[BaseNode], bool]) -> None:
        with self._changing:
            kept = {key: row for key, row in self._rows.items() if not gone(row[0])}
            self._rows, self._found = kept, None

    def clear(self) -> None:
        """Removes everything."""
        with self._changing:
            self._rows, self._found = {}, None

    # reading

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Returns the nodes with some ids that pass some filters."""
        wanted = self._wanted(node_ids, None, filters)
        return [node for node in self._snapshot().nodes if wanted(node)]

    def _wanted(
        self,
        node_ids: Sequence[str] | None,
        doc_ids: Sequence[str] | None,
        filters: MetadataFilters | None,
    ) -> Callable[[BaseNode], bool]:
        names = None if node_ids is None else set(node_ids)
        documents = None if doc_ids is None else set(doc_ids)

        def wanted(node: BaseNode) -> bool:
            return (
                (names is None or node.node_id in names)
                and (documents is None or node.ref_doc_id in documents)
                and build_metadata_filter_fn(lambda _: node.metadata, filters)(node.node_id)
            )

        return wanted

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Returns the nodes with the highest cosine, best first; equal ones as they were added.

        Raises:
            ValueError: There is no embedding of the right size, or the mode isn't ``default``.
        """
        if query.mode != VectorStoreQueryMode.DEFAULT:
            raise ValueError(
                f"the store searches by vectors only, got mode {query.mode.value!r}; for words and "
                "vectors together use PackedContextRetriever over a CorpusIndex"
            )
        found = self._snapshot()
        asked = _asked(query, found.vectors.shape[1] if found.nodes else None)
        rows = np.arange(len(found.nodes))
        if query.node_ids or query.doc_ids or query.filters is not None:
            # an index over a store that holds its texts knows no ids, and asks with an empty list
            wanted = self._wanted(query.node_ids or None, query.doc_ids or None, query.filters)
            rows = np.array([n for n, node in enumerate(found.nodes) if wanted(node)], np.int64)
        best, scores = _nearest(found, asked, rows, max(0, query.similarity_top_k))
        nodes = [found.nodes[row] for row in best]
        return VectorStoreQueryResult(
            nodes=nodes, similarities=scores, ids=[node.node_id for node in nodes]
        )

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """``query`` without blocking the event loop."""
        return await asyncio.to_thread(self.query, query)

    def _snapshot(self) -> _Snapshot:
        with self._changing:
            if self._found is None:
                self._found = _built([*self._rows.values()])
            return self._found

    # files

    def persist(self, persist_path: str | Path, fs: Any = None) -> None:
        """Writes the store into one file; until the last moment, an older one stands.

        Args:
            persist_path: The file.
            fs: An fsspec file system; None: the local one.
        """
        from safetensors.numpy import save

        found = self._snapshot()
        lines = [json.dumps(doc_to_json(node), ensure_ascii=True) for node in found.nodes]
        text = np.frombuffer("\n".join(lines).encode("ascii") or b"\n", np.uint8)
        vectors = np.ascontiguousarray(found.vectors)
        digest = _digest(text, vectors)
        content = save({"nodes": text, "vectors": vectors}, {"format": _FORMAT, "digest": digest})
        if fs is not None:
            with fs.open(str(persist_path), "wb") as out:
                out.write(content)
            return
        path = Path(persist_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        waiting = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        waiting.unlink(missing_ok=True)
        files.write(waiting, content)
        waiting.replace(path)

    @classmethod
    def from_persist_path(cls, persist_path: str | Path, fs: Any = None) -> Self:
        """Returns the store saved in a file; nothing in it is run.

        Args:
            persist_path: The file.
            fs: An fsspec file system; None: the local one.

        Raises:
            CorpusIndexError: The file isn't such a store, or was changed since it was written.
        """
        if fs is None:
            content = files.read(Path(persist_path), _MOST_BYTES)
        else:
            with fs.open(str(persist_path), "rb") as given:
                content = given.read()
        store = cls()
        store._rows = {node.node_id: (node, row) for node, row in _loaded(content, persist_path)}
        return store


def _unit(nodes: Sequence[BaseNode], dimension: int | None) -> list[Vectors]:
    """The embeddings of some nodes, scaled to length 1; zeros stay."""
    out = []
    for node in nodes:
        if node.embedding is None:
            raise ValueError(
                f"node {node.node_id!r} has no embedding; add nodes through a VectorStoreIndex"
            )
        vector = np.array(node.embedding, np.float32)
        dimension = len(vector) if dimension is None and vector.ndim == 1 else dimension
        if vector.shape != (dimension,) or not dimension or not np.isfinite(vector).all():
            raise ValueError(
                f"the embedding of node {node.node_id!r} should be {dimension} finite numbers, got "
                f"shape {vector.shape}; one store holds vectors of one model"
            )
        out.append(_scaled(vector))
    return out


def _scaled(vector: Vectors) -> Vectors:
    length = np.linalg.norm(vector.astype(np.float64))
    scaled: Vectors = (vector / length).astype(np.float32) if length > 0 else vector
    return scaled


def _asked(query: VectorStoreQuery, dimension: int | None) -> Vectors:
    if query.query_embedding is None:
        raise ValueError("the query has no embedding; ask through a VectorStoreIndex")
    vector = np.array(query.query_embedding, np.float32)
    if (
        vector.ndim != 1
        or not np.isfinite(vector).all()
        or len(vector) != (dimension or len(vector))
    ):
        raise ValueError(
            f"the query's embedding should be {dimension} finite numbers, got shape "
            f"{vector.shape}; use the embedding model that the nodes were added with"
        )
    return _scaled(vector)


def _built(rows: Sequence[tuple[BaseNode, Vectors]]) -> _Snapshot:
    if not rows:
        return _Snapshot((), np.zeros((0, 0), np.float32), None)
    import faiss

    vectors = np.stack([vector for _, vector in rows])
    index: Any = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return _Snapshot(tuple(node for node, _ in rows), vectors, index)


def _nearest(
    found: _Snapshot, asked: Vectors, rows: npt.NDArray[np.int64], k: int
) -> tuple[list[int], list[float]]:
    """The best of some rows and their cosines."""
    k = min(k, len(rows))
    if k == 0:
        return [], []
    if len(rows) < len(found.nodes):
        scores = found.vectors[rows] @ asked
    else:
        products, places = found.index.search(asked.reshape(1, -1), k)
        scores, rows = products[0], places[0]
    order = np.lexsort((rows, -scores))[:k]
    cosines = np.clip(scores[order], -1.0, 1.0)
    return rows[order].tolist(), cosines.tolist()


def _digest(text: npt.NDArray[np.uint8], vectors: Vectors) -> str:
    digest = hashlib.blake2b(digest_size=32)
    digest.update(len(text).to_bytes(8, "little") + text.tobytes())
    digest.update(str(vectors.shape).encode() + vectors.tobytes())
    return digest.hexdigest()


def _loaded(content: bytes, path: str | Path) -> list[tuple[BaseNode, Vectors]]:
    """The nodes and vectors of a file's content, checked before they are used."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    where = Path(path)
    try:
        tensors = load(content)
        text, vectors = tensors["nodes"], tensors["vectors"]
        size = int.from_bytes(content[:8], "little")
        said = json.loads(content[8 : 8 + size]).get("__metadata__", {})
    except (SafetensorError, KeyError, ValueError) as error:
        raise files.damaged(where, f"isn't a saved vector store ({error})") from error
    if said.get("format") != _FORMAT or text.dtype != np.uint8 or vectors.dtype != np.float32:
        raise files.damaged(where, f"isn't a saved vector store of format {_FORMAT}")
    if said.get("digest") != _digest(text, vectors):
        raise files.damaged(where, "was changed since it was written: its checksum differs")
    try:
        nodes = [json_to_doc(json.loads(line)) for line in text.tobytes().splitlines() if line]
    except (ValueError, KeyError, TypeError) as error:
        raise files.damaged(where, f"holds something that is no node ({error})") from error
    if vectors.ndim != 2 or len(nodes) != len(vectors):
        raise files.damaged(where, f"has {len(nodes)} nodes but vectors {vectors.shape}")
    return list(zip(nodes, vectors, strict=True))
