"""What a scorer of evidence is: one protocol, on one scale, that knows neither prompts nor models.

A scorer reads the passages of a pack once. Asked a question over them, it says three things: where
a quote is likely to start and end, whether another quote is due, and how well what was quoted fits
the question, in [0, 1]. All of it tilts what a model chooses, and forbids nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from recallm_core.decoding.constraint import ClosedSpan, Section, SpanBias
from recallm_core.documents.document import Passage
from recallm_core.tokenization.boundary_tables import Run

Bools = NDArray[np.bool_]
Floats32 = NDArray[np.float32]

Range = tuple[int, int, int]  # (passage, start, end) in characters of the passage


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where in a prompt a span may stand.

    Attributes:
        passages: What may be quoted, in prompt order.
        runs: Their copyable runs.
        can_start, can_end: One bool per run position, runs concatenated.
        room: Tokens of the output for quotes that are owed; None: as many as they take.
    """

    passages: tuple[Passage, ...]
    runs: tuple[Run, ...]
    can_start: Bools
    can_end: Bools
    room: int | None = None

    def locate(self, run: int, position: int, length: int) -> Range:
        """Returns (passage, start, end) of copied tokens in that passage's text, trimmed."""
        tokens = self.runs[run]
        text = self.passages[tokens.passage].text
        start, end = int(tokens.starts[position]), int(tokens.ends[position + length - 1])
        quote = text[start:end]
        start += len(quote) - len(quote.lstrip())
        return tokens.passage, start, start + len(quote.strip())

    def locate_spans(self, spans: Sequence[ClosedSpan]) -> list[Range]:
        """Returns (passage, start, end) of closed spans, each at its first occurrence."""
        return [
            self.locate(run, position, len(span.tokens))
            for span in spans
            for run, position in span.occurrences[:1]
        ]


@dataclass(frozen=True, slots=True)
class Recall:
    """What was quoted before an answer.

    Attributes:
        passage: Number of the passage.
        text: The quote.
    """

    passage: int
    text: str


class Evidence(Protocol):
    """What a scorer says of one question over one prompt; safe to ask from many threads.

    Whoever makes one does the work for the first quote at once, so that nothing has to wait for it
    later; what comes after a quote is scored when ``bias`` is asked for it.
    """

    @property
    def start_scores(self) -> Floats32:
        """A finite log score per run position: where the first quote is likely to start."""

    @property
    def due(self) -> int:
        """How many quotes it takes, probably, to hold the evidence; at least 1."""

    def bias(self, section: Section, spans: tuple[ClosedSpan, ...]) -> SpanBias:
        """Returns what is preferred for the next quote, and whether there should be one.

        Args:
            section: Where in the output it would open.
            spans: The quotes so far.
        """

    def fit(self, recalled: Sequence[Recall]) -> float | None:
        """Returns how well the evidence fits the question, from 0 to 1; None: it can't be said.

        Args:
            recalled: What was quoted before the answer.
        """


@runtime_checkable
class AnswerJudge(Protocol):
    """What evidence may say besides: how probable it is that a quoted answer is right."""

    def confidence(self, recalled: Sequence[Range], answer: Range) -> float | None:
        """Returns a probability, at most that of there being an answer; None: it can't be said.

        Args:
            recalled: What was quoted before the answer.
            answer: The answer's place.
        """


@dataclass(frozen=True, slots=True)
class LikelyAnswer:
    """A piece of the evidence that may be the answer.

    Attributes:
        text: The piece.
        share: How probable it is to be the answer, against the others and against none, in (0, 1].
    """

    text: str
    share: float


@runtime_checkable
class AnswerFinder(Protocol):
    """What evidence may say besides: which pieces of it are likely to be the answer."""

    def likely_answers(self) -> Sequence[LikelyAnswer]:
        """Returns them, the likeliest first; none where it can't be said."""


Scorer = Callable[[str, Places, "int | None"], Evidence]
"""Asks about a question over the places of a prompt. The number is how many quotes the output may
owe before it may end; None: it owes none, and quotes stand where the model opens them."""

ScorerFactory = Callable[[Sequence[Passage]], Scorer]
"""Reads the texts and titles of a pack's passages; packs with equal ones share a scorer."""
