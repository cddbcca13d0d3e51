"""What the phases of a constraint pass on: what is legal, what a token did, where one stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from recallm_core.decoding.evidence_policy import OwnWords
from recallm_core.decoding.grammar import GrammarMatcher
from recallm_core.decoding.recall_matcher import RecallMatcher

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Section = Literal["thinking", "evidence", "answer", "done"]
_FEW = 32  # ids that are looked through sooner as a list
Prior = Callable[["Section", tuple["ClosedSpan", ...]], "SpanBias | Floats | None"]


class Effect(Enum):
    """What a token did."""

    TEXT = "ordinary output"
    OPENED = "the token completed the mark that opens a span"
    COPIED = "the token continues a copy"
    CLOSING = "the token may belong to the closing mark"
    CLOSED = "the token completed the closing mark"
    CALL_OPENED = "the token completed the mark that opens a tool call"
    CALL = "the token is part of a tool call"
    CALL_CLOSED = "the token completed the mark that ends a tool call"
    THINKING_ENDED = "the token completed the mark that ends thinking"
    LED_IN = "the token leads from the evidence to the answer, and belongs to neither"
    ENDED = "the token ends the output"


@dataclass(frozen=True, slots=True)
class ClosedSpan:
    """A finished copy.

    Attributes:
        tokens: The copied ids.
        occurrences: (run, position of the first token) of every copy that may end here.
        section: Where the span was opened.
    """

    tokens: tuple[int, ...]
    occurrences: Sequence[tuple[int, int]]
    section: Section


@dataclass(frozen=True, slots=True, eq=False)
class SpanBias:
    """What a scorer of evidence prefers for the span that opens next; it forbids nothing.

    Attributes:
        start_scores: A log score per run position, runs concatenated.
        end_log_odds: The log odds of closing after the token at a run position; None: nothing.
            What is added to the closing mark's logit weighs all places that the copy may stand at.
        open_bias: Added to the logit of the mark that opens the span, where the only other choice
            is the end of thinking, or of the evidence before an answer.
    """

    start_scores: Floats
    end_log_odds: Floats | None = None
    open_bias: float = 0.0


@dataclass(slots=True)  # made anew for each token of a copy: freezing it takes a microsecond
class Mask:
    """The legal next tokens: either only these, or all but these.

    Attributes:
        only: The legal ids; None when nearly everything is legal.
        forbid: The illegal ids, where ``only`` is None.
        bias: Added to the logits of ``only`` (the prior), or of ``tilted``; None: nothing.
        tilted: Ids that are preferred where ``only`` is None, none of them twice; None: none are.
    """

    only: Ints | None
    forbid: Ints | None = None
    bias: Floats | None = None
    tilted: Ints | None = None

    def allows(self, token: int) -> bool:
        """Whether a token is legal."""
        if self.only is not None:
            return _stands_in(self.only, token)
        assert self.forbid is not None
        return not _stands_in(self.forbid, token)


def _stands_in(ids: Ints, token: int) -> bool:
    if len(ids) <= _FEW:
        return token in ids.tolist()
    return bool((ids == token).any())


NOT_BEGUN = (0, 0, 0, 0)
_NO_WORDS = OwnWords()


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where an output stands; replaced, never changed.

    Only the matcher moves: it grows while its span is copied, in the hands of the one sequence
    that holds it as its current one. So a cursor doesn't change while tokens are copied, and how
    long a copy was at any of them follows from ``opened_at``.

    Attributes:
        section: The section that the next token belongs to.
        spans: What was closed so far.
        matcher: The open span's; None: no span is open.
        opened_at: Tokens of the output before the open span's first.
        closing: Tokens of the closing mark that were read.
        close_from: Length of the copy when the closing mark began.
        copied: Length of the copy where it can't go on, for the closing mark has; None: it can.
        forced: What comes next, whatever the model says.
        watch: How much of a mark the output ends with: open, close, think_close, call_open.
        grammar: What rules a schema's answer or a tool call; never moved: a step replaces it.
        calls: Tool calls closed so far.
        words: What the model has written of its answer, as far as a policy has to know.
        leading: Whether what is forced leads from the evidence to the answer.
        likely: Where among the likely answers the words stand (``likely_words``).
    """

    section: Section
    spans: tuple[ClosedSpan, ...] = ()
    matcher: RecallMatcher | None = None
    opened_at: int = 0
    closing: int = 0
    close_from: int = 0
    copied: int | None = None
    forced: tuple[int, ...] = ()
    watch: tuple[int, int, int, int] = NOT_BEGUN
    grammar: GrammarMatcher | None = None
    calls: int = 0
    words: OwnWords = _NO_WORDS
    leading: bool = False
    likely: int = 0

    def spans_in(self, section: Section) -> tuple[ClosedSpan, ...]:
        """The spans of one section."""
        return tuple(span for span in self.spans if span.section == section)

    def copied_at(self, length: int) -> int:
        """Length of the open span's copy when the output had ``length`` tokens."""
        return length - self.opened_at if self.copied is None else self.copied


class Phase(Protocol):
    """What is legal in one phase of an output, and where a legal token leads.

    A phase remembers nothing between two calls: both are functions of where the output stands
    and of how many tokens it has. What a cursor forces is legal alone, in any phase, which so
    never has to say what is legal there.
    """

    def mask(self, cursor: Cursor, length: int) -> Mask:
        """Returns the legal next tokens, at least one; nothing is forced."""

    def step(self, cursor: Cursor, token: int, length: int) -> tuple[Cursor, Effect]:
        """Returns where a legal token leads, and what it does; ``length`` doesn't count it."""


def only_mask(*ids: int) -> Mask:
    """The mask by which these ids alone are legal."""
    return Mask(only=np.array(ids, dtype=np.int64))
