"""One sequence's decoding state: thinking, recalling, answering; which tokens are legal in each.

A constraint is a pure function of the rules and the tokens consumed, so that every backend gives
the same allowed sets, and any prefix can be replayed (beams, preemption, speculative decoding).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recallm_core.decoding.evidence_policy import OwnWords
from recallm_core.decoding.grammar import GrammarEngine, GrammarMatcher
from recallm_core.decoding.recall_index import RecallIndex, RecallMatcher
from recallm_core.decoding.spec import ConstraintSpec, Tag, hash_tokens
from recallm_core.errors import ConstraintError

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Section = Literal["thinking", "evidence", "answer", "done"]
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
    occurrences: tuple[tuple[int, int], ...]
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


@dataclass(frozen=True, slots=True)
class Mask:
    """The legal next tokens: either only these, or all but these.

    Attributes:
        only: The legal ids; None when nearly everything is legal.
        forbid: The illegal ids, where ``only`` is None.
        bias: Added to the logits of ``only`` (the prior); None: nothing.
    """

    only: Ints | None
    forbid: Ints | None = None
    bias: Floats | None = None

    def allows(self, token: int) -> bool:
        """Whether a token is legal."""
        if self.only is not None:
            return bool((self.only == token).any())
        assert self.forbid is not None
        return not bool((self.forbid == token).any())


_NOT_BEGUN = (0, 0, 0, 0)
_NO_WORDS = OwnWords()
_NUMBER_ENDED = 8.0  # how much a quote is preferred to decimals, in logits, where both may follow


@dataclass(frozen=True, slots=True)
class _Cursor:
    """The whole state; replaced, never changed. ``copied`` is the length of the copy."""

    section: Section
    spans: tuple[ClosedSpan, ...] = ()
    matcher: RecallMatcher | None = None
    copied: int = 0
    closing: int = 0  # tokens of the closing mark that were read
    close_from: int = 0  # length of the copy when the closing mark began
    copying: bool = True  # whether the copy reading is still alive while closing
    forced: tuple[int, ...] = ()
    watch: tuple[int, int, int, int] = _NOT_BEGUN  # open, close, think_close, call_open
    grammar: GrammarMatcher | None = None  # never moved: a step replaces it
    calls: int = 0
    thinking_tokens: int = 0
    words: OwnWords = _NO_WORDS
    leading: bool = False  # whether what is forced leads from the evidence to the answer


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
        clash = np.unique(index.tokens[np.isin(index.tokens, reserved)]).tolist()
        if clash:
            raise ConstraintError(
                f"control tokens {clash[:5]} stand inside copyable runs; "
                "the prompt must encode documents as plain text"
            )
        self.static_prior: Floats | None = (
            None if spec.prior is None else spec.prior.astype(np.float64)
        )
        self._forbid: dict[tuple[Any, ...], Mask] = {}
        self.ends = frozenset(spec.eos)
        blank = frozenset() if spec.evidence is None else spec.evidence.blank
        self.nothing = self.ends | blank  # what would leave an answer without words

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
        if len(ids) != spec.prompt_length or hash_tokens(ids) != spec.prompt_hash:
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

    def outside_mask(
        self, cursor: _Cursor, may_open: bool, also: frozenset[int] = frozenset()
    ) -> Mask:
        """The mask of ordinary output, cached: it depends on little.

        Args:
            cursor: Where the output stands.
            may_open: Whether a span may be opened here.
            also: Ids that are illegal besides; always the same object for the same ids.
        """
        key = (cursor.section, may_open, id(also), cursor.watch)
        found = self._forbid.get(key)
        if found is None:
            found = Mask(only=None, forbid=self._forbidden(cursor, may_open, also))
            self._forbid[key] = found
        return found

    def _forbidden(self, cursor: _Cursor, may_open: bool, also: frozenset[int]) -> Ints:
        spec = self.spec
        open_state, close_state, think_state, call_state = cursor.watch
        ids = set(spec.forbidden)
        opening = spec.open.passers if may_open else spec.open.finishers
        ids.update(opening(open_state))
        ids.update(spec.close.finishers(close_state))
        if cursor.section == "thinking":
            ids.update(spec.eos)
        if spec.think_close is not None:
            ending = (
                spec.think_close.passers
                if cursor.section == "thinking"
                else spec.think_close.finishers
            )
            ids.update(ending(think_state))
        if spec.grammar is not None and spec.grammar.call_open is not None:
            mark = spec.grammar.call_open
            thinking = cursor.section == "thinking"
            ids.update(mark.finishers(call_state) if thinking else mark.passers(call_state))
            closing = spec.grammar.call_close
            ids.update(closing.ids if closing is not None and closing.control else ())
        if cursor.section != "thinking":
            ids.difference_update(spec.eos)
        ids.update(also)
        return np.array(sorted(i for i in ids if 0 <= i < spec.vocab_size), dtype=np.int64)


def build_index(spec: ConstraintSpec, prompt_ids: NDArray[np.int32]) -> RecallIndex:
    """Builds the index of a spec's runs over its prompt."""
    return RecallIndex(
        [prompt_ids[a:b] for a, b in spec.runs],
        vocab_size=spec.vocab_size,
        can_start=spec.can_start,
        can_end=spec.can_end,
        can_end_hard=spec.can_end_hard,
    )


class Constraint:
    """The cursor of one sequence: ``mask`` says what is legal, ``consume`` moves on."""

    def __init__(self, rules: ConstraintRules, prior: Prior | None = None) -> None:
        self.rules = rules
        self._prior = prior
        self._cursor = _Cursor("thinking" if rules.spec.thinking else "answer")
        self._history: list[_Cursor] = []
        self._mask: Mask | None = None
        self._starts: tuple[tuple[ClosedSpan, ...], Section, Bools] | None = None
        if not rules.spec.thinking:
            self._cursor = self._after_thinking(self._cursor)
        self._limit_thinking()

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
    def watched(self) -> int:
        """Characters at the end of the output that may turn out to begin a mark."""
        return max(self._cursor.watch)

    def mask(self) -> Mask:
        """Returns the legal next tokens; there is always at least one."""
        if self._mask is None:
            self._mask = self._make_mask()
        return self._mask

    def _make_mask(self) -> Mask:
        cursor, spec = self._cursor, self.rules.spec
        if cursor.section == "done":
            return Mask(only=np.array(spec.eos[:1], dtype=np.int64))
        if cursor.forced:
            return Mask(only=np.array(cursor.forced[:1], dtype=np.int64))
        if cursor.matcher is not None:
            return self._span_mask(cursor, cursor.matcher)
        if cursor.grammar is not None:
            return self._grammar_mask(cursor.grammar)
        if cursor.calls:
            return self._after_call_mask()
        if cursor.section == "evidence":
            return self._evidence_mask(cursor)
        if self._owes(cursor):
            return self._owing_mask(cursor)
        if spec.answer_form == "quote" and spec.grammar is None:
            return self._quote_mask(cursor)
        if self._begins_words(cursor):
            return self.rules.outside_mask(cursor, self._may_open(), self.rules.nothing)
        return self.rules.outside_mask(cursor, self._may_open())

    def _quote_mask(self, cursor: _Cursor) -> Mask:
        """Only marks: spans while thinking, the last of them kept for the answer, then one span."""
        spec, thinking = self.rules.spec, cursor.section == "thinking"
        quoted = any(span.section == "answer" for span in cursor.spans)
        left = spec.max_spans - len(cursor.spans)
        may_open = self._may_open() and not quoted and left > (1 if thinking else 0)
        opening = spec.open.ids if may_open else ()
        if thinking:
            assert spec.think_close is not None
            ending: tuple[int, ...] = spec.think_close.ids
        else:
            ending = () if opening else spec.eos
        only = np.array(sorted({*opening, *ending}), dtype=np.int64)
        bias = self._span_bias(cursor) if cursor.spans and opening and ending else None
        if bias is None or not bias.open_bias:
            return Mask(only=only)
        return Mask(only=only, bias=(only == opening[0]) * bias.open_bias * spec.prior_weight)

    def _evidence_mask(self, cursor: _Cursor) -> Mask:
        """Between two pieces of evidence: another one, or on to the words of the answer."""
        spec = self.rules.spec
        assert spec.evidence is not None
        opening, leading = spec.open.ids[0], spec.evidence.lead_in[0]
        only = np.array(sorted({opening, leading}), dtype=np.int64)
        bias = self._span_bias(cursor)
        if bias is None or not bias.open_bias or opening == leading:
            return Mask(only=only)
        return Mask(only=only, bias=(only == opening) * bias.open_bias * spec.prior_weight)

    def _owes(self, cursor: _Cursor) -> bool:
        """Whether the answer can't end before a quote (policy ``required``)."""
        evidence = self.rules.spec.evidence
        return (
            evidence is not None
            and evidence.policy == "required"
            and cursor.section == "answer"
            and not cursor.spans
            and not cursor.words.said
            and self._may_open(cursor)
        )

    def _begins_words(self, cursor: _Cursor) -> bool:
        """Whether the words of an answer are due, and none was written yet (policy ``first``)."""
        evidence = self.rules.spec.evidence
        return (
            evidence is not None
            and evidence.policy == "first"
            and cursor.section == "answer"
            and not cursor.words.count
            and bool(_recalled(cursor, "evidence"))
        )

    def _owing_mask(self, cursor: _Cursor) -> Mask:
        """Anything but the end; behind a number's full stop, decimals or a quote."""
        spec = self.rules.spec
        assert spec.evidence is not None
        if not cursor.words.perhaps:
            return self.rules.outside_mask(cursor, True, self.rules.ends)
        opening = spec.open.ids[0]
        only = np.array(sorted({opening, *spec.evidence.numbers}), dtype=np.int64)
        return Mask(only=only, bias=(only == opening) * _NUMBER_ENDED)

    def _may_open(self, cursor: _Cursor | None = None) -> bool:
        """Whether a span may be opened where the output stands."""
        spec = self.rules.spec
        cursor = self._cursor if cursor is None else cursor
        first = spec.evidence is not None and spec.evidence.policy == "first"
        kept = int(first and cursor.section == "thinking")  # one for the evidence
        if len(cursor.spans) + kept >= spec.max_spans or not self.rules.index.copyable:
            return False
        if cursor.section == "evidence":
            return spec.recall_in != "none" and self._evidence_left(cursor)
        if first and cursor.section == "answer" and _recalled(cursor, "evidence"):
            return False
        return cursor.section in spec.recall_in and self._starts_left(cursor)

    def _evidence_left(self, cursor: _Cursor) -> bool:
        evidence = self.rules.spec.evidence
        assert evidence is not None
        spans = _recalled(cursor, "evidence")
        copied = sum(len(span.tokens) for span in spans)
        fits = len(spans) < evidence.most and (not spans or copied < evidence.room)
        return fits and self._starts_left(cursor)

    def _starts_left(self, cursor: _Cursor) -> bool:
        starts = self._fresh_starts(cursor)
        return starts is None or bool(starts.any())

    def _fresh_starts(self, cursor: _Cursor) -> Bools | None:
        """Where a span may begin that repeats nothing of its phase; None: wherever one may."""
        before = _recalled(cursor, cursor.section) if self.rules.spec.evidence else ()
        if not before:
            return None
        known = self._starts
        if known is None or known[0] is not cursor.spans or known[1] != cursor.section:
            whole = cursor.section == "evidence"  # elsewhere part of a quote may be quoted again
            copied = (
                (run, at, len(span.tokens) if whole else 1)
                for span in before
                for run, at in span.occurrences
            )
            starts = self.rules.index.starts_outside(copied)
            self._starts = known = (cursor.spans, cursor.section, starts)
        return known[2]

    def _grammar_mask(self, grammar: GrammarMatcher) -> Mask:
        """What continues the grammar; a whole answer may end where it is complete."""
        spec = self.rules.spec
        allowed = grammar.allowed_tokens()
        if spec.grammar is not None and spec.grammar.answer is not None and grammar.accepts:
            allowed = np.concatenate([allowed, np.array(spec.eos, dtype=np.int64)])
        return Mask(only=allowed)

    def _after_call_mask(self) -> Mask:
        """After a tool call: the end, or another call."""
        spec = self.rules.spec
        ids = [*spec.eos]
        if spec.grammar is not None and spec.grammar.call_open and spec.grammar.parallel:
            ids.append(spec.grammar.call_open.ids[0])
        return Mask(only=np.array(ids, dtype=np.int64))

    def _after_thinking(self, cursor: _Cursor) -> _Cursor:
        """The state when thinking is over: evidence is due, or the answer begins."""
        spec = self.rules.spec
        if spec.evidence is not None and spec.evidence.policy == "first":
            due = replace(cursor, section="evidence", forced=spec.open.ids, watch=_NOT_BEGUN)
            if self._may_open(due):
                return due
        return self._begin_answer(cursor)

    def _begin_answer(self, cursor: _Cursor) -> _Cursor:
        """The state at the beginning of the answer: a grammar takes over, or a call is due."""
        grammar, engine = self.rules.spec.grammar, self.rules.engine
        cursor = replace(cursor, section="answer", forced=(), watch=_NOT_BEGUN, leading=False)
        if grammar is None or engine is None:
            return cursor
        if grammar.answer is not None:
            return replace(cursor, grammar=engine.matcher(grammar.answer))
        if grammar.required and grammar.call_open is not None:
            return replace(cursor, forced=grammar.call_open.ids)
        return cursor

    def _step_grammar(
        self, cursor: _Cursor, grammar: GrammarMatcher, token: int
    ) -> tuple[_Cursor, Effect]:
        """One token of a whole answer or of a tool call; a complete call is closed."""
        spec = self.rules.spec
        rules = spec.grammar
        assert rules is not None
        if rules.answer is not None:
            if token in spec.eos:
                return replace(cursor, section="done", grammar=None), Effect.ENDED
            return replace(cursor, grammar=grammar.after(token)), Effect.TEXT
        if cursor.forced:
            left = cursor.forced[1:]
            if left:
                return replace(cursor, forced=left), Effect.CALL
            ended = replace(cursor, forced=(), grammar=None, calls=cursor.calls + 1)
            return ended, Effect.CALL_CLOSED
        following = grammar.after(token)
        assert rules.call_close is not None
        forced = () if following.allowed_tokens().size else rules.call_close.ids
        return replace(cursor, grammar=following, forced=forced), Effect.CALL

    def _span_mask(self, cursor: _Cursor, matcher: RecallMatcher) -> Mask:
        ids = self.rules.spec.close.ids
        if cursor.closing and not cursor.copying:
            return Mask(only=np.array([ids[cursor.closing]], dtype=np.int64))
        ends = matcher.can_close
        allowed = self._copyable(matcher)
        bias = self._tilt(matcher, allowed)
        extra = ([ids[cursor.closing]] if cursor.closing else []) + ([ids[0]] if ends else [])
        extra = [i for i in dict.fromkeys(extra) if not (allowed == i).any()]
        if not extra:
            return Mask(only=allowed, bias=bias)
        only = np.concatenate([allowed, np.array(extra, dtype=np.int64)])
        closing = matcher.close_tilt() * self.rules.spec.prior_weight if ids[0] in extra else 0.0
        if bias is None and not closing:
            return Mask(only=only)
        bias = np.zeros(len(allowed)) if bias is None else bias
        tilt = np.array([closing if i == ids[0] and ends else 0.0 for i in extra])
        return Mask(only=only, bias=np.concatenate([bias, tilt]))

    def _copyable(self, matcher: RecallMatcher) -> Ints:
        """What continues the copy; nothing at a legal end once thinking has to end."""
        allowed = matcher.allowed_tokens()
        return allowed[:0] if self._thinking_spent() and matcher.can_close else allowed

    def _tilt(self, matcher: RecallMatcher, allowed: Ints) -> Floats | None:
        if not matcher.has_prior or allowed.size < 2:
            return None
        return matcher.log_prior(allowed) * self.rules.spec.prior_weight

    def _thinking_spent(self) -> bool:
        limit = self.rules.spec.max_thinking_tokens
        cursor = self._cursor
        spent = limit is not None and cursor.thinking_tokens >= limit
        return spent and cursor.section == "thinking"

    def consume(self, token: int) -> Effect:
        """Moves on by one token and says what it did.

        Raises:
            ConstraintError: The token isn't legal here; the state stays as it was.
        """
        if not 0 <= token < self.rules.spec.vocab_size or not self.mask().allows(token):
            raise ConstraintError(
                f"token {token} isn't legal at output position {len(self._history)} "
                f"({self._where()}); backends must choose within mask()"
            )
        before = self._cursor
        thinking = before.thinking_tokens + (before.section == "thinking")
        matcher = before.matcher
        if matcher is not None and not before.closing and token != self.rules.spec.close.ids[0]:
            matcher.consume_token(token)  # legal, and no closing mark: it continues the copy
            cursor = replace(before, copied=matcher.length, thinking_tokens=thinking)
            effect = Effect.COPIED
        else:
            cursor, effect = self._step(replace(before, thinking_tokens=thinking), token)
        self._history.append(before)
        self._cursor = cursor
        self._mask = None
        self._limit_thinking()
        return effect

    def _where(self) -> str:
        return "inside a span" if self.in_span else f"in the {self._cursor.section}"

    def _step(self, cursor: _Cursor, token: int) -> tuple[_Cursor, Effect]:
        if cursor.section == "done":
            return cursor, Effect.ENDED
        if cursor.matcher is not None:
            return self._step_span(cursor, cursor.matcher, token)
        if cursor.grammar is not None:
            return self._step_grammar(cursor, cursor.grammar, token)
        if cursor.section == "evidence" and (cursor.leading or not cursor.forced):
            return self._step_evidence(cursor, token)
        return self._step_text(replace(cursor, forced=cursor.forced[1:]), token)

    def _step_span(
        self, cursor: _Cursor, matcher: RecallMatcher, token: int
    ) -> tuple[_Cursor, Effect]:
        ids = self.rules.spec.close.ids
        copies = cursor.copying and bool((self._copyable(matcher) == token).any())
        closing, start = 0, cursor.close_from
        if cursor.closing and token == ids[cursor.closing]:
            closing = cursor.closing + 1
        elif cursor.copying and token == ids[0] and matcher.can_close:
            closing, start = 1, matcher.length
        if closing == len(ids):
            return self._close(cursor, matcher, start), Effect.CLOSED
        if copies:
            matcher.consume_token(token)
        cursor = replace(
            cursor,
            matcher=matcher,
            copied=matcher.length,
            closing=closing,
            close_from=start,
            copying=copies or not closing,
        )
        return cursor, Effect.CLOSING if closing else Effect.COPIED

    def _close(self, cursor: _Cursor, matcher: RecallMatcher, length: int) -> _Cursor:
        cursor = replace(
            cursor,
            spans=(*cursor.spans, _closed(matcher, length, cursor.section)),
            matcher=None,
            copied=0,
            closing=0,
            close_from=0,
            copying=True,
            watch=_NOT_BEGUN,
        )
        return self._after_evidence(cursor) if cursor.section == "evidence" else cursor

    def _after_evidence(self, cursor: _Cursor) -> _Cursor:
        """What follows a piece of evidence: another that is due, the answer, or a choice."""
        spec = self.rules.spec
        assert spec.evidence is not None
        if not self._may_open(cursor):
            return replace(cursor, forced=spec.evidence.lead_in, leading=True)
        due = len(_recalled(cursor, "evidence")) < spec.evidence.least
        return replace(cursor, forced=spec.open.ids) if due else cursor

    def cut_span(self) -> ClosedSpan | None:
        """The open span as it would be if the output ended here, cut back to its last legal end.

        A closing mark that has begun counts. None: no span is open, or nothing of it can be kept.
        """
        cursor = self._cursor
        if cursor.matcher is None:
            return None
        if cursor.closing:
            return _closed(cursor.matcher, cursor.close_from, cursor.section)
        matcher = cursor.matcher.copy()
        while matcher.length and not matcher.can_close:
            matcher.rollback(1)
        return _closed(matcher, matcher.length, cursor.section) if matcher.length else None

    def _step_evidence(self, cursor: _Cursor, token: int) -> tuple[_Cursor, Effect]:
        """One token between two pieces of evidence, or between the last one and the answer."""
        spec = self.rules.spec
        assert spec.evidence is not None
        ahead = cursor.forced or spec.evidence.lead_in
        if not cursor.leading and token == spec.open.ids[0]:
            return self._step_text(replace(cursor, forced=spec.open.ids[1:]), token)
        if len(ahead) > 1:
            return replace(cursor, forced=ahead[1:], leading=True), Effect.LED_IN
        return self._begin_answer(cursor), Effect.LED_IN

    def _step_text(self, cursor: _Cursor, token: int) -> tuple[_Cursor, Effect]:
        spec = self.rules.spec
        if token in spec.eos and not cursor.forced:
            return replace(cursor, section="done"), Effect.ENDED
        if cursor.words.perhaps and token == spec.open.ids[0] and self._owes(cursor):
            cursor = replace(cursor, forced=spec.open.ids[1:])  # no decimals: the sentence ended
        if self._completes(spec.open, cursor.watch[0], token) and self._may_open():
            bias = self._span_bias(cursor)
            matcher = self.rules.index.matcher(
                spec.max_span_tokens,
                None if bias is None else bias.start_scores,
                None if bias is None else bias.end_log_odds,
                self._fresh_starts(cursor),
            )
            return replace(cursor, matcher=matcher, forced=(), watch=_NOT_BEGUN), Effect.OPENED
        if spec.think_close is not None and self._completes(
            spec.think_close, cursor.watch[2], token
        ):
            return self._after_thinking(cursor), Effect.THINKING_ENDED
        call = spec.grammar.call_open if spec.grammar else None
        if call is not None and self._completes(call, cursor.watch[3], token):
            return self._open_call(cursor), Effect.CALL_OPENED
        watch = (
            spec.open.advance(cursor.watch[0], token),
            spec.close.advance(cursor.watch[1], token),
            spec.think_close.advance(cursor.watch[2], token) if spec.think_close else 0,
            call.advance(cursor.watch[3], token) if call else 0,
        )
        cursor = replace(cursor, watch=watch)
        if not cursor.forced:
            cursor = replace(cursor, forced=self._begun(cursor))
        return self._watch_words(cursor, token), Effect.TEXT

    def _watch_words(self, cursor: _Cursor, token: int) -> _Cursor:
        """Forces a quote open where a sentence of the answer ends without one."""
        spec = self.rules.spec
        if cursor.forced or spec.evidence is None:
            return cursor
        if self._begins_words(cursor):
            return replace(cursor, words=replace(cursor.words, count=1))
        if not self._owes(cursor):
            return cursor
        cursor = replace(cursor, words=cursor.words.after(token, spec.evidence))
        if not (cursor.words.ended and self._owes(cursor)):
            return cursor
        return replace(cursor, forced=spec.open.ids, watch=_NOT_BEGUN)

    def _open_call(self, cursor: _Cursor) -> _Cursor:
        grammar, engine = self.rules.spec.grammar, self.rules.engine
        assert grammar is not None
        assert engine is not None
        assert grammar.call is not None
        matcher = engine.matcher(grammar.call)
        return replace(cursor, forced=(), watch=_NOT_BEGUN, grammar=matcher)

    def _begun(self, cursor: _Cursor) -> tuple[int, ...]:
        """The rest of a text tag that has begun; nothing where the tag isn't legal."""
        spec = self.rules.spec
        if not spec.open.control and cursor.watch[0] >= spec.open.begun and self._may_open():
            return spec.open.rest[cursor.watch[0]]
        ending = spec.think_close
        if (
            ending is not None
            and not ending.control
            and cursor.section == "thinking"
            and cursor.watch[2] >= ending.begun
        ):
            return ending.rest[cursor.watch[2]]
        call = spec.grammar.call_open if spec.grammar else None
        begun = 1 if cursor.calls else call.begun if call is not None else 0
        if call is None or call.control or cursor.section != "answer":
            return ()
        if cursor.watch[3] >= begun:
            return call.rest[cursor.watch[3]]
        return ()

    @staticmethod
    def _completes(tag: Tag, state: int, token: int) -> bool:
        if tag.control:
            return token == tag.ids[0]
        return tag.advance(state, token) == len(tag.text)

    def _span_bias(self, cursor: _Cursor) -> SpanBias | None:
        """What is preferred for the span that opens now; where a prior raises, nothing moves."""
        if self._prior is None:
            found: SpanBias | Floats | None = self.rules.static_prior
        else:
            found = self._prior(cursor.section, cursor.spans)
        return SpanBias(found) if isinstance(found, np.ndarray) else found

    def _limit_thinking(self) -> None:
        """Forces the end of thinking once its budget is spent; an open span closes first."""
        cursor, ending = self._cursor, self.rules.spec.think_close
        if ending is None or cursor.forced or cursor.matcher is not None:
            return
        if self._thinking_spent():
            state = cursor.watch[2]
            rest = ending.rest[state] if state else ending.ids
            self._cursor = replace(cursor, forced=rest)

    def rollback(self, count: int) -> None:
        """Takes back the last ``count`` tokens."""
        if not 0 <= count <= len(self._history):
            raise ConstraintError(
                f"can't take back {count} tokens, only {len(self._history)} were consumed"
            )
        if not count:
            return
        self._cursor = _own(self._history[-count])
        del self._history[-count:]
        self._mask = None

    def copy(self) -> Constraint:
        """Returns an independent state at the same place."""
        other = Constraint(self.rules, self._prior)
        other._cursor = _own(self._cursor)
        other._history = list(self._history)
        other._mask = self._mask
        return other

    def draft(self, count: int) -> list[int]:
        """Returns tokens that are worth proposing: the only way on, closing not counted.

        Each is legal after those before it. Feed them to the model in one pass, then choose at each
        place under ``mask()`` and stop at the first that differs.
        """
        cursor = self._cursor
        if cursor.forced:
            return list(cursor.forced[: max(count, 0)])
        matcher = cursor.matcher
        if matcher is None:
            return []
        if cursor.closing:
            rest = self.rules.spec.close.ids[cursor.closing :]
            return [] if cursor.copying else list(rest[: max(count, 0)])
        if not self._copyable(matcher).size:
            return []
        forced = [int(token) for token in matcher.draft(count)]
        return self._up_to_limit(matcher.copy(), forced)

    def _up_to_limit(self, matcher: RecallMatcher, forced: list[int]) -> list[int]:
        """As much of a draft as the span's and the thinking's limits leave legal."""
        spec, cursor = self.rules.spec, self._cursor
        free = max(spec.max_span_tokens - matcher.length, 0)
        if spec.max_thinking_tokens is not None and cursor.section == "thinking":
            free = min(free, max(spec.max_thinking_tokens - cursor.thinking_tokens, 0))
        if len(forced) <= free:
            return forced
        for count, token in enumerate(forced):
            if count >= free and matcher.can_close:
                return forced[:count]
            matcher.consume_token(token)
        return forced


def _recalled(cursor: _Cursor, section: Section) -> tuple[ClosedSpan, ...]:
    """The spans of one section."""
    return tuple(span for span in cursor.spans if span.section == section)


def _closed(matcher: RecallMatcher, length: int, section: Section) -> ClosedSpan:
    """The span that the first ``length`` copied tokens make."""
    copy = matcher.copy()
    copy.rollback(copy.length - length)
    return ClosedSpan(copy.tokens, tuple(copy.closing_occurrences()), section)


def _own(cursor: _Cursor) -> _Cursor:
    """A cursor whose matcher nobody else moves, standing where the cursor says.

    A matcher only ever grows, and only in the hands of the sequence that holds it as its current
    one; earlier cursors of the history remember how long the copy was.
    """
    if cursor.matcher is None:
        return cursor
    matcher = cursor.matcher.copy()
    matcher.rollback(matcher.length - cursor.copied)
    return replace(cursor, matcher=matcher)
