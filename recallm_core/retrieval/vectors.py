"""Nearest chunks by vector: FAISS, exact up to a million chunks, rebuilt from plain arrays."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from recallm_core.inputs.extras import needs
from recallm_core.locks import ForkSafeLock
from recallm_core.retrieval.embedding import Floats

_ADDED_AT_ONCE = 1 << 16
_TRAINED_ON = 64  # vectors per list of an approximate index


@dataclass(frozen=True, slots=True)
class VectorSearch:
    """How vectors are searched: exactly, or where there are many, only those in the nearest lists.

    Attributes:
        exact_up_to: Vectors of one segment up to which every one is compared with the question.
        lists: Into how many lists more of them are sorted; None: twice the square root of their
            number. Counts when an index is built.
        probes: How many of the lists are read for a question; more is slower and misses less.
            Counts when an index is searched, so it can be chosen anew each time one is opened.
    """

    exact_up_to: int = 1_000_000
    lists: int | None = None
    probes: int = 64

    def __post_init__(self) -> None:
        if self.exact_up_to < 0 or self.probes < 1 or (self.lists is not None and self.lists < 1):
            raise ValueError(
                f"exact_up_to must not be negative, lists and probes at least 1, got {self}"
            )


DEFAULT_SEARCH = VectorSearch()


@dataclass(frozen=True, slots=True)
class Coarse:
    """The trained part of an approximate index, as plain arrays.

    Attributes:
        centroids: The middle of each list, ``float32[lists, dim]``.
        lists: The list that each vector is in, ``int32[n]``.
    """

    centroids: Floats
    lists: npt.NDArray[np.int32]


@cache
def _faiss() -> Any:
    """FAISS; a forked child searches in one thread.

    Threads of OpenMP that the parent had stay behind, and whoever counts on them waits for ever.
    """
    with needs("index", "search by meaning"):
        import faiss
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(faiss.omp_set_num_threads, 1))
    return faiss


def train(vectors: npt.NDArray[np.float16], search: VectorSearch = DEFAULT_SEARCH) -> Coarse | None:
    """Returns what an approximate search over some vectors needs; None: they are few enough.

    Repeatable: the clustering starts from a fixed seed.
    """
    faiss = _faiss()

    count, dim = vectors.shape
    if count <= search.exact_up_to:
        return None
    lists = min(count, search.lists or max(1, int(2 * np.sqrt(count))))
    clusters = faiss.Kmeans(dim, lists, niter=10, seed=1234, spherical=True)
    step = max(1, count // (lists * _TRAINED_ON))
    clusters.train(vectors[::step].astype(np.float32))
    centroids = np.array(clusters.centroids, np.float32)
    nearest = faiss.IndexFlatIP(dim)
    nearest.add(centroids)
    assigned = [
        nearest.search(vectors[at : at + _ADDED_AT_ONCE].astype(np.float32), 1)[1][:, 0]
        for at in range(0, count, _ADDED_AT_ONCE)
    ]
    return Coarse(centroids, np.concatenate(assigned).astype(np.int32))


class NearestVectors:
    """A FAISS index over some unit vectors, made when the first question comes.

    Args:
        vectors: ``float16[n, dim]``; may be memory-mapped.
        coarse: If given, and the vectors are many, only the lists nearest to the question are read.
        search: How many are many, and how many lists are read.
    """

    def __init__(
        self,
        vectors: npt.NDArray[np.float16],
        coarse: Coarse | None = None,
        search: VectorSearch = DEFAULT_SEARCH,
    ) -> None:
        self._vectors, self._probes = vectors, search.probes
        self._coarse = coarse if len(vectors) > search.exact_up_to else None
        self._index: Any = None
        self._lock = ForkSafeLock()

    def __len__(self) -> int:
        """Returns the number of vectors."""
        return len(self._vectors)

    def search(
        self, query: Floats, k: int, allowed: npt.NDArray[np.bool_] | None = None
    ) -> tuple[npt.NDArray[np.int64], Floats]:
        """Returns the rows with the highest dot product and those products, best first.

        Args:
            query: A vector, ``float32[dim]``.
            k: How many; fewer come where there are fewer.
            allowed: Which rows may come; None: all.
        """
        faiss = _faiss()

        k = min(k, len(self) if allowed is None else int(allowed.sum()))
        if k == 0:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        index = self._built()
        approximate = self._coarse is not None
        settings: dict[str, Any] = {"nprobe": self._probes} if approximate else {}
        if allowed is not None:
            bits = np.packbits(allowed, bitorder="little")
            selector: Any = faiss.IDSelectorBitmap  # its Python wrapper takes an array
            settings["sel"] = selector(bits)
        kind = faiss.SearchParametersIVF if approximate else faiss.SearchParameters
        query_row = np.ascontiguousarray(query, np.float32).reshape(1, -1)
        products, rows = index.search(query_row, k, params=kind(**settings))
        filled = rows[0] >= 0
        return rows[0][filled], products[0][filled]

    def _built(self) -> Any:
        with self._lock:
            if self._index is None:
                self._index = self._build()
            return self._index

    def _build(self) -> Any:
        faiss = _faiss()

        count, dim = self._vectors.shape
        index: Any
        if self._coarse is None:
            half, product = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
            index = faiss.IndexScalarQuantizer(dim, half, product)
        else:
            index = self._approximate(self._coarse)
        for at in range(0, count, _ADDED_AT_ONCE):
            batch = self._vectors[at : at + _ADDED_AT_ONCE].astype(np.float32)
            if self._coarse is None:
                index.add(batch)
            else:
                lists = self._coarse.lists[at : at + _ADDED_AT_ONCE].astype(np.int64)
                index.add_core(len(batch), faiss.swig_ptr(batch), None, faiss.swig_ptr(lists))
        return index

    def _approximate(self, coarse: Coarse) -> Any:
        """An empty index over the trained lists."""
        faiss = _faiss()

        lists, dim = coarse.centroids.shape
        nearest = faiss.IndexFlatIP(dim)
        nearest.add(np.ascontiguousarray(coarse.centroids))
        half, product = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        index: Any = faiss.IndexIVFScalarQuantizer(nearest, dim, lists, half, product)
        index.by_residual = False  # so that a product is the same as in an exact index
        index.train(np.ascontiguousarray(coarse.centroids))  # the lists are there already
        return index
