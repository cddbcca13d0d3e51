"""Nearest chunks by vector: FAISS, exact up to a million chunks, rebuilt from plain arrays."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from recallm_core.embedding import Floats

EXACT_UP_TO = 1_000_000
_ADDED_AT_ONCE = 1 << 16
_TRAINED_ON = 64  # vectors per list of an approximate index
_PROBES = 64


class NearestVectors:
    """A FAISS index over some unit vectors, made when the first question comes.

    Args:
        vectors: ``float16[n, dim]``; may be memory-mapped.
        exact_up_to: With more vectors than this, only the lists nearest to the question are read.
        probes: How many of them; more is slower and misses less.
    """

    def __init__(
        self,
        vectors: npt.NDArray[np.float16],
        *,
        exact_up_to: int = EXACT_UP_TO,
        probes: int = _PROBES,
    ) -> None:
        self._vectors, self._exact_up_to, self._probes = vectors, exact_up_to, probes
        self._index: Any = None
        self._lock = threading.Lock()

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
        import faiss

        k = min(k, len(self) if allowed is None else int(allowed.sum()))
        if k == 0:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        index = self._built()
        approximate = len(self) > self._exact_up_to
        settings: dict[str, Any] = {"nprobe": self._probes} if approximate else {}
        if allowed is not None:
            bits = np.packbits(allowed, bitorder="little")
            selector: Any = faiss.IDSelectorBitmap  # its Python wrapper takes an array
            settings["sel"] = selector(bits)
        kind = faiss.SearchParametersIVF if approximate else faiss.SearchParameters
        asked = np.ascontiguousarray(query, np.float32).reshape(1, -1)
        products, rows = index.search(asked, k, params=kind(**settings))
        found = rows[0] >= 0
        return rows[0][found], products[0][found]

    def _built(self) -> Any:
        with self._lock:
            if self._index is None:
                self._index = self._build()
            return self._index

    def _build(self) -> Any:
        import faiss

        count, dim = self._vectors.shape
        half, product = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        if count <= self._exact_up_to:
            index: Any = faiss.IndexScalarQuantizer(dim, half, product)
        else:
            lists = int(2 * np.sqrt(count))
            coarse = faiss.IndexFlatIP(dim)
            index = faiss.IndexIVFScalarQuantizer(coarse, dim, lists, half, product)
            step = max(1, count // (lists * _TRAINED_ON))
            index.train(self._vectors[::step].astype(np.float32))
        for at in range(0, count, _ADDED_AT_ONCE):
            index.add(self._vectors[at : at + _ADDED_AT_ONCE].astype(np.float32))
        return index
