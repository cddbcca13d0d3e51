"""What a model's output is made of: reasoning, recall spans, answer text; and its stream events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from recallm_core.documents.document import Location


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A stretch of thinking in the model's own words."""

    text: str


@dataclass(frozen=True, slots=True)
class AnswerText:
    """A stretch of the answer in the model's own words."""

    text: str


@dataclass(frozen=True, slots=True)
class RecallSpan:
    """A verbatim copy, as the constraint let it through.

    Attributes:
        text: The exact source slice, outer white space trimmed.
        document_id: The document that it counts as taken from (``anchoring``).
        start: First character in that document.
        end: One past the last character.
        passage: Number of the passage (0-based) that holds that place.
        occurrences: That place, then every other in the passages that the copied tokens fit.
        section: Where the model recalled it; ``evidence``: for the answer, before its first word.
        offset: Where the span's text begins in the reasoning or answer text that it is part of.
        tokens: How many tokens were copied.
    """

    text: str
    document_id: str
    start: int
    end: int
    passage: int
    occurrences: tuple[Location, ...]
    section: Literal["thinking", "evidence", "answer"]
    offset: int
    tokens: int


Segment = Reasoning | RecallSpan | AnswerText


@dataclass(frozen=True, slots=True)
class Trace:
    """The output in order, marks removed.

    ``reasoning`` is all thinking with the quotes in their places, then the evidence that the answer
    begins with, a line each; ``answer`` is the answer, with its quotes.
    """

    segments: tuple[Segment, ...] = ()

    @property
    def spans(self) -> tuple[RecallSpan, ...]:
        """The recall spans, in order."""
        return tuple(s for s in self.segments if isinstance(s, RecallSpan))

    @property
    def reasoning(self) -> str:
        """What comes before the answer, quotes included."""
        return self._section(("thinking", "evidence"), Reasoning)

    @property
    def answer(self) -> str:
        """The answer, quotes included, as the model wrote it."""
        return self._section(("answer",), AnswerText)

    def _section(self, sections: tuple[str, ...], kind: type[Reasoning] | type[AnswerText]) -> str:
        return "".join(
            s.text
            for s in self.segments
            if isinstance(s, kind) or (isinstance(s, RecallSpan) and s.section in sections)
        )


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More thinking."""

    text: str


@dataclass(frozen=True, slots=True)
class RecallStarted:
    """The model opened a span."""

    section: Literal["thinking", "evidence", "answer"]
    index: int


@dataclass(frozen=True, slots=True)
class RecallDelta:
    """More of the quote, as a source slice; only text that can't be taken back."""

    text: str


@dataclass(frozen=True, slots=True)
class RecallEnded:
    """The span is complete; its text is the deltas joined. None: nothing could be kept of it."""

    span: RecallSpan | None


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    """More answer text."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A tool call, handed out when it is complete; ``arguments`` is JSON."""

    index: int
    name: str | None = None
    arguments: str = ""
    id: str | None = None


TraceEvent = (
    ReasoningDelta | RecallStarted | RecallDelta | RecallEnded | AnswerDelta | ToolCallDelta
)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A complete tool call."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None
