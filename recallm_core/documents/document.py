"""Documents, chunks and passages: exact slices of text that nobody touches."""

from __future__ import annotations

import hashlib
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from recallm_core.documents.source_map import SourceMap
from recallm_core.errors import DocumentError
from recallm_core.inputs.arguments import shown

_NEWLINE = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True, init=False)
class Document:
    """A text with an identity; the text is what the reader sees and is never normalised.

    Offsets into a document are code points of ``text``, half-open. An empty text is a document
    that holds nothing to quote; ``DocumentSet.blank`` finds such documents.

    Documents are equal when text, id, title and metadata are; they can be hashed, copied and
    pickled.

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
    metadata: Mapping[str, Any] = field(hash=False)
    source_map: SourceMap | None = field(repr=False, compare=False)
    automatic_id: bool = field(init=False, repr=False, compare=False)
    _line_starts: array[int] | None = field(init=False, repr=False, compare=False)

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
        _check_labels(id, title, metadata)
        put = object.__setattr__
        put(self, "text", text)
        put(self, "id", content_id(text) if id is None else id)
        put(self, "title", title)
        put(self, "metadata", MappingProxyType(dict(metadata or {})))
        put(self, "source_map", source_map)
        put(self, "automatic_id", id is None)
        put(self, "_line_starts", None)

    def __reduce__(self) -> tuple[Any, ...]:
        own_id = None if self.automatic_id else self.id
        return _restore, (self.text, own_id, self.title, dict(self.metadata), self.source_map)

    def line_at(self, offset: int) -> int:
        """Returns the 1-based line of the source that holds the character at ``offset``.

        Lines end with LF, CR LF or a lone CR. Where the text was extracted from another format,
        the lines are those of the file.

        Raises:
            DocumentError: The offset lies outside the text.
        """
        self._check_offset(offset)
        source = self.source_map
        if source is None or source.lines is None:
            return self._newlines_before(offset) + 1
        stretch = bisect_right(source.starts, offset) - 1
        within = self._newlines_before(offset) - self._newlines_before(source.starts[stretch])
        return source.lines[stretch] + within

    def lines(self, start: int, end: int) -> tuple[int, int]:
        """Returns the first and the last source line, 1-based and inclusive, of a range.

        Raises:
            DocumentError: The range lies outside the text.
        """
        self._check_range(start, end)
        return self.line_at(start), self.line_at(max(start, end - 1))

    def page_at(self, offset: int) -> int | None:
        """Returns the 1-based page that holds the character at ``offset``; None without pages.

        Raises:
            DocumentError: The offset lies outside the text.
        """
        self._check_offset(offset)
        source = self.source_map
        if source is None or source.pages is None:
            return None
        return source.pages[bisect_right(source.starts, offset) - 1]

    def place_at(self, offset: int) -> str | None:
        """Returns the part of the file that holds the character at ``offset``, for people.

        A slide, a sheet's row, a mail's part, a notebook's cell; None for files without such parts.

        Raises:
            DocumentError: The offset lies outside the text.
        """
        self._check_offset(offset)
        source = self.source_map
        if source is None or source.places is None:
            return None
        return source.places[bisect_right(source.starts, offset) - 1]

    def utf16_range(self, start: int, end: int) -> tuple[int, int]:
        """Returns a range in UTF-16 code units, as JavaScript and Java count.

        Raises:
            DocumentError: The range lies outside the text.
        """
        return self._encoded_range(start, end, "utf-16-le", 2)

    def utf8_range(self, start: int, end: int) -> tuple[int, int]:
        """Returns a range in bytes of the text's UTF-8 form.

        Raises:
            DocumentError: The range lies outside the text.
        """
        return self._encoded_range(start, end, "utf-8", 1)

    def _encoded_range(self, start: int, end: int, encoding: str, unit: int) -> tuple[int, int]:
        self._check_range(start, end)
        if self.text.isascii():
            return start, end
        first = len(self.text[:start].encode(encoding)) // unit
        return first, first + len(self.text[start:end].encode(encoding)) // unit

    def _newlines_before(self, offset: int) -> int:
        starts = self._line_starts
        if starts is None:
            starts = array("q", (match.end() for match in _NEWLINE.finditer(self.text)))
            object.__setattr__(self, "_line_starts", starts)
        return bisect_right(starts, offset)

    def _check_offset(self, offset: int) -> None:
        self._check_range(offset, offset)

    def _check_range(self, start: int, end: int) -> None:
        whole = isinstance(start, int) and isinstance(end, int)
        if not whole or not 0 <= start <= end <= len(self.text):
            raise DocumentError(
                f"[{shown(start)}, {shown(end)}) lies outside document {self.id!r}, whose text has "
                f"{len(self.text):,} characters"
            )


@dataclass(frozen=True, slots=True)
class DocumentSet:
    """The distinct documents of one call, in the order in which they were first seen.

    Iterating gives one document per id. Others with the same id and text are its aliases: the
    same text from another source.
    """

    _by_id: dict[str, tuple[Document, ...]]

    def __iter__(self) -> Iterator[Document]:
        return (same[0] for same in self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, document_id: object) -> bool:
        return document_id in self._by_id

    def __getitem__(self, document_id: str) -> Document:
        return self.aliases(document_id)[0]

    def aliases(self, document_id: str) -> tuple[Document, ...]:
        """Returns every document given under an id, in order, the first included.

        Raises:
            KeyError: No document has this id.
        """
        try:
            return self._by_id[document_id]
        except KeyError:
            raise KeyError(f"no document has the id {document_id!r}") from None

    @property
    def blank(self) -> tuple[Document, ...]:
        """The documents that hold nothing but white space, so nothing that can be quoted."""
        return tuple(document for document in self if not document.text.strip())


def collect(documents: Iterable[Document | str]) -> DocumentSet:
    """Gathers the documents of a call, with each text under one id.

    Args:
        documents: Documents, or strings that become documents with an automatic id.

    Raises:
        DocumentError: Two different texts have the same id, or something is no document.
    """
    if isinstance(documents, str | bytes | Document) or not isinstance(documents, Iterable):
        raise DocumentError(
            f"documents must be a list of Document or str, got one {type(documents).__name__}; "
            "wrap a single document in a list"
        )
    if isinstance(documents, Mapping):
        raise DocumentError(
            f"documents must be a list of Document or str, got a {type(documents).__name__}; "
            "pass its values, or make Document(text, id) of each item"
        )
    by_id: dict[str, list[Document]] = {}
    for place, item in enumerate(documents):
        document = Document(item) if isinstance(item, str) else item
        if not isinstance(document, Document):
            raise DocumentError(
                f"document {place} must be a Document or a str, got {type(item).__name__}"
            )
        same = by_id.setdefault(document.id, [])
        if same and same[0].text != document.text:
            raise DocumentError(
                f"two different texts have the id {document.id!r}; ids must be unique, or left "
                "out: then they are derived from the text"
            )
        same.append(document)
    return DocumentSet({document_id: tuple(same) for document_id, same in by_id.items()})


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
    """A slice of a document made for retrieval: ``document.text[start:end] == text``.

    Attributes:
        document_id: The document it is a slice of.
        start: First character in the document.
        end: One past the last character.
        text: ``document.text[start:end]``.
        section: The headings above it, outermost first.
        parent: Range of the larger stretch it belongs to, made of whole chunks.
    """

    document_id: str
    start: int
    end: int
    text: str
    section: tuple[str, ...] = ()
    parent: tuple[int, int] | None = None


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


def _check_labels(document_id: object, title: object, metadata: object) -> None:
    if document_id is not None:
        check_text(document_id, "a document's id")
        if not document_id:
            raise DocumentError("a document's id can't be empty; leave it out to have one made")
    if title is not None:
        check_text(title, "a document's title")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise DocumentError(
            f"a document's metadata must be a mapping, got {type(metadata).__name__}"
        )


def _restore(
    text: str,
    document_id: str | None,
    title: str | None,
    metadata: dict[str, Any],
    source_map: SourceMap | None,
) -> Document:
    return Document(text, document_id, title, metadata, source_map=source_map)
