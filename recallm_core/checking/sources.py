"""Which documents a text means when it says where a quote is from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath

from recallm_core.checking.written import Claim
from recallm_core.documents.document import Document, DocumentSet, collect, content_id
from recallm_core.rendering.interchange import csl_authors_and_date

_LEAST = 4  # characters of a name that is looked for inside a remark
_YEAR = re.compile(r"(?<!\d)\d{4}(?!\d)")
_PARTS = re.compile(r"[^\W\d_]{2,}|\d+")  # initials name nobody
_PLACE = re.compile(
    r"\b(?:pp?|pages?|lines?|sections?|chapters?)\b\.?\s*\d+(?:\s*[-\u2013,]\s*\d+)*"
)
_BESIDE_NAMES = frozenset(("and", "also", "al", "as", "by", "cf", "cited", "et", "in", "see"))


class Sources:
    """Finds documents by number, id, title, file name, address, or author and year.

    Args:
        documents: What can be quoted, each once.
        order: Which of them the caller gave, in the caller's order; one may come again.
    """

    def __init__(self, documents: Sequence[Document], order: Sequence[int]) -> None:
        self._order = order
        self._by_name: dict[str, set[int]] = {}
        self._by_stem: dict[str, set[int]] = {}
        self._authors = [_authors_and_years(document) for document in documents]
        self._words = [set().union(*pair) for pair in self._authors]
        for number, document in enumerate(documents):
            for name in _names(document):
                self._by_name.setdefault(name, set()).add(number)
                self._by_stem.setdefault(PurePath(name).stem, set()).add(number)
                self._words[number] |= set(_PARTS.findall(name))

    def resolve(self, claim: Claim | None) -> frozenset[int] | None:
        """Returns the documents meant; None where nothing is said, empty where there is none."""
        if claim is None:
            return None
        named = {n for name in claim.names for n in self._documents_named(name, loose=claim.loose)}
        if named:
            return frozenset(named)
        if claim.numbers:
            known = (n for n in claim.numbers if 1 <= n <= len(self._order))
            return frozenset(self._order[n - 1] for n in known)
        return None if claim.loose else frozenset()

    def is_reference(self, claim: Claim) -> bool:
        """Whether words name documents, maybe with a place in them, and say nothing else."""
        if claim.numbers:
            return True
        meant = self.resolve(claim) or frozenset()
        words = set(_PARTS.findall(_PLACE.sub(" ", _fold_name(" ".join(claim.names)))))
        return bool(meant) and words <= _BESIDE_NAMES.union(*(self._words[n] for n in meant))

    def _documents_named(self, name: str, *, loose: bool) -> set[int]:
        folded = _fold_name(name)
        places = self._by_name.get(folded) or self._by_stem.get(folded)
        if places is None and loose:
            places = self._documents_mentioned(folded) or self._written_by(folded)
        return places or set()

    def _documents_mentioned(self, remark: str) -> set[int]:
        """The documents with the longest name that a remark holds as whole words."""
        inside = [
            name
            for name in self._by_name
            if len(name) >= _LEAST
            and name in remark
            and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", remark)
        ]
        return self._by_name[max(inside, key=len)] if inside else set()

    def _written_by(self, remark: str) -> set[int]:
        """The documents whose year and one of whose authors a remark holds: (Holt, 2016)."""
        parts = set(_PARTS.findall(remark))
        return {
            number
            for number, (authors, years) in enumerate(self._authors)
            if years & parts and authors & parts
        }


def collect_distinct(documents: Iterable[Document | str]) -> tuple[DocumentSet, list[int]]:
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
            yield _fold_name(name)
            if "/" in name or "\\" in name:
                yield _fold_name(PurePath(name.replace("\\", "/")).name)


def _authors_and_years(document: Document) -> tuple[set[str], set[str]]:
    """The words of the authors' names, and the years, that a document's metadata hold."""
    fields = csl_authors_and_date(document.metadata)
    names = " ".join(author["literal"] for author in fields.get("author", ()))
    dates = fields.get("issued", {}).get("raw", "")
    return set(_PARTS.findall(_fold_name(names))) - {"and"}, set(_YEAR.findall(dates))


def _fold_name(name: str) -> str:
    return " ".join(name.casefold().split()).strip("\"'`*_<> ")
