"""Documents, chunks and passages: exact slices of text that nobody touches."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from recallm_core.errors import DocumentError


@dataclass(frozen=True, slots=True)
class SourceMap:
    """Where stretches of a document's text come from in the file it was read from.

    Attributes:
        origin: Path or URL of the file.
        starts: Offsets in ``Document.text``, ascending, where a new stretch begins; first is 0.
        lines: 1-based line of the file at which each stretch begins; None counts from the text.
        pages: 1-based page of each stretch, for paged formats.
    """

    origin: str
    starts: tuple[int, ...] = (0,)
    lines: tuple[int, ...] | None = None
    pages: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, init=False)
class Document:
    """A text with an identity; the text is what the reader sees and is never normalised.

    Offsets into a document are code points of ``text``, half-open.

    Attributes:
        text: The untouched text.
        id: The caller's id, or ``doc-`` and a hash of the text.
        title: A name for people.
        metadata: Whatever the caller wants to carry along.
        source_map: How offsets map to lines and pages of the file it came from, if any.
        automatic_id: Whether ``id`` was derived from the text.
    """

    text: str
    id: str
    title: str | None
    metadata: Mapping[str, Any]
    source_map: SourceMap | None = field(repr=False, compare=False)
    automatic_id: bool = field(repr=False, compare=False)

    def __init__(
        self,
        text: str,
        id: str | None = None,  # noqa: A002  (public name)
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        source_map: SourceMap | None = None,
    ) -> None:
        check_text(text, "a document's text")
        put = object.__setattr__
        put(self, "text", text)
        put(self, "id", content_id(text) if id is None else id)
        put(self, "title", title)
        put(self, "metadata", MappingProxyType(dict(metadata or {})))
        put(self, "source_map", source_map)
        put(self, "automatic_id", id is None)


@dataclass(frozen=True, slots=True)
class Location:
    """A half-open character range of one document."""

    document_id: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Duplicate(Location):
    """A text that was dropped because a passage contains it, character by character.

    Attributes:
        passage_start: Where in ``Passage.text`` the equal stretch begins; it is as long as the
            range is.
    """

    passage_start: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """A slice of a document made for retrieval: ``document.text[start:end] == text``."""

    document_id: str
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class ScoredChunk:
    """A chunk with its score for one question; higher is better."""

    document_id: str
    start: int
    end: int
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Member:
    """A retrieved chunk that a passage was merged from, with its own range in the document."""

    start: int
    end: int
    score: float = 0.0
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """What the model gets to read: an exact slice of one document.

    Attributes:
        document_id: The document it is a slice of.
        start: First character in the document.
        end: One past the last character.
        text: ``document.text[start:end]``.
        title: Shown to the model as the label of the passage.
        score: Relevance, higher is better; 0 when nothing was ranked.
        members: The retrieved chunks it was merged from; empty when the whole document is given.
        duplicates: Texts elsewhere that were dropped because this one contains them.
    """

    document_id: str
    start: int
    end: int
    text: str
    title: str | None = None
    score: float = 0.0
    members: tuple[Member, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()


def content_id(text: str) -> str:
    """Returns the id of a document that was given none: a hash of its text."""
    return "doc-" + hashlib.blake2b(text.encode("utf-8"), digest_size=10).hexdigest()


def check_text(text: object, what: str) -> None:
    """Raises unless ``text`` is a string that UTF-8 can hold.

    Raises:
        DocumentError: It isn't a string, or it has a lone surrogate (the message says where).
    """
    if not isinstance(text, str):
        raise DocumentError(f"{what} must be a str, got {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DocumentError(
            f"{what} has a lone surrogate (U+{ord(text[error.start]):04X}) at offset "
            f"{error.start:,}; decode the source properly, for instance with errors='replace'"
        ) from None
