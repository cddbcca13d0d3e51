"""The documents of one call: what the caller gave, and where a core citation stands in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from langchain_core.documents import Document

import recallm_core as recallm
from recallm_core.errors import DocumentError

PACKED = "recallm"
"""Metadata key under which ``PackedContextRetriever`` says what a document was merged from."""


@dataclass(frozen=True, slots=True)
class Place:
    """A range of one of the call's documents: ``page_content[start:end]``.

    ``offset`` is how far into the core's range it begins; 0 unless that was divided.
    """

    index: int
    document_id: str
    start: int
    end: int
    offset: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Piece:
    """Which range of a core document is which of the call's documents."""

    index: int
    start: int = 0
    end: int | None = None  # None: all of it


@dataclass(slots=True)
class Sources:
    """The call's documents in order, and how the core's document ids map to them.

    Attributes:
        documents: What ``document_index`` counts.
        pieces: For each id that the core knows, the documents that it stands for.
        index: An index that packs its own documents; these are numbered when they are first cited.
    """

    documents: list[Document] = field(default_factory=list)
    pieces: dict[str, list[Piece]] = field(default_factory=dict)
    index: Any = None

    @property
    def ids(self) -> list[str]:
        """The id of each document, by ``document_index``."""
        return [document.id or "" for document in self.documents]

    def add(self, document: Document, core_id: str, piece: Piece | None = None) -> None:
        """Adds a document of the call under the id that the core gave it."""
        number = len(self.documents)
        self.documents.append(document)
        self.pieces.setdefault(core_id, []).append(piece or Piece(number))

    def places(self, document_id: str, start: int, end: int) -> list[Place]:
        """Returns a core range as ranges of the call's documents.

        Usually one. A range over two messages gives a place in each; of documents with equal texts
        each is a place.
        """
        if document_id not in self.pieces and self.index is not None:
            self.add(from_core(self.index.documents[document_id]), document_id)
        out = []
        for piece in self.pieces[document_id]:
            a = max(start, piece.start)
            b = end if piece.end is None else min(end, piece.end)
            if a < b:
                name = self.documents[piece.index].id or document_id
                out.append(Place(piece.index, name, a - piece.start, b - piece.start, a - start))
        return out

    def places_to_cite(self, document_id: str, start: int, end: int) -> list[Place]:
        """Returns the places to cite: as ``places``, but of equal documents only the first."""
        places = self.places(document_id, start, end)
        divided = any(p.end is not None for p in self.pieces[document_id])
        return places if divided else places[:1]

    def text(self, place: Place) -> str:
        """Returns what stands there."""
        return self.documents[place.index].page_content[place.start : place.end]

    def same_text(self, place: Place, locations: Iterable[recallm.Location]) -> list[Place]:
        """Returns every place of some core locations that holds the same text, each once."""
        places = (p for at in locations for p in self.places(at.document_id, at.start, at.end))
        text = self.text(place)
        return list(dict.fromkeys(other for other in places if self.text(other) == text))


def collect(documents: Iterable[Any]) -> tuple[Sources, list[recallm.Document]]:
    """Returns the call's documents and the same for the core.

    Args:
        documents: LangChain documents, documents of the core, or strings.

    Raises:
        DocumentError: Something else, two texts under one id, or text that UTF-8 can't hold.
    """
    if isinstance(documents, str | bytes | Mapping | Document) or not isinstance(
        documents, Iterable
    ):
        raise DocumentError(
            f"documents must be a list of Document, got one {type(documents).__name__}; wrap a "
            "single document in a list"
        )
    sources = Sources()
    out: list[recallm.Document] = []
    for document in documents:
        core = to_core(document)
        shown = document if isinstance(document, Document) else from_core(core)
        if shown.id is None:
            shown = shown.model_copy(update={"id": core.id})
        sources.add(shown, core.id)
        out.append(core)
    return sources, out


def to_core(document: Any) -> recallm.Document:
    """Returns a LangChain document (or a string) as one of the core, its text untouched.

    Raises:
        DocumentError: It is something else, or its text can't be UTF-8.
    """
    if isinstance(document, recallm.Document):
        return document
    if isinstance(document, str):
        return recallm.Document(document)
    if not isinstance(document, Document):
        raise DocumentError(
            f"a document must be a langchain_core Document, a recallm_core Document or a str, got "
            f"{type(document).__name__}"
        )
    metadata = document.metadata
    return recallm.Document(
        document.page_content, document.id or None, title_of(metadata), metadata
    )


def from_core(document: recallm.Document) -> Document:
    """Returns a document of the core as a LangChain document."""
    metadata = dict(document.metadata)
    if document.title is not None:
        metadata.setdefault("title", document.title)
    if document.source_map is not None:
        metadata.setdefault("source", document.source_map.origin)
    return Document(id=document.id, page_content=document.text, metadata=metadata)


def title_of(metadata: Mapping[str, Any]) -> str | None:
    """Returns a name for people: the title, or the last part of the source."""
    title = metadata.get("title")
    if isinstance(title, str) and title:
        return title
    source = metadata.get("source")
    if isinstance(source, str) and source:
        return source if url_of(metadata) else PurePath(source).name or source
    return None


def url_of(metadata: Mapping[str, Any]) -> str | None:
    """Returns the web address of a document, where its metadata has one."""
    for key in ("url", "source"):
        value = metadata.get(key)
        if isinstance(value, str) and value.startswith(("http://", "https://")):
            return value
    return None


def members_of(document: Document) -> Sequence[Mapping[str, Any]]:
    """Returns the retrieved chunks that a packed document was merged from."""
    packed = document.metadata.get(PACKED)
    members = packed.get("members") if isinstance(packed, Mapping) else None
    return members if isinstance(members, Sequence) else ()
