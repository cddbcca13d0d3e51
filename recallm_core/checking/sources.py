"""Which documents a text means when it says where a quote is from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from recallm_core.checking.written import Claim
from recallm_core.documents import Document

_LEAST = 4  # characters of a name that is looked for inside a remark


class Sources:
    """Finds documents by number, id, title, file name or address.

    Args:
        documents: What can be quoted, in the caller's order.
    """

    def __init__(self, documents: Sequence[Document]) -> None:
        self._count = len(documents)
        self._by_name: dict[str, set[int]] = {}
        for number, document in enumerate(documents):
            for name in _names(document):
                self._by_name.setdefault(name, set()).add(number)

    def resolve(self, claim: Claim | None) -> frozenset[int] | None:
        """Returns the documents meant; None where nothing is said, empty where there is none."""
        if claim is None:
            return None
        named = {n for name in claim.names for n in self._named(name, loose=claim.loose)}
        if named:
            return frozenset(named)
        if claim.numbers:
            return frozenset(n - 1 for n in claim.numbers if 1 <= n <= self._count)
        return None if claim.loose else frozenset()

    def _named(self, name: str, *, loose: bool) -> set[int]:
        wanted = _folded(name)
        found = self._by_name.get(wanted)
        if found is None and loose:
            found = self._mentioned(wanted)
        return found or set()

    def _mentioned(self, remark: str) -> set[int]:
        """The documents with the longest name that a remark holds as whole words."""
        inside = [
            name
            for name in self._by_name
            if len(name) >= _LEAST
            and name in remark
            and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", remark)
        ]
        return self._by_name[max(inside, key=len)] if inside else set()


def _names(document: Document) -> Iterator[str]:
    origin = document.source_map.origin if document.source_map else None
    given = document.metadata.get("source")
    for name in (document.id, document.title, origin, given):
        if isinstance(name, str) and name.strip():
            yield _folded(name)
            if "/" in name or "\\" in name:
                yield _folded(PurePath(name.replace("\\", "/")).name)


def _folded(name: str) -> str:
    return " ".join(name.casefold().split()).strip("\"'`*_<> ")
