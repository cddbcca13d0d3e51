"""Ordinary output, and the marks in it: control tokens, or text that is watched for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from recallm_core.decoding.likely_words import LEFT, LikelyWords
from recallm_core.decoding.openings import Openings
from recallm_core.decoding.owed_quotes import OwedQuotes
from recallm_core.decoding.sections import Sections
from recallm_core.decoding.spec import ConstraintSpec, Tag
from recallm_core.decoding.state import NOT_BEGUN, Cursor, Effect, Ints, Mask

if TYPE_CHECKING:
    from recallm_core.decoding.constraint import ConstraintRules

Marks = tuple[int, int, int, int]


class TextMasks:
    """The masks of ordinary output, which depend on little: made once for all sequences."""

    def __init__(self, spec: ConstraintSpec) -> None:
        self._spec = spec
        self._masks: dict[tuple[str, bool, int, Marks], Mask] = {}

    def mask(self, cursor: Cursor, may_open: bool, also: frozenset[int] = frozenset()) -> Mask:
        """What may follow ordinary output.

        Args:
            cursor: Where the output stands.
            may_open: Whether a span may be opened here.
            also: Ids that are illegal besides; always the same object for the same ids.
        """
        key = (cursor.section, may_open, id(also), cursor.watch)
        mask = self._masks.get(key)
        if mask is None:
            mask = self._masks[key] = Mask(
                only=None, forbid=self._forbidden_ids(*key[:2], also, key[3])
            )
        return mask

    def _forbidden_ids(
        self, section: str, may_open: bool, also: Iterable[int], watch: Marks
    ) -> Ints:
        spec, thinking = self._spec, section == "thinking"
        ids = set(spec.forbidden)
        ids.update(spec.open.passers(watch[0]) if may_open else spec.open.finishers(watch[0]))
        ids.update(spec.close.finishers(watch[1]))
        if thinking:
            ids.update(spec.eos)
        ending = spec.think_close
        if ending is not None:
            ids.update(ending.passers(watch[2]) if thinking else ending.finishers(watch[2]))
        if spec.grammar is not None and spec.grammar.call_open is not None:
            mark, closing = spec.grammar.call_open, spec.grammar.call_close
            ids.update(mark.finishers(watch[3]) if thinking else mark.passers(watch[3]))
            ids.update(closing.ids if closing is not None and closing.control else ())
        if not thinking:
            ids.difference_update(spec.eos)
        ids.update(also)
        return np.array(sorted(i for i in ids if 0 <= i < spec.vocab_size), dtype=np.int64)


class TextPhase:
    """Ordinary output, in thinking and in the answer.

    Assumes that no span and no grammar is open. Guarantees that a mark is written where it acts
    and nowhere else, in its one spelling once it has begun, across token boundaries too, and that
    no token carries text past its end.
    """

    def __init__(
        self, rules: ConstraintRules, openings: Openings, sections: Sections, owed: OwedQuotes
    ) -> None:
        self._rules = rules
        self._openings = openings
        self._sections = sections
        self._owed = owed
        grammar = rules.spec.grammar
        self._call = grammar.call_open if grammar else None

    def mask(self, cursor: Cursor, length: int) -> Mask:
        """Nearly everything, but for marks where they don't act, and what the answer owes."""
        if self._owed.owes(cursor):
            return self._owed.mask(cursor)
        also = self._rules.nothing if self._owed.begins_words(cursor) else frozenset()
        mask = self._rules.text_masks.mask(cursor, self._openings.may_open(cursor), also)
        likely = self.likely_words(cursor)
        tilt = None if likely is None else likely.tilt(cursor.likely)
        return mask if tilt is None else Mask(None, mask.forbid, bias=tilt[1], tilted=tilt[0])

    def likely_words(self, cursor: Cursor) -> LikelyWords | None:
        """What the words here may still go like; None: they go their own way."""
        follows = cursor.section == "answer" and cursor.likely != LEFT
        return self._rules.likely if follows else None

    def step(self, cursor: Cursor, token: int, length: int) -> tuple[Cursor, Effect]:
        """One token; it may end the output, or complete a mark."""
        spec, forced = self._rules.spec, cursor.forced
        if forced:
            cursor = replace(cursor, forced=forced[1:])
        if token in spec.eos and not cursor.forced:
            return replace(cursor, section="done"), Effect.ENDED
        cursor = self._owed.before(cursor, token)
        marked = self._act_on_mark(cursor, token, length)
        if marked is not None:
            return marked
        watch = self._advance_marks(cursor.watch, token)
        if watch != cursor.watch:
            cursor = replace(cursor, watch=watch)
        if not cursor.forced:
            rest = self._begun(cursor)
            cursor = replace(cursor, forced=rest) if rest else cursor
        return self._owed.after(self._follow(cursor, token), token), Effect.TEXT

    def _follow(self, cursor: Cursor, token: int) -> Cursor:
        """Takes note of where among the likely answers a word leads."""
        likely = None if cursor.forced else self.likely_words(cursor)
        if likely is None:
            return cursor
        place = likely.step(cursor.likely, token)
        return cursor if place == cursor.likely else replace(cursor, likely=place)

    def _act_on_mark(self, cursor: Cursor, token: int, length: int) -> tuple[Cursor, Effect] | None:
        """Where a token leads that completes a mark which acts here; None: it doesn't."""
        spec, watch = self._rules.spec, cursor.watch
        if _completes(spec.open, watch[0], token) and self._openings.may_open(cursor):
            matcher = self._openings.matcher(cursor)
            opened = replace(
                cursor, matcher=matcher, opened_at=length + 1, forced=(), watch=NOT_BEGUN
            )
            return opened, Effect.OPENED
        if spec.think_close is not None and _completes(spec.think_close, watch[2], token):
            return self._sections.after_thinking(cursor), Effect.THINKING_ENDED
        if self._call is not None and _completes(self._call, watch[3], token):
            return self._open_call(cursor), Effect.CALL_OPENED
        return None

    def _open_call(self, cursor: Cursor) -> Cursor:
        grammar, engine = self._rules.spec.grammar, self._rules.engine
        assert grammar is not None
        assert engine is not None
        assert grammar.call is not None
        matcher = engine.matcher(grammar.call)
        return replace(cursor, forced=(), watch=NOT_BEGUN, grammar=matcher)

    def _advance_marks(self, watch: Marks, token: int) -> Marks:
        """How much of each mark the output ends with, one token further."""
        spec = self._rules.spec
        return (
            spec.open.advance(watch[0], token),
            spec.close.advance(watch[1], token),
            spec.think_close.advance(watch[2], token) if spec.think_close else 0,
            self._call.advance(watch[3], token) if self._call else 0,
        )

    def _begun(self, cursor: Cursor) -> tuple[int, ...]:
        """The rest of a text tag that has begun; nothing where the tag isn't legal."""
        opening, ending, call = self._rules.spec.open, self._rules.spec.think_close, self._call
        watch = cursor.watch
        if watch == NOT_BEGUN:
            return ()
        if not opening.control and watch[0] >= opening.begun and self._openings.may_open(cursor):
            return opening.rest[watch[0]]
        if (
            ending is not None
            and not ending.control
            and cursor.section == "thinking"
            and watch[2] >= ending.begun
        ):
            return ending.rest[watch[2]]
        if call is None or call.control or cursor.section != "answer":
            return ()
        return call.rest[watch[3]] if watch[3] >= (1 if cursor.calls else call.begun) else ()


def _completes(tag: Tag, state: int, token: int) -> bool:
    if tag.control:
        return token == tag.ids[0]
    return tag.advance(state, token) == len(tag.text)
