"""How one section of an output follows another: thinking, evidence, answer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from recallm_core.decoding.openings import Openings
from recallm_core.decoding.state import NOT_BEGUN, Cursor

if TYPE_CHECKING:
    from recallm_core.decoding.constraint import ConstraintRules


class Sections:
    """The seams between sections.

    Assumes a cursor that stands at the seam in question. Guarantees that evidence is only due
    where a span can be opened for it, so that nothing waits for a quote that can't come.
    """

    def __init__(self, rules: ConstraintRules, openings: Openings) -> None:
        self._rules = rules
        self._openings = openings

    def after_thinking(self, cursor: Cursor) -> Cursor:
        """The state when thinking is over: evidence is due, or the answer begins."""
        spec = self._rules.spec
        if spec.evidence is not None and spec.evidence.policy == "first":
            due = replace(cursor, section="evidence", forced=spec.open.ids, watch=NOT_BEGUN)
            if self._openings.may_open(due):
                return due
        return self.begin_answer(cursor)

    def after_evidence(self, cursor: Cursor) -> Cursor:
        """What follows a piece of evidence: another that is due, the answer, or a choice."""
        spec = self._rules.spec
        assert spec.evidence is not None
        if not self._openings.may_open(cursor):
            return replace(cursor, forced=spec.evidence.lead_in, leading=True)
        due = len(cursor.spans_in("evidence")) < spec.evidence.least
        return replace(cursor, forced=spec.open.ids) if due else cursor

    def begin_answer(self, cursor: Cursor) -> Cursor:
        """The state at the beginning of the answer: a grammar takes over, or a call is due."""
        grammar, engine = self._rules.spec.grammar, self._rules.engine
        cursor = replace(cursor, section="answer", forced=(), watch=NOT_BEGUN, leading=False)
        if grammar is None or engine is None:
            return cursor
        if grammar.answer is not None:
            return replace(cursor, grammar=engine.matcher(grammar.answer))
        if grammar.required and grammar.call_open is not None:
            return replace(cursor, forced=grammar.call_open.ids)
        return cursor
