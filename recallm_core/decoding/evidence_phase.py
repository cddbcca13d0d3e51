"""Between two pieces of evidence, and from the last of them to the words of the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from recallm_core.decoding.openings import Openings
from recallm_core.decoding.sections import Sections
from recallm_core.decoding.state import Cursor, Effect, Mask
from recallm_core.decoding.text_phase import TextPhase

if TYPE_CHECKING:
    from recallm_core.decoding.constraint import ConstraintRules


class EvidencePhase:
    """What an answer begins with under the policy ``first``, its quotes apart.

    Assumes the section ``evidence``. Guarantees that nothing but marks and the lead-in stands
    between quotes, and that the lead-in, once begun, is written to its end.
    """

    def __init__(
        self, rules: ConstraintRules, openings: Openings, sections: Sections, text: TextPhase
    ) -> None:
        self._rules = rules
        self._openings = openings
        self._sections = sections
        self._text = text

    def mask(self, cursor: Cursor, length: int) -> Mask:
        """Another piece of evidence, or on to the words of the answer."""
        spec = self._rules.spec
        assert spec.evidence is not None
        opening, leading = spec.open.ids[0], spec.evidence.lead_in[0]
        only = np.array(sorted({opening, leading}), dtype=np.int64)
        is_choice = opening != leading  # scoring the evidence may take an encoder a second
        bias = self._openings.span_bias(cursor) if is_choice else None
        if bias is None or not bias.open_bias:
            return Mask(only=only)
        return Mask(only=only, bias=(only == opening) * bias.open_bias * spec.prior_weight)

    def step(self, cursor: Cursor, token: int, length: int) -> tuple[Cursor, Effect]:
        """One token of a mark that opens a quote, or of the lead-in."""
        spec = self._rules.spec
        assert spec.evidence is not None
        if cursor.forced and not cursor.leading:
            return self._text.step(cursor, token, length)
        if not cursor.leading and token == spec.open.ids[0]:
            return self._text.step(replace(cursor, forced=spec.open.ids), token, length)
        ahead = cursor.forced or spec.evidence.lead_in
        if len(ahead) > 1:
            return replace(cursor, forced=ahead[1:], leading=True), Effect.LED_IN
        return self._sections.begin_answer(cursor), Effect.LED_IN
