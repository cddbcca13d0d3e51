"""The form of answer in which only marks stand outside of spans (``answer_form="quote"``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recallm_core.decoding.openings import Openings
from recallm_core.decoding.state import Cursor, Effect, Mask
from recallm_core.decoding.text_phase import TextPhase

if TYPE_CHECKING:
    from recallm_core.decoding.constraint import ConstraintRules


class QuotePhase:
    """Outside of the spans of an output that is nothing but quotes.

    Assumes control tokens as marks, which the spec has checked, and neither a grammar nor a policy
    of evidence. Guarantees at most one span in the answer, for which thinking leaves one over.
    """

    def __init__(self, rules: ConstraintRules, openings: Openings, text: TextPhase) -> None:
        self._rules = rules
        self._openings = openings
        self._text = text

    def mask(self, cursor: Cursor, length: int) -> Mask:
        """Only marks: spans while thinking, the last of them kept for the answer, then one span."""
        spec, thinking = self._rules.spec, cursor.section == "thinking"
        quoted = any(span.section == "answer" for span in cursor.spans)
        spare = spec.max_spans - len(cursor.spans)
        may_open = self._openings.may_open(cursor) and not quoted and spare > (1 if thinking else 0)
        opening = spec.open.ids if may_open else ()
        if thinking:
            assert spec.think_close is not None
            ending: tuple[int, ...] = spec.think_close.ids
        else:
            ending = () if opening else spec.eos
        only = np.array(sorted({*opening, *ending}), dtype=np.int64)
        bias = self._openings.span_bias(cursor) if cursor.spans and opening and ending else None
        if bias is None or not bias.open_bias:
            return Mask(only=only)
        return Mask(only=only, bias=(only == opening[0]) * bias.open_bias * spec.prior_weight)

    def step(self, cursor: Cursor, token: int, length: int) -> tuple[Cursor, Effect]:
        """One mark, as in ordinary output."""
        return self._text.step(cursor, token, length)
