"""Where a span may be opened, where it may begin, and what a prior thinks of the places."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recallm_core.decoding.recall_matcher import RecallMatcher
from recallm_core.decoding.state import Bools, ClosedSpan, Cursor, Floats, Prior, Section, SpanBias

if TYPE_CHECKING:
    from recallm_core.decoding.constraint import ConstraintRules


class Openings:
    """The openings of one sequence's spans.

    Assumes that a cursor's spans were closed under the same rules. Guarantees that the answers
    depend on the rules and the cursor alone, the prior's apart, which tilts and never forbids.

    Args:
        rules: Of the prompt.
        prior: Computes the tilt anew whenever a span opens; None: the spec's own, if any.
    """

    def __init__(self, rules: ConstraintRules, prior: Prior | None) -> None:
        self._rules = rules
        self._prior = prior
        self._starts: tuple[tuple[ClosedSpan, ...], Section, Bools] | None = None

    def may_open(self, cursor: Cursor) -> bool:
        """Whether a span may be opened where the output stands."""
        spec = self._rules.spec
        first = spec.evidence is not None and spec.evidence.policy == "first"
        reserved = int(first and cursor.section == "thinking")  # one for the evidence
        if len(cursor.spans) + reserved >= spec.max_spans or not self._rules.index.copyable:
            return False
        if cursor.section == "evidence":
            return spec.recall_in != "none" and self._evidence_left(cursor)
        if first and cursor.section == "answer" and cursor.spans_in("evidence"):
            return False
        return cursor.section in spec.recall_in and self._starts_left(cursor)

    def _evidence_left(self, cursor: Cursor) -> bool:
        evidence = self._rules.spec.evidence
        assert evidence is not None
        spans = cursor.spans_in("evidence")
        copied = sum(len(span.tokens) for span in spans)
        fits = len(spans) < evidence.most and (not spans or copied < evidence.room)
        return fits and self._starts_left(cursor)

    def _starts_left(self, cursor: Cursor) -> bool:
        starts = self._fresh_starts(cursor)
        return starts is None or bool(starts.any())

    def _fresh_starts(self, cursor: Cursor) -> Bools | None:
        """Where a span may begin that repeats nothing of its phase; None: wherever one may."""
        before = cursor.spans_in(cursor.section) if self._rules.spec.evidence else ()
        if not before:
            return None
        known = self._starts
        if known is None or known[0] is not cursor.spans or known[1] != cursor.section:
            whole = cursor.section == "evidence"  # elsewhere part of a quote may be quoted again
            copied = ((span.occurrences, len(span.tokens) if whole else 1) for span in before)
            starts = self._rules.index.starts_outside(copied)
            self._starts = known = (cursor.spans, cursor.section, starts)
        return known[2]

    def span_bias(self, cursor: Cursor) -> SpanBias | None:
        """What is preferred for a span that opens here; where a prior raises, nothing moves."""
        if self._prior is None:
            bias: SpanBias | Floats | None = self._rules.static_prior
        else:
            bias = self._prior(cursor.section, cursor.spans)
        return SpanBias(bias) if isinstance(bias, np.ndarray) else bias

    def matcher(self, cursor: Cursor) -> RecallMatcher:
        """A cursor through the copies of a span that opens here."""
        bias = self.span_bias(cursor)
        return self._rules.index.matcher(
            self._rules.spec.max_span_tokens,
            None if bias is None else bias.start_scores,
            None if bias is None else bias.end_log_odds,
            self._fresh_starts(cursor),
        )
