"""Inside a span: tokens that go on with a copy, and the mark that closes it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from recallm_core.decoding.recall_matcher import RecallMatcher
from recallm_core.decoding.sections import Sections
from recallm_core.decoding.state import (
    NOT_BEGUN,
    ClosedSpan,
    Cursor,
    Effect,
    Floats,
    Ints,
    Mask,
    Section,
    only_mask,
)
from recallm_core.decoding.thinking_budget import ThinkingBudget

if TYPE_CHECKING:
    from recallm_core.decoding.constraint import ConstraintRules


class SpanPhase:
    """A span, from its opening mark to its closing one.

    Assumes a cursor that holds the span's matcher, which stands where the cursor says. Guarantees
    that whatever is legal keeps to a copy, that a span can always be closed later, and that it is
    closed only at a legal end. A closing mark of text may be part of a copy as well: both readings
    stay open until one of them ends.
    """

    def __init__(
        self, rules: ConstraintRules, sections: Sections, thinking: ThinkingBudget
    ) -> None:
        self._rules = rules
        self._sections = sections
        self._thinking = thinking
        self._mark = rules.spec.close.ids
        self._first = self._mark[0]
        self._alone = np.array([self._first], dtype=np.int64)  # copies of these two become masks
        self._or_closing = np.array([self._first] * 2, dtype=np.int64)

    def mask(self, cursor: Cursor, length: int) -> Mask:
        """What goes on with the copy, and the closing mark where it may end."""
        matcher = cursor.matcher
        assert matcher is not None
        sole = None if cursor.closing else matcher.sole_choice()
        if sole is None or sole[0] == self._first:
            return self._mask_of_many(cursor, matcher, length)
        if cursor.section == "thinking" and self._must_close(cursor, matcher, length):
            return self._mask_of_many(cursor, matcher, length)
        token, closes = sole
        only = (self._or_closing if closes else self._alone).copy()
        only[0] = token
        bias = self._tilt_of_closing(matcher) if closes and matcher.has_odds else None
        return Mask(only, None, bias)

    def _tilt_of_closing(self, matcher: RecallMatcher) -> Floats | None:
        """What is added where the copy may go on in one way, or end; None: nothing."""
        tilt = matcher.close_tilt() * self._rules.spec.prior_weight
        return np.array([0.0, tilt]) if tilt else None

    def _must_close(self, cursor: Cursor, matcher: RecallMatcher, length: int) -> bool:
        """Whether thinking has to end, and the span before it."""
        return self._thinking.spent(cursor, length) and matcher.can_close

    def _mask_of_many(self, cursor: Cursor, matcher: RecallMatcher, length: int) -> Mask:
        """The same where there are several ways on, or closing has begun."""
        mark = self._mark
        if cursor.copied is not None:
            return only_mask(mark[cursor.closing])
        ends = matcher.can_close
        allowed = self._copyable(cursor, matcher, length)
        bias = self._tilt(matcher, allowed)
        extra = ([mark[cursor.closing]] if cursor.closing else []) + ([mark[0]] if ends else [])
        extra = [i for i in dict.fromkeys(extra) if not (allowed == i).any()]
        if not extra:
            return Mask(only=allowed, bias=bias)
        only = np.concatenate([allowed, np.array(extra, dtype=np.int64)])
        closing = matcher.close_tilt() * self._rules.spec.prior_weight if mark[0] in extra else 0.0
        if bias is None and not closing:
            return Mask(only=only)
        bias = np.zeros(len(allowed)) if bias is None else bias
        tilt = np.array([closing if i == mark[0] and ends else 0.0 for i in extra])
        return Mask(only=only, bias=np.concatenate([bias, tilt]))

    def _copyable(self, cursor: Cursor, matcher: RecallMatcher, length: int) -> Ints:
        """What continues the copy; nothing at a legal end once thinking has to end."""
        allowed = matcher.allowed_tokens()
        return allowed[:0] if self._must_close(cursor, matcher, length) else allowed

    def _tilt(self, matcher: RecallMatcher, allowed: Ints) -> Floats | None:
        if not matcher.has_prior or allowed.size < 2:
            return None
        return matcher.log_prior(allowed) * self._rules.spec.prior_weight

    def copies(self, cursor: Cursor, token: int, length: int) -> bool:
        """Goes on with the copy if a token can mean nothing else; the cursor stays what it is.

        False: it was no such token, legal or not, and nothing has happened.
        """
        matcher = cursor.matcher
        if matcher is None or cursor.closing or token == self._first:
            return False
        if cursor.section == "thinking" and self._must_close(cursor, matcher, length):
            return False
        return matcher.extend(token)

    def step(self, cursor: Cursor, token: int, length: int) -> tuple[Cursor, Effect]:
        """One token of the closing mark, or of what may be that or a copy."""
        matcher, mark = _matcher(cursor), self._mark
        copying = cursor.copied is None
        copies = copying and bool((self._copyable(cursor, matcher, length) == token).any())
        closing, start = 0, cursor.close_from
        if cursor.closing and token == mark[cursor.closing]:
            closing = cursor.closing + 1
        elif copying and token == mark[0] and matcher.can_close:
            closing, start = 1, matcher.length
        if closing == len(mark):
            return self._close(cursor, matcher, start), Effect.CLOSED
        if copies:
            matcher.consume_token(token)
        copied = matcher.length if closing and not copies else None
        cursor = replace(cursor, closing=closing, close_from=start, copied=copied)
        return cursor, Effect.CLOSING if closing else Effect.COPIED

    def _close(self, cursor: Cursor, matcher: RecallMatcher, length: int) -> Cursor:
        span = _closed_span(matcher, length, cursor.section)
        cursor = replace(
            cursor,
            spans=(*cursor.spans, span),
            matcher=None,
            closing=0,
            close_from=0,
            copied=None,
            watch=NOT_BEGUN,
        )
        return self._sections.after_evidence(cursor) if cursor.section == "evidence" else cursor

    def cut(self, cursor: Cursor) -> ClosedSpan | None:
        """The open span cut back to its last legal end; None: there is none.

        A closing mark that has begun counts.
        """
        matcher = _matcher(cursor)
        if cursor.closing:
            return _closed_span(matcher, cursor.close_from, cursor.section)
        matcher = matcher.copy()
        while matcher.length and not matcher.can_close:
            matcher.rollback(1)
        return _closed_span(matcher, matcher.length, cursor.section) if matcher.length else None

    def draft(self, cursor: Cursor, count: int, length: int) -> list[int]:
        """The only way on, closing not counted: at most ``count`` tokens."""
        matcher = _matcher(cursor)
        if cursor.closing:
            rest = self._mark[cursor.closing :]
            return [] if cursor.copied is None else list(rest[:count])
        if not self._copyable(cursor, matcher, length).size:
            return []
        forced: list[int] = matcher.draft(count).tolist()
        free = max(self._rules.spec.max_span_tokens - matcher.length, 0)
        thinking = self._thinking.tokens_left(cursor, length)
        free = free if thinking is None else min(free, thinking)
        return forced if len(forced) <= free else _up_to_limit(matcher.copy(), forced, free)


def _up_to_limit(matcher: RecallMatcher, forced: list[int], free: int) -> list[int]:
    """As much of a draft as is legal where a legal end behind ``free`` tokens has to be taken."""
    for count, token in enumerate(forced):
        if count >= free and matcher.can_close:
            return forced[:count]
        matcher.consume_token(token)
    return forced


def _matcher(cursor: Cursor) -> RecallMatcher:
    assert cursor.matcher is not None
    return cursor.matcher


def _closed_span(matcher: RecallMatcher, length: int, section: Section) -> ClosedSpan:
    """The span that the first ``length`` copied tokens make."""
    if matcher.length != length:
        matcher = matcher.copy()
        matcher.rollback(matcher.length - length)
    return ClosedSpan(matcher.tokens, matcher.closing_occurrences(), section)


def in_own_hands(cursor: Cursor, length: int) -> Cursor:
    """A cursor whose matcher nobody else moves, standing where an output of ``length`` has it."""
    if cursor.matcher is None:
        return cursor
    matcher = cursor.matcher.copy()
    matcher.rollback(matcher.length - cursor.copied_at(length))
    return replace(cursor, matcher=matcher)
