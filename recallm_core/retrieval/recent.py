"""Documents that were used last, as many as a bound of memory allows."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from typing import Generic, TypeVar

from recallm_core.documents.document import Document

Key = TypeVar("Key", bound=Hashable)

_BYTES_OF_DOCUMENT = 2_000  # without its text and what grows with that
_BYTES_OF_STRETCH = 200  # of a source map: numbers, and the name of a place


def bytes_of(document: Document) -> int:
    """Returns about how much memory a document takes: its text, places and starts of lines."""
    text, source = document.text, document.source_map
    stretches = len(source.starts) if source is not None else 0
    lines = 8 * text.count("\n")
    return sys.getsizeof(text) + lines + _BYTES_OF_STRETCH * stretches + _BYTES_OF_DOCUMENT


class RecentDocuments(Generic[Key]):
    """Keeps the documents that were added last; whoever shares it among threads holds a lock.

    Args:
        max_bytes: What they may take; those that were added together last stay, whatever they take.
        max_count: How many they may be; None: any number.
    """

    def __init__(self, max_bytes: int, max_count: int | None = None) -> None:
        self._max_bytes = max_bytes
        self._max_count = max_count
        self._documents: OrderedDict[Key, tuple[Document, int]] = OrderedDict()
        self._bytes = 0

    def __iter__(self) -> Iterator[Key]:
        return iter(self._documents)

    def get(self, key: Key) -> Document | None:
        """Returns a document, if it is still here; it counts as used only when it is added."""
        document, _ = self._documents.get(key, (None, 0))
        return document

    def add(self, documents: Mapping[Key, Document]) -> None:
        """Adds documents, or says that they were used again; the oldest make room for them."""
        for key, document in documents.items():
            earlier, size = self._documents.pop(key, (None, 0))
            self._bytes -= size
            size = size if earlier is document else bytes_of(document)
            self._documents[key] = (document, size)
            self._bytes += size
        while self._has_too_many() or self._is_too_large(len(documents)):
            _, (_, size) = self._documents.popitem(last=False)
            self._bytes -= size

    def clear(self) -> None:
        """Forgets all of them."""
        self._documents.clear()
        self._bytes = 0

    def _has_too_many(self) -> bool:
        return self._max_count is not None and len(self._documents) > self._max_count

    def _is_too_large(self, staying: int) -> bool:
        return self._bytes > self._max_bytes and len(self._documents) > staying
