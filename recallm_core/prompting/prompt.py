"""A prompt: what the model reads, what of it may be quoted, and what its copies mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recallm_core.decoding.constraint import ClosedSpan, ConstraintRules
from recallm_core.decoding.spec import ConstraintSpec
from recallm_core.documents.document import Location, Passage
from recallm_core.evidence.protocol import Evidence, Places, Range
from recallm_core.prompting.params import ResolvedParams
from recallm_core.prompting.recipe import Recipe
from recallm_core.tokenization.boundary_tables import Run

MESSAGE = "message:"  # ids of the user's messages where they may be quoted


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What the model reads, and what its copies mean.

    Attributes:
        token_ids: The whole prompt.
        passages: What may be quoted, in prompt order.
        runs: Copyable runs, numbered as in the constraint.
        spec: The rules as one value.
        rules: The rules bound to their index.
        prefix_length: Tokens before the first message: what further questions over the same
            passages share (the passages too, where the question stands last).
        question: The last question asked.
        searched: The same with what the conversation is about, where the question leaves that out.
        recipe: How the model is driven.
        params: The settings, all filled in.
        evidence: What scores the evidence, where that was asked for.
    """

    token_ids: NDArray[np.int32]
    passages: tuple[Passage, ...]
    runs: tuple[Run, ...]
    spec: ConstraintSpec
    rules: ConstraintRules
    prefix_length: int
    question: str
    searched: str
    recipe: Recipe
    params: ResolvedParams
    evidence: Evidence | None = None

    @property
    def places(self) -> Places:
        """Where a span may stand."""
        owed = self.spec.evidence
        room = None if owed is None else owed.room
        return Places(self.passages, self.runs, self.spec.can_start, self.spec.can_end, room)

    def locate(self, run: int, position: int, length: int) -> Range:
        """Returns (passage, start, end) of copied tokens in that passage's text, trimmed."""
        return self.places.locate(run, position, length)

    def recalled(self, spans: Sequence[ClosedSpan]) -> list[Range]:
        """Returns (passage, start, end) of closed spans, each at its first occurrence."""
        return self.places.locate_spans(spans)

    def place(self, passage: int, start: int, end: int) -> Location:
        """Returns a passage's character range as a range of its document."""
        source = self.passages[passage]
        return Location(source.document_id, source.start + start, source.start + end)
