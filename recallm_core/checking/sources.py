"""Which documents a text means when it says where a quote is from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath

from recallm_core.checking.written import Claim
from recallm_core.documents.document import Document, DocumentSet, collect, content_id

_LEAST = 4  # characters of a name that is looked for inside a remark


class Sources:
    """Finds documents by number, id, title, file name or address.

    Args:
        documents: What can be quoted, each once.
        order: Which of them the caller gave, in the caller's order; one may come again.
    """

    def __init__(self, documents: Sequence[Document], order: Sequence[int]) -> None:
        self._order = order
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
            known = (n for n in claim.numbers if 1 <= n <= len(self._order))
            return frozenset(self._order[n - 1] for n in known)
        return None if claim.loose else frozenset()

    def _named(self, name: str, *, loose: bool) -> set[int]:
        folded = _folded(name)
        places = self._by_name.get(folded)
        if places is None and loose:
            places = self._mentioned(folded)
        return places or set()

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


def listed(documents: Iterable[Document | str]) -> tuple[DocumentSet, list[int]]:
    """Returns the distinct documents, and which of them was given at each place of the list.

    Raises:
        DocumentError: Something is no document, or two share an id.
    """
    single = isinstance(documents, str | bytes | Document | Mapping)
    items = documents if single or not isinstance(documents, Iterable) else list(documents)
    distinct = collect(items)
    places = {document.id: place for place, document in enumerate(distinct)}
    ids = (content_id(item) if isinstance(item, str) else item.id for item in items)
    return distinct, [places[document_id] for document_id in ids]


def _names(document: Document) -> Iterator[str]:
    origin = document.source_map.origin if document.source_map else None
    declared = document.metadata.get("source")
    for name in (document.id, document.title, origin, declared):
        if isinstance(name, str) and name.strip():
            yield _folded(name)
            if "/" in name or "\\" in name:
                yield _folded(PurePath(name.replace("\\", "/")).name)


def _folded(name: str) -> str:
    return " ".join(name.casefold().split()).strip("\"'`*_<> ")
