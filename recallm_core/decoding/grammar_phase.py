"""Inside a grammar, which rules a whole answer or a tool call, and after a call."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from recallm_core.decoding.state import Cursor, Effect, Mask
from recallm_core.decoding.text_phase import TextPhase

if TYPE_CHECKING:
    from recallm_core.decoding.constraint import ConstraintRules


class GrammarPhase:
    """A schema's answer, or what stands between the marks of a tool call.

    Assumes a cursor that holds the grammar's matcher. Guarantees that a text is only ended, or a
    call closed, where the grammar is complete; a matcher is never moved, a step makes a new one.
    """

    def __init__(self, rules: ConstraintRules) -> None:
        self._rules = rules

    def mask(self, cursor: Cursor, length: int) -> Mask:
        """What continues the grammar; a whole answer may end where it is complete."""
        spec, grammar = self._rules.spec, cursor.grammar
        assert grammar is not None
        allowed = grammar.allowed_tokens()
        if spec.grammar is not None and spec.grammar.answer is not None and grammar.accepts:
            allowed = np.concatenate([allowed, np.array(spec.eos, dtype=np.int64)])
        return Mask(only=allowed)

    def step(self, cursor: Cursor, token: int, length: int) -> tuple[Cursor, Effect]:
        """One token of a whole answer or of a tool call; a complete call is closed."""
        spec, grammar = self._rules.spec, cursor.grammar
        assert grammar is not None
        assert spec.grammar is not None
        if spec.grammar.answer is not None:
            if token in spec.eos:
                return replace(cursor, section="done", grammar=None), Effect.ENDED
            return replace(cursor, grammar=grammar.after(token)), Effect.TEXT
        if cursor.forced:
            return _closed_further(cursor)
        following = grammar.after(token)
        assert spec.grammar.call_close is not None
        forced = () if following.allowed_tokens().size else spec.grammar.call_close.ids
        return replace(cursor, grammar=following, forced=forced), Effect.CALL


def _closed_further(cursor: Cursor) -> tuple[Cursor, Effect]:
    """One token of the mark that ends a call."""
    rest = cursor.forced[1:]
    if rest:
        return replace(cursor, forced=rest), Effect.CALL
    return replace(cursor, forced=(), grammar=None, calls=cursor.calls + 1), Effect.CALL_CLOSED


class AfterCallPhase:
    """Behind a tool call.

    Assumes that one was closed. Guarantees that nothing follows but the end, or another call where
    several may be made at once.
    """

    def __init__(self, rules: ConstraintRules, text: TextPhase) -> None:
        spec, self._text = rules.spec, text
        ids = [*spec.eos]
        if spec.grammar is not None and spec.grammar.call_open and spec.grammar.parallel:
            ids.append(spec.grammar.call_open.ids[0])
        self._mask = Mask(only=np.array(ids, dtype=np.int64))

    def mask(self, cursor: Cursor, length: int) -> Mask:
        """The end, or another call."""
        return self._mask

    def step(self, cursor: Cursor, token: int, length: int) -> tuple[Cursor, Effect]:
        """As in ordinary output."""
        return self._text.step(cursor, token, length)
