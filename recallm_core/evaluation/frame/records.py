"""What an answer to a question was, as it is written to a run's rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from recallm_core.evaluation.items import Item


@dataclass(frozen=True, slots=True)
class CitationRecord:
    """A citation as the answer gave it; whether it is right is for the scores to find out."""

    document: str
    start: int
    end: int
    text: str
    basis: str = "recalled"


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """An answer, plain enough to be a line of JSON.

    Attributes:
        text: The answer's text, quotes included.
        words: What the model said in its own words; all of the text where that is nothing.
        citations: What the answer cites.
        quotes: The spans recalled for the answer or in it, as (document, start, end).
        quoted: The texts of all spans, in the order of the output.
        verbatim: How many of them stand in a document as they are.
        abstained: Whether it counts as "the documents hold no answer"; None: can't be told.
        prompt_tokens: Tokens read.
        output_tokens: Tokens written.
        seconds: Wall time, a batch's divided by its answers.
        cpu_seconds: Processor time of all threads, divided likewise.
        finish_reason: As in ``Answer``.
    """

    text: str
    words: str
    citations: tuple[CitationRecord, ...] = ()
    quotes: tuple[tuple[str, int, int], ...] = ()
    quoted: tuple[str, ...] = ()
    verbatim: int = 0
    abstained: bool | None = None
    prompt_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    finish_reason: str = "stop"

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> AnswerRecord:
        """Reads a written row.

        Raises:
            KeyError: A field is missing.
            TypeError: A field is of another kind.
        """
        values = {field.name: row[field.name] for field in fields(cls)}
        values["citations"] = tuple(CitationRecord(**citation) for citation in row["citations"])
        values["quotes"] = tuple((d, int(a), int(b)) for d, a, b in row["quotes"])
        values["quoted"] = tuple(row["quoted"])
        return cls(**values)


class Way(Protocol):
    """Answers questions in one way, several at once."""

    name: str

    def asks(self, item: Item) -> bool:
        """Whether a question tells anything about this way."""

    def __call__(self, items: Sequence[Item]) -> list[AnswerRecord]:
        """Returns what came of each question, in order."""
