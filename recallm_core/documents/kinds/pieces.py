"""Pieces of a file joined to one text, each with its place in the file."""

from __future__ import annotations

from dataclasses import dataclass, field

from recallm_core.documents.extracted import ExtractedText
from recallm_core.documents.source_map import SourceMap
from recallm_core.errors import DocumentError


@dataclass(slots=True)
class Pieces:
    """A text as it grows.

    Attributes:
        most: Characters that it may have; small files can hold any amount.
        notes: What was left out of the pieces, for people.
    """

    most: int
    notes: list[str] = field(default_factory=list)
    _texts: list[str] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)
    _places: list[str] = field(default_factory=list)
    _pages: list[int] = field(default_factory=list)
    _length: int = 0

    def add(self, text: str, place: str, *, page: int = 1, gap: str = "\n") -> None:
        """Adds a piece, if there is anything in it.

        Args:
            text: Its text.
            place: Where it stands in the file, for people.
            page: The page or slide, for formats that have them.
            gap: What parts it from the piece before.

        Raises:
            DocumentError: The text is too long.
        """
        if not text.strip():
            return
        place = place.encode("utf-8", "replace").decode("utf-8")
        gap = gap if self._texts else ""
        self._length += len(gap)
        if not self._places or (self._places[-1], self._pages[-1]) != (place, page):
            self._starts.append(self._length)
            self._places.append(place)
            self._pages.append(page)
        self._texts += [gap, text]
        self._length += len(text)
        if self._length > self.most:
            raise DocumentError(f"it has more than {self.most:,} characters of text")

    def add_page(self, page: ExtractedText, place: str, *, head: str = "") -> None:
        """Adds an HTML page that is a part of a file, and what is to be known of it.

        Args:
            page: The page as it was read.
            place: Where it stands in the file.
            head: A line before its text.
        """
        self.notes += [f"{place}: {note.partition(';')[0]}" for note in page.notes]
        self.add(f"{head}{page.text}", place, gap="\n\n")

    def text(self) -> str:
        """Returns the text."""
        text = "".join(self._texts)
        return text.encode("utf-8", "replace").decode("utf-8")

    def source_map(self, origin: str, *, has_pages: bool = False) -> SourceMap:
        """Returns where the pieces come from."""
        if not self._starts:
            return SourceMap(origin)
        starts = (0, *self._starts[1:])
        pages = tuple(self._pages) if has_pages else None
        return SourceMap(origin, starts, pages=pages, places=tuple(self._places))
