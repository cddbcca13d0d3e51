"""The quotes that an answer owes: it can't end before, and one is forced at a sentence's end."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from recallm_core.decoding.openings import Openings
from recallm_core.decoding.state import NOT_BEGUN, Cursor, Mask

if TYPE_CHECKING:
    from recallm_core.decoding.constraint import ConstraintRules

_NUMBER_ENDED = 8.0  # how much a quote is preferred to decimals, in logits, where both may follow


class OwedQuotes:
    """What the policies of evidence ask of an answer's words.

    Assumes ordinary output: no span open, no grammar. Guarantees that an answer which owes a quote
    (``required``) can't end without one as long as a span can be opened, unless the model says
    that the documents hold no answer; and that an answer behind its evidence (``first``) has words.
    """

    def __init__(self, rules: ConstraintRules, openings: Openings) -> None:
        self._rules = rules
        self._openings = openings
        self._evidence = rules.spec.evidence

    def owes(self, cursor: Cursor) -> bool:
        """Whether the answer can't end before a quote (policy ``required``)."""
        return (
            self._evidence is not None
            and self._evidence.policy == "required"
            and cursor.section == "answer"
            and not cursor.spans
            and not cursor.words.said
            and self._openings.may_open(cursor)
        )

    def begins_words(self, cursor: Cursor) -> bool:
        """Whether the words of an answer are due, and none was written yet (policy ``first``)."""
        return (
            self._evidence is not None
            and self._evidence.policy == "first"
            and cursor.section == "answer"
            and not cursor.words.count
            and bool(cursor.spans_in("evidence"))
        )

    def mask(self, cursor: Cursor) -> Mask:
        """Where a quote is owed: anything but the end; behind a number's full stop, a choice."""
        assert self._evidence is not None
        if not cursor.words.perhaps:
            return self._rules.text_masks.mask(cursor, True, self._rules.ends)
        opening = self._rules.spec.open.ids[0]
        only = np.array(sorted({opening, *self._evidence.numbers}), dtype=np.int64)
        return Mask(only=only, bias=(only == opening) * _NUMBER_ENDED)

    def before(self, cursor: Cursor, token: int) -> Cursor:
        """Takes a mark behind a number's full stop for what it is: the sentence had ended."""
        opening = self._rules.spec.open.ids
        if cursor.words.perhaps and token == opening[0] and self.owes(cursor):
            return replace(cursor, forced=opening[1:])
        return cursor

    def after(self, cursor: Cursor, token: int) -> Cursor:
        """Takes note of a word, and forces a quote open where a sentence ends without one."""
        if self._evidence is None or cursor.forced:
            return cursor
        if self.begins_words(cursor):
            return replace(cursor, words=replace(cursor.words, count=1))
        if not self.owes(cursor):
            return cursor
        cursor = replace(cursor, words=cursor.words.after(token, self._evidence))
        if not (cursor.words.ended and self.owes(cursor)):
            return cursor
        return replace(cursor, forced=self._rules.spec.open.ids, watch=NOT_BEGUN)
