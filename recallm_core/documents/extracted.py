"""What is read from a file that isn't plain text."""

from __future__ import annotations

from dataclasses import dataclass

from recallm_core.documents.source_map import SourceMap


@dataclass(frozen=True, slots=True)
class ExtractedText:
    """The text of a file that isn't plain text.

    Attributes:
        text: The text.
        title: The title that the file gives itself.
        source_map: How the text maps to the file.
        notes: What a reader of the text should know, for people: what was left out, and where the
            order of the text is doubtful.
    """

    text: str
    title: str | None
    source_map: SourceMap
    notes: tuple[str, ...] = ()
