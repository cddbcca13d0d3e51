"""One sequence's decoding state: thinking, recalling, answering; which tokens are legal in each.

A constraint is a pure function of the rules and the tokens consumed, so that every backend gives
the same allowed sets, and any prefix can be replayed (beams, preemption, speculative decoding).
What is legal in one phase of an output, and where a token leads, is the phase's own module.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recallm_core.decoding.evidence_phase import EvidencePhase
from recallm_core.decoding.grammar import GrammarEngine
from recallm_core.decoding.grammar_phase import AfterCallPhase, GrammarPhase
from recallm_core.decoding.likely_words import LikelyWords
from recallm_core.decoding.openings import Openings
from recallm_core.decoding.owed_quotes import OwedQuotes
from recallm_core.decoding.quote_form import QuotePhase
from recallm_core.decoding.recall_index import RecallIndex
from recallm_core.decoding.recall_matcher import RecallMatcher
from recallm_core.decoding.sections import Sections
from recallm_core.decoding.span_phase import SpanPhase, in_own_hands
from recallm_core.decoding.spec import ConstraintSpec
from recallm_core.decoding.state import (
    NOT_BEGUN,
    ClosedSpan,
    Cursor,
    Effect,
    Floats,
    Ints,
    Mask,
    Phase,
    Prior,
    Section,
    SpanBias,
    only_mask,
)
from recallm_core.decoding.text_phase import TextMasks, TextPhase
from recallm_core.decoding.thinking_budget import ThinkingBudget
from recallm_core.errors import ConstraintError

__all__ = [
    "ClosedSpan",
    "Constraint",
    "ConstraintRules",
    "Effect",
    "Ints",
    "Mask",
    "Prior",
    "Section",
    "SpanBias",
    "build_index",
]

_COPIED = Effect.COPIED  # looked up for each token of a copy


class ConstraintRules:
    """A spec bound to its index: what all sequences over one prompt share."""

    def __init__(
        self, spec: ConstraintSpec, index: RecallIndex, engine: GrammarEngine | None = None
    ) -> None:
        if spec.grammar is not None and engine is None:
            raise ConstraintError("rules with a grammar need a grammar engine")
        self.spec = spec
        self.index = index
        self.engine = engine
        controls = {i for tag in spec.tags if tag.control for i in tag.ids}
        reserved = np.array(sorted(controls | set(spec.eos) | set(spec.forbidden)), dtype=np.int32)
        clash = index.alphabet[np.isin(index.alphabet, reserved)].tolist()
        if clash:
            raise ConstraintError(
                f"control tokens {clash[:5]} stand inside copyable runs; "
                "the prompt must encode documents as plain text"
            )
        self.static_prior: Floats | None = (
            None if spec.prior is None else spec.prior.astype(np.float64)
        )
        self.text_masks = TextMasks(spec)
        self.ends = frozenset(spec.eos)
        blank = frozenset() if spec.evidence is None else spec.evidence.blank
        self.nothing = self.ends | blank  # what would leave an answer without words
        self.acting = _acting(spec)
        self.likely = None if spec.likely is None else LikelyWords(spec.likely, spec.prior_weight)

    @classmethod
    def from_spec(
        cls,
        spec: ConstraintSpec,
        prompt_ids: Sequence[int] | NDArray[np.int32],
        engine: GrammarEngine | None = None,
    ) -> ConstraintRules:
        """Binds a spec to the prompt that a worker really has.

        Where the prompt isn't the one that the spec was made for, recall stays closed: no span can
        be opened, and the client notices because no span comes.
        """
        ids = np.asarray(prompt_ids, dtype=np.int32)
        if not spec.is_for(ids):
            closed = replace(spec, recall_in="none")
            return cls(closed, RecallIndex([], vocab_size=spec.vocab_size), engine)
        return cls(spec, build_index(spec, ids), engine)

    def start(self, prior: Prior | None = None) -> Constraint:
        """Returns the state of a fresh sequence.

        Args:
            prior: Computes the tilt anew whenever a span opens, from the section and the spans so
                far; None: the static prior of the spec, if any.
        """
        return Constraint(self, prior)


def _acting(spec: ConstraintSpec) -> frozenset[int]:
    """Every id that may be more than a word of ordinary output, where no mark has begun."""
    ids = {*spec.forbidden, *spec.eos}
    for tag in spec.tags:
        ids.update(tag.ids, *tag.watch[:1])
    return frozenset(ids)


def build_index(spec: ConstraintSpec, prompt_ids: NDArray[np.int32]) -> RecallIndex:
    """Builds the index of a spec's runs over its prompt."""
    return RecallIndex(
        [prompt_ids[a:b] for a, b in spec.runs],
        vocab_size=spec.vocab_size,
        can_start=spec.can_start,
        can_end=spec.can_end,
        can_end_hard=spec.can_end_hard,
    )


class _Phases:
    """The phases of one sequence's output, and which of them a cursor stands in."""

    def __init__(self, rules: ConstraintRules, prior: Prior | None) -> None:
        openings = Openings(rules, prior)
        self.thinking = ThinkingBudget(rules.spec)
        self.sections = Sections(rules, openings)
        self.span = SpanPhase(rules, self.sections, self.thinking)
        text = TextPhase(rules, openings, self.sections, OwedQuotes(rules, openings))
        self._text = text
        self._evidence = EvidencePhase(rules, openings, self.sections, text)
        self._grammar = GrammarPhase(rules)
        self._after_call = AfterCallPhase(rules, text)
        only_marks = rules.spec.answer_form == "quote" and rules.spec.grammar is None
        self._outside: Phase = QuotePhase(rules, openings, text) if only_marks else text

    def of(self, cursor: Cursor) -> Phase:
        """The phase that says what is legal here, and where it leads."""
        if cursor.matcher is not None:
            return self.span
        if cursor.grammar is not None:
            return self._grammar
        if cursor.calls:
            return self._after_call
        return self._evidence if cursor.section == "evidence" else self._outside

    def words_until(self, cursor: Cursor) -> int:
        """The length of output up to which no word moves a cursor that one hasn't moved."""
        words = cursor.watch == NOT_BEGUN and not cursor.forced and self.of(cursor) is self._text
        return self.thinking.until(cursor) if words and not self._text.likely_words(cursor) else 0


class Constraint:
    """The cursor of one sequence: ``mask`` says what is legal, ``consume`` moves on.

    Assumes one thread at a time. Guarantees that at least one token is legal at any place, that
    equal rules and equal tokens give equal masks, however a place was reached (rolled back to,
    copied, replayed), and that an illegal token raises and changes nothing.
    """

    def __init__(self, rules: ConstraintRules, prior: Prior | None = None) -> None:
        self.rules = rules
        self._phases = _Phases(rules, prior)
        self._span = self._phases.span
        self._history: list[Cursor] = []  # where the output stood before each token
        self._mask: Mask | None = None
        self._steady: Cursor | None = None  # words leave it as it is, and so what is legal
        self._steady_until = 0
        cursor = Cursor("thinking" if rules.spec.thinking else "answer")
        if not rules.spec.thinking:
            cursor = self._phases.sections.after_thinking(cursor)
        self._cursor = self._phases.thinking.enforce(cursor, 0)

    @property
    def section(self) -> Section:
        """Where the output stands."""
        return self._cursor.section

    @property
    def in_span(self) -> bool:
        """Whether a span is open (its closing mark may have begun)."""
        return self._cursor.matcher is not None

    @property
    def in_grammar(self) -> bool:
        """Whether a grammar rules what comes next: a schema's answer, or a tool call."""
        return self._cursor.grammar is not None

    @property
    def done(self) -> bool:
        """Whether an end-of-sequence token was consumed."""
        return self._cursor.section == "done"

    @property
    def spans(self) -> tuple[ClosedSpan, ...]:
        """The spans closed so far."""
        return self._cursor.spans

    @property
    def length(self) -> int:
        """Tokens consumed so far."""
        return len(self._history)

    @property
    def matcher(self) -> RecallMatcher | None:
        """The open span's matcher, for looking only."""
        return self._cursor.matcher

    @property
    def watched_characters(self) -> int:
        """Characters at the end of the output that may turn out to begin a mark."""
        return max(self._cursor.watch)

    def mask(self) -> Mask:
        """Returns the legal next tokens; there is always at least one."""
        mask = self._mask
        if mask is None:
            cursor, length = self._cursor, len(self._history)
            inside = cursor.matcher is not None
            mask = self._span.mask(cursor, length) if inside else self._mask_outside(cursor)
            self._mask = mask
        return mask

    def _mask_outside(self, cursor: Cursor) -> Mask:
        """What is legal where no span is open."""
        if cursor.section == "done":
            return only_mask(*self.rules.spec.eos[:1])
        if cursor.forced:
            return only_mask(cursor.forced[0])
        return self._phases.of(cursor).mask(cursor, self.length)

    def consume(self, token: int) -> Effect:
        """Moves on by one token and says what it did.

        Raises:
            ConstraintError: The token isn't legal here; the state stays as it was.
        """
        before = self._cursor
        if before is self._steady and self._is_word(token):
            self._history.append(before)
            return Effect.TEXT
        if before.matcher is not None and self._span.copies(before, token, len(self._history)):
            self._history.append(before)
            self._mask = None
            return _COPIED
        if not 0 <= token < self.rules.spec.vocab_size or not self.mask().allows(token):
            raise ConstraintError(
                f"token {token} isn't legal at output position {self.length} "
                f"({self._where()}); backends must choose within mask()"
            )
        if before.section == "done":
            after, effect = before, Effect.ENDED
        else:
            after, effect = self._phases.of(before).step(before, token, self.length)
        self._history.append(before)
        if after is before is not self._steady and effect is Effect.TEXT:
            self._steady, self._steady_until = before, self._phases.words_until(before)
        self._cursor = self._phases.thinking.enforce(after, self.length)
        self._mask = None
        return effect

    def _is_word(self, token: int) -> bool:
        """Whether a token moves nothing where the output stands; False: it may."""
        if len(self._history) + 1 >= self._steady_until or token in self.rules.acting:
            return False
        return 0 <= token < self.rules.spec.vocab_size

    def _where(self) -> str:
        return "inside a span" if self.in_span else f"in the {self._cursor.section}"

    def cut_span(self) -> ClosedSpan | None:
        """The open span as it would be if the output ended here, cut back to its last legal end.

        A closing mark that has begun counts. None: no span is open, or nothing of it can be kept.
        """
        return self._span.cut(self._cursor) if self.in_span else None

    def rollback(self, count: int) -> None:
        """Takes back the last ``count`` tokens."""
        if not 0 <= count <= self.length:
            raise ConstraintError(
                f"can't take back {count} tokens, only {self.length} were consumed"
            )
        if not count:
            return
        cursor = self._history[-count]
        del self._history[-count:]
        self._cursor = in_own_hands(cursor, self.length)
        self._mask = None

    def copy(self) -> Constraint:
        """Returns an independent state at the same place."""
        other = copy.copy(self)
        other._history = list(self._history)
        other._cursor = in_own_hands(self._cursor, self.length)
        return other

    def draft(self, count: int) -> list[int]:
        """Returns tokens that are worth proposing: the only way on, closing not counted.

        Each is legal after those before it. Feed them to the model in one pass, then choose at each
        place under ``mask()`` and stop at the first that differs.
        """
        cursor, count = self._cursor, max(count, 0)
        if cursor.forced:
            return list(cursor.forced[:count])
        return self._span.draft(cursor, count, self.length) if self.in_span else []
