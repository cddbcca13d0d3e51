"""Which token may come next inside a recall span: plain integers in, plain integers out.

The index is a flat array of the copyable token runs, each followed by a sentinel. There is nothing
to build: a matcher keeps the positions that are still alive after each token. The first token scans
the array, later ones filter what is left (a handful, after about three tokens of real text). While
very many positions are alive, as in highly repetitive contexts, a bitmap over the array replaces
the list of positions; both tell the same story, which the tests check against a naive scan.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recallm_core.errors import ConstraintError
from recallm_core.inputs.arguments import shown, whole_number

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

SENTINEL = -1
_DENSE_FLOOR = 2048  # below this many live positions a list of them is always cheaper
_DENSE_SHARE = 24  # above 1/24 of the array a bitmap is cheaper
_DENSE_SNAPSHOTS = 8  # bitmaps kept for rollback; older ones are replayed
_DRAFT_ROWS = 64  # live positions that a draft compares; with more there is rarely one choice
_DISTINCT_TRIES = 4  # distinct next tokens looked for in a bitmap before it is unrolled

_EMPTY: Ints = np.empty(0, dtype=np.int64)


class RecallIndex:
    """The copyable token runs of one prompt, shared by every sequence over it; read-only.

    A span never leaves its run. Positions from which no legal end can be reached are neither
    starts nor continuations, so a span that has begun can always be closed later.

    Args:
        runs: One sequence of token ids per run; a run is an unbroken stretch of copyable tokens.
        vocab_size: Width of the logits; every id must be below it.
        can_start: One bool per run position, runs concatenated: may a span begin with this token?
            None means everywhere.
        can_end: The same for the last token of a span.
        can_end_hard: The same where a span must be cut because it is far too long (a character
            boundary that isn't a word boundary). None means as ``can_end``.

    Raises:
        ConstraintError: An id is out of range, or a bitmap has another length than the runs.
    """

    def __init__(
        self,
        runs: Iterable[Sequence[int] | NDArray[np.integer]],
        *,
        vocab_size: int,
        can_start: Sequence[bool] | Bools | None = None,
        can_end: Sequence[bool] | Bools | None = None,
        can_end_hard: Sequence[bool] | Bools | None = None,
    ) -> None:
        if not isinstance(runs, Iterable):
            raise ConstraintError(f"runs must be sequences of token ids, got {shown(runs)}")
        arrays = [_array("a run", run, np.int32).reshape(-1) for run in runs]
        self.vocab_size = whole_number("vocab_size", vocab_size, 1, 1 << 31, error=ConstraintError)
        self.run_lengths: Ints = np.array([len(a) for a in arrays], dtype=np.int64)
        self.run_offsets: Ints = np.concatenate(
            [np.zeros(1, np.int64), np.cumsum(self.run_lengths + 1)]
        )[:-1]
        self.size = int(self.run_lengths.sum())
        self._slots = self._slots_of_positions()
        tokens = np.full(self.size + len(arrays), SENTINEL, dtype=np.int32)
        if arrays:
            tokens[self._slots] = np.concatenate(arrays)
        self._check_ids(tokens)
        starts = self._spread(can_start, "can_start")
        ends = self._spread(can_end, "can_end")
        hard = ends if can_end_hard is None else ends | self._spread(can_end_hard, "can_end_hard")
        dead = self._beyond_last_end(hard, ends)
        tokens[dead] = SENTINEL
        starts[dead] = False
        self.sentinels: Ints = np.flatnonzero(tokens == SENTINEL)
        self.tokens: NDArray[np.int32] = tokens
        self.starts: Bools = starts
        self.ends: Bools = ends
        self.ends_hard: Bools = hard
        for array in (tokens, starts, ends, hard):
            array.flags.writeable = False
        self.root_tokens: Ints = np.unique(tokens[starts]).astype(np.int64)
        self.root_tokens.flags.writeable = False

    def _slots_of_positions(self) -> Ints:
        """The slot of each position: its place once a sentinel stands after every run."""
        runs = np.repeat(np.arange(len(self.run_lengths)), self.run_lengths)
        return np.arange(self.size, dtype=np.int64) + runs

    def _check_ids(self, tokens: NDArray[np.int32]) -> None:
        real = tokens[self._slots]
        if real.size and (real.min() < 0 or real.max() >= self.vocab_size):
            bad = real[(real < 0) | (real >= self.vocab_size)][0]
            raise ConstraintError(
                f"run token ids must be in [0, {self.vocab_size}), the width of the logits, "
                f"but a run holds {bad}"
            )

    def _spread(self, bits: Sequence[bool] | Bools | None, name: str) -> Bools:
        """Lays one bool per position out over the slots; sentinels are False."""
        out = np.zeros(self.size + len(self.run_lengths), dtype=np.bool_)
        if bits is None:
            out[self._slots] = True
            return out
        array = _array(name, bits, np.bool_)
        if array.shape != (self.size,):
            raise ConstraintError(
                f"{name} needs one bool per run position ({self.size:,}), got {array.shape}"
            )
        out[self._slots] = array
        return out

    def _beyond_last_end(self, hard: Bools, ends: Bools) -> Bools:
        """Slots after their run's last legal end: nothing that reaches them could be closed."""
        if not len(self.run_lengths):
            return np.zeros(0, dtype=np.bool_)
        slots = np.arange(len(ends), dtype=np.int64)
        last = np.maximum.reduceat(np.where(ends, slots, -1), self.run_offsets)
        return slots > np.repeat(last, self.run_lengths + 1)

    @property
    def copyable(self) -> bool:
        """Whether a span can be opened at all."""
        return bool(self.root_tokens.size)

    def matcher(
        self,
        max_span_tokens: int = 128,
        start_log_prior: Sequence[float] | Floats | None = None,
        end_log_odds: Sequence[float] | Floats | None = None,
        starts: Bools | None = None,
    ) -> RecallMatcher:
        """Returns a fresh cursor at the beginning of a span.

        Args:
            max_span_tokens: Soft limit: from this length on the span closes at the next legal
                end, from twice this length on at the next hard end.
            start_log_prior: A log score per run position, runs concatenated; it tilts where a
                span starts and changes no allowed set.
            end_log_odds: Per run position, how much to prefer closing after its token; likewise.
            starts: Where this span may begin, from ``starts_outside``; None: at every start.
        """
        whole_number("max_span_tokens", max_span_tokens, 1, error=ConstraintError)
        prior, odds = (
            None if scores is None else self._check_prior(name, scores)
            for name, scores in (
                ("start_log_prior", start_log_prior),
                ("end_log_odds", end_log_odds),
            )
        )
        return RecallMatcher(self, max_span_tokens, prior, odds, starts)

    def starts_outside(self, copied: Iterable[tuple[int, int, int]]) -> Bools:
        """Where a span may begin without lying in what was copied: one bool per slot.

        Args:
            copied: (run, position of the first token, number of tokens) of earlier copies.
        """
        starts = self.starts.copy()
        for run, position, length in copied:
            first = int(self.run_offsets[run]) + position
            starts[first : first + length] = False
        return starts

    def _check_prior(self, name: str, scores: Sequence[float] | Floats) -> Floats:
        array = _array(name, scores, np.float64)
        if array.shape != (self.size,):
            raise ConstraintError(
                f"{name} needs one score per run position ({self.size:,}), got {array.shape}"
            )
        if not np.isfinite(array).all():
            raise ConstraintError(
                f"{name} must be finite: a prior tilts, it never forbids; "
                "use a low score such as -30 instead of -inf"
            )
        out = np.zeros(len(self.tokens), dtype=np.float64)
        out[self._slots] = array
        return out

    def locate(self, slots: Ints) -> list[tuple[int, int]]:
        """Returns (run, position in the run) for each slot."""
        runs = np.searchsorted(self.run_offsets, slots, side="right") - 1
        return list(zip(runs.tolist(), (slots - self.run_offsets[runs]).tolist(), strict=True))


@dataclass(slots=True)
class _State:
    """What is alive after some tokens; ``next`` slots hold the token that would come next.

    Exactly one of ``one``, ``many`` and ``bits`` is set.
    """

    one: int = -1
    many: Ints | None = None
    bits: Bools | None = None
    alive: int = 1  # how many bits are set
    allowed: Ints | None = None  # distinct next tokens, sorted, sentinel dropped
    ahead: tuple[int, Bools] | None = None  # the slots that go on with the one next token


class RecallMatcher:
    """A cursor through the copies that one span can still become.

    It starts before the first token. ``allowed_tokens`` are the next tokens of a verbatim copy and
    never hold an end marker; whether the span may end here is ``can_close``.
    """

    __slots__ = ("_ends", "_history", "_index", "_max", "_prior", "_roots", "_starts", "_tokens")

    def __init__(
        self,
        index: RecallIndex,
        max_span_tokens: int,
        prior: Floats | None,
        ends: Floats | None = None,
        starts: Bools | None = None,
    ) -> None:
        self._index = index
        self._starts = index.starts if starts is None else starts
        self._roots: Ints | None = index.root_tokens if starts is None else None
        self._max = max_span_tokens
        self._prior = prior
        self._ends = ends
        self._tokens: list[int] = []
        self._history: list[_State | None] = []  # one per token; None: replay it

    @property
    def length(self) -> int:
        """Tokens consumed so far."""
        return len(self._tokens)

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens consumed so far."""
        return tuple(self._tokens)

    @property
    def has_prior(self) -> bool:
        """Whether start scores were given."""
        return self._prior is not None

    def allowed_tokens(self) -> Ints:
        """Returns the ids that continue a copy, sorted and distinct; none: it has to close."""
        if not self._tokens:
            if self._roots is None:
                self._roots = np.unique(self._index.tokens[self._starts]).astype(np.int64)
            return self._roots
        if len(self._tokens) >= self._max and self.can_close:
            return _EMPTY
        return self._continuations()

    def _continuations(self) -> Ints:
        state = self._state()
        if state.allowed is None:
            state.allowed = self._distinct(state)
        return state.allowed

    @property
    def can_close(self) -> bool:
        """Whether at least one live occurrence may end here; closing drops the others."""
        if not self._tokens:
            return False
        return self._any_end(self._index.ends) or (
            len(self._tokens) >= 2 * self._max and self._any_end(self._index.ends_hard)
        )

    def _any_end(self, ends: Bools) -> bool:
        state = self._state()
        if state.bits is not None:
            return bool(np.logical_and(state.bits[1:], ends[:-1]).any())
        if state.many is not None:
            return bool(ends[state.many - 1].any())
        return bool(ends[state.one - 1])

    def consume_token(self, token: int) -> None:
        """Extends the copy by one token.

        Raises:
            ConstraintError: The token continues no live occurrence; the cursor stays as it was.
        """
        state = self._advance(token)
        if state is None:
            raise ConstraintError(
                f"token {token} continues no copy after {len(self._tokens)} tokens; "
                "choose one of allowed_tokens(), or close the span"
            )
        self._tokens.append(token)
        self._history.append(state)
        if state.bits is not None and len(self._history) > _DENSE_SNAPSHOTS:
            old = self._history[-1 - _DENSE_SNAPSHOTS]
            if old is not None and old.bits is not None:
                self._history[-1 - _DENSE_SNAPSHOTS] = None

    def _advance(self, token: int) -> _State | None:
        index = self._index
        if token < 0:
            return None
        if not self._tokens:
            return self._pack_bits(np.logical_and(index.tokens == token, self._starts))
        state = self._state()
        if state.bits is not None:
            if state.ahead is not None and state.ahead[0] == token:
                return self._pack_bits(state.ahead[1])
            return self._pack_bits(np.logical_and(index.tokens == token, state.bits))
        if state.many is not None:
            kept = state.many[index.tokens[state.many] == token]
            if not kept.size:
                return None
            return _State(one=int(kept[0]) + 1) if kept.size == 1 else _State(many=kept + 1)
        return _State(one=state.one + 1) if index.tokens[state.one] == token else None

    def _pack_bits(self, hits: Bools) -> _State | None:
        """Turns matched slots into the state one slot further, in the cheapest form."""
        alive = int(np.count_nonzero(hits))
        if not alive:
            return None
        if alive > _DENSE_FLOOR and alive * _DENSE_SHARE > len(hits):
            bits = np.empty_like(hits)
            bits[0] = False
            bits[1:] = hits[:-1]
            return _State(bits=bits, alive=alive)
        slots = np.flatnonzero(hits) + 1
        return _State(one=int(slots[0])) if alive == 1 else _State(many=slots)

    def _state(self) -> _State:
        state = self._history[-1]
        if state is None:
            self._replay()
            state = self._history[-1]
            assert state is not None
        return state

    def _replay(self) -> None:
        """Rebuilds the newest state, which an earlier memory limit dropped."""
        fresh = self._fresh()
        for token in self._tokens:
            fresh.consume_token(token)
        self._history = fresh._history

    def _distinct(self, state: _State) -> Ints:
        tokens = self._index.tokens
        if state.bits is not None:
            return self._distinct_bits(state, state.bits)
        if state.many is not None:
            found = np.unique(tokens[state.many]).astype(np.int64)
            return found[1:] if found[0] == SENTINEL else found
        only = int(tokens[state.one])
        return _EMPTY if only == SENTINEL else np.array([only], dtype=np.int64)

    def _distinct_bits(self, state: _State, bits: Bools) -> Ints:
        """Distinct next tokens of a bitmap; in repetitive text one or two, found by elimination."""
        tokens = self._index.tokens
        first = int(bits.argmax())
        if tokens[first] != SENTINEL:
            going = np.logical_and(tokens == tokens[first], bits)
            ended = int(np.count_nonzero(bits[self._index.sentinels]))
            if int(np.count_nonzero(going)) + ended == state.alive:
                state.ahead = (int(tokens[first]), going)
                return np.array([tokens[first]], dtype=np.int64)
        left = bits
        found: list[int] = []
        for _ in range(_DISTINCT_TRIES):
            first = int(left.argmax())
            if not left[first]:
                return np.array(sorted(t for t in found if t != SENTINEL), dtype=np.int64)
            found.append(int(tokens[first]))
            left = np.logical_and(left, tokens != found[-1])
        rest: Ints = np.unique(tokens[bits]).astype(np.int64)
        return np.delete(rest, np.flatnonzero(rest == SENTINEL))

    def rollback(self, count: int) -> None:
        """Takes back the last ``count`` tokens."""
        if not 0 <= count <= len(self._tokens):
            raise ConstraintError(
                f"can't take back {count} tokens, only {len(self._tokens)} were consumed"
            )
        if count:
            del self._tokens[-count:]
            del self._history[-count:]

    def copy(self) -> RecallMatcher:
        """Returns an independent cursor at the same place."""
        other = self._fresh()
        other._tokens = list(self._tokens)
        other._history = list(self._history)
        return other

    def _fresh(self) -> RecallMatcher:
        """The cursor before its first token."""
        fresh = RecallMatcher(self._index, self._max, self._prior, self._ends, self._starts)
        fresh._roots = self._roots
        return fresh

    @property
    def occurrences(self) -> list[tuple[int, int]]:
        """Where the copy so far stands: (run, position of its first token), in order."""
        return self._index.locate(self._live() - len(self._tokens)) if self._tokens else []

    @property
    def first_occurrence(self) -> tuple[int, int] | None:
        """The first of ``occurrences``, without listing them all."""
        if not self._tokens:
            return None
        return self._index.locate(self._live()[:1] - len(self._tokens))[0]

    def closing_occurrences(self) -> list[tuple[int, int]]:
        """The occurrences that may end here: those that remain when the span is closed now."""
        if not self._tokens:
            return []
        live = self._live()
        kept = live[self._index.ends[live - 1]]
        if not kept.size and len(self._tokens) >= 2 * self._max:
            kept = live[self._index.ends_hard[live - 1]]
        return self._index.locate(kept - len(self._tokens))

    def _live(self) -> Ints:
        state = self._state()
        if state.bits is not None:
            return np.flatnonzero(state.bits)
        return np.array([state.one], dtype=np.int64) if state.many is None else state.many

    def log_prior(self, tokens: Ints) -> Floats:
        """Log share of the prior that each of ``tokens`` would keep, given what is alive.

        For each token: logsumexp of the start scores over live positions that continue with it,
        less the same over all live positions. Finite for every allowed token, 0 without a prior.
        """
        tokens = np.asarray(tokens, dtype=np.int64)
        if self._prior is None or not tokens.size:
            return np.zeros(len(tokens), dtype=np.float64)
        nexts = np.flatnonzero(self._starts) if not self._tokens else self._live()
        scores = self._prior[nexts - len(self._tokens)]
        top = float(scores.max())
        mass = np.exp(scores - top)
        following = self._index.tokens[nexts]
        places = np.searchsorted(tokens, following)
        places[places == len(tokens)] = 0
        hit = tokens[places] == following
        sums = np.bincount(places[hit], weights=mass[hit], minlength=len(tokens))
        floor = np.finfo(np.float64).tiny
        return np.asarray(np.log(np.maximum(sums, floor)) - np.log(mass.sum()), dtype=np.float64)

    def close_tilt(self) -> float:
        """How much closing now is to be preferred, in log odds against copying on.

        Each live position has a share, from the start scores, and closes with the odds given for
        it, or not at all where it isn't a legal end: so a few ends among much that goes on are no
        reason to close. 0 without odds, or where the span can't close. Changes no allowed set.
        """
        if self._ends is None or not self._tokens or not self.can_close:
            return 0.0
        nexts = self._live()
        can_end = self._index.ends[nexts - 1]
        odds = self._ends[nexts[can_end] - 1]
        shares = np.zeros(len(nexts))
        if self._prior is not None:
            shares = self._prior[nexts - len(self._tokens)]
        closing = shares[can_end] - np.logaddexp(0.0, -odds)
        staying = np.append(shares[~can_end], shares[can_end] - np.logaddexp(0.0, odds))
        return float(np.logaddexp.reduce(closing) - np.logaddexp.reduce(staying))

    def draft(self, count: int) -> Ints:
        """Returns the forced continuation: at most ``count`` tokens with one choice at each step.

        Closing isn't counted as a choice, so a model has to confirm every drafted token against it.
        """
        if not self._tokens or count < 1 or not self.allowed_tokens().size:
            return _EMPTY
        state = self._state()
        if state.bits is not None:
            only = self._continuations()
            return only if only.size == 1 else _EMPTY
        live = self._live()
        if live.size > _DRAFT_ROWS:
            only = self._continuations()
            return only if only.size == 1 else _EMPTY
        stop = len(self._index.tokens)
        if live.size == 1:
            ahead = self._index.tokens[live[0] : min(live[0] + count, stop)]
            ends = np.flatnonzero(ahead == SENTINEL)
            return ahead[: ends[0] if ends.size else count].astype(np.int64)
        table = self._index.tokens[np.minimum(live[:, None] + np.arange(count), stop - 1)]
        return np.array(_forced(table), dtype=np.int64)


def _forced(table: NDArray[np.int32]) -> list[int]:
    """The one continuation that rows of next tokens share; a row that has ended has no say."""
    forced: list[int] = []
    for step in range(table.shape[1]):
        table = table[table[:, step] != SENTINEL]
        if not len(table) or (table[:, step] != table[0, step]).any():
            break
        forced.append(int(table[0, step]))
    return forced


def _array(name: str, values: Any, dtype: Any) -> Any:
    try:
        found = np.asarray(values)
        if dtype is np.int32 and found.size and found.dtype.kind not in "iu":
            raise TypeError
        if dtype is np.int32 and found.size and (found.min() < -(2**31) or found.max() >= 2**31):
            raise OverflowError
        return found.astype(dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConstraintError(f"{name} must hold plain numbers, got {shown(values)}") from error
