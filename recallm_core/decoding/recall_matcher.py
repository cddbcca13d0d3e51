"""A cursor through the copies that one span can still become."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recallm_core.decoding.live_copies import END, HARD_END, SENTINEL, Dense, State
from recallm_core.decoding.occurrences import Occurrences
from recallm_core.errors import ConstraintError

if TYPE_CHECKING:
    from recallm_core.decoding.recall_index import RecallIndex

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

_SNAPSHOTS = 64  # states of bits that are remembered for rollback; older ones are replayed
_EMPTY: Ints = np.empty(0, dtype=np.int64)


class RecallMatcher:
    """What one span may copy, token by token.

    It starts before the first token. ``allowed_tokens`` are the next tokens of a verbatim copy and
    never hold an end marker; whether the span may end here is ``can_close``. Assumes one thread at
    a time; the index behind it is shared and doesn't change. Guarantees that each token consumed
    keeps at least one place of the runs alive, from which a legal end can be reached.
    """

    __slots__ = (
        *("_ends", "_flags", "_ids", "_index", "_letters", "_max", "_prior", "_roots"),
        *("_starts", "_states", "_tokens", "has_odds"),
    )

    def __init__(
        self,
        index: RecallIndex,
        max_span_tokens: int,
        prior: Floats | None,
        ends: Floats | None = None,
        starts: Bools | None = None,
    ) -> None:
        self._index = index
        self._starts = starts  # None: wherever a span may begin
        self._roots = index.root_tokens if starts is None else None
        self._max = max_span_tokens
        self._prior = prior
        self._ends = ends
        self.has_odds = ends is not None  # whether odds of closing were given
        self._tokens: list[int] = []
        self._states: list[State | None] = []  # what is alive after each token; None: replay it
        self._ids, self._letters, self._flags = index.views  # plain numbers, read one by one

    @property
    def length(self) -> int:
        """Tokens consumed so far."""
        return len(self._tokens)

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens consumed so far."""
        return tuple(self._tokens)

    @property
    def first_token(self) -> int | None:
        """The first of ``tokens``."""
        return self._tokens[0] if self._tokens else None

    @property
    def has_prior(self) -> bool:
        """Whether start scores were given."""
        return self._prior is not None

    def allowed_tokens(self) -> Ints:
        """Returns the ids that continue a copy, sorted and distinct; none: it has to close."""
        if not self._tokens:
            if self._roots is None:
                assert self._starts is not None
                self._roots = self._index.tokens_at(self._starts)
            return self._roots
        if len(self._tokens) >= self._max and self.can_close:
            return _EMPTY
        return self._index.alphabet[self._following()]

    def _following(self) -> list[int] | Ints:
        """The letters that come next, without the soft limit."""
        state = self._state()
        if isinstance(state, int):
            letter = self._letters[state]
            return [letter] if letter else []
        return state.letters(self._index)

    def sole_choice(self) -> tuple[int, bool] | None:
        """The one token that goes on with the copy, and whether it may end before; in one look.

        None: there are several, or none.
        """
        states, length = self._states, len(self._tokens)
        state = states[-1] if length else None
        if type(state) is int:  # the commonest case by far: no arrays for it
            letter = self._letters[state]
            flag = END if length < 2 * self._max else END | HARD_END
            closes = self._flags[state - 1] & flag != 0
        elif state is None:
            return None
        else:
            letters = self._following()
            letter, closes = letters[0] if len(letters) == 1 else SENTINEL, self.can_close
        if not letter or (closes and length >= self._max):
            return None
        return self._ids[letter], closes

    @property
    def can_close(self) -> bool:
        """Whether at least one live occurrence may end here; closing drops the others."""
        length = len(self._tokens)
        if not length:
            return False
        flag = END if length < 2 * self._max else END | HARD_END
        state = self._states[-1]
        if type(state) is int:
            return bool(self._flags[state - 1] & flag)
        return self._has_flag(flag)

    def _has_flag(self, flag: int) -> bool:
        """Whether a live copy has a flag at its last token."""
        state = self._state()
        if isinstance(state, int):
            return bool(self._flags[state - 1] & flag)
        return state.ends(self._index, flag)

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
        self._push(token, state)

    def extend(self, token: int) -> bool:
        """Extends the copy if the token is one of ``allowed_tokens``, and says whether it is."""
        length = len(self._tokens)
        if length >= self._max and self.can_close:
            return False
        state = self._states[-1] if length else None
        if type(state) is int:  # the commonest case by far: no arrays for it
            letter = self._letters[state]
            if not letter or self._ids[letter] != token:
                return False
            self._tokens.append(token)
            self._states.append(state + 1)
            return True
        after = self._advance(token)
        if after is None:
            return False
        self._push(token, after)
        return True

    def _advance(self, token: int) -> State | None:
        """What is alive after one more token."""
        index = self._index
        letter = index.letter_of(token)
        if letter == SENTINEL:
            return None
        if not self._tokens:
            return index.begun(letter, self._starts)
        state = self._state()
        if isinstance(state, int):
            return state + 1 if self._letters[state] == letter else None
        return state.after(index, letter, len(self._tokens) + 1)

    def _push(self, token: int, state: State) -> None:
        self._tokens.append(token)
        self._states.append(state)
        if isinstance(state, Dense) and len(self._states) > _SNAPSHOTS:
            oldest = len(self._states) - 1 - _SNAPSHOTS
            if isinstance(self._states[oldest], Dense):
                self._states[oldest] = None

    def _state(self) -> State:
        state = self._states[-1]
        if state is None:
            self._replay()
            state = self._states[-1]
            assert state is not None
        return state

    def _replay(self) -> None:
        """Rebuilds the newest state, which an earlier memory limit dropped."""
        fresh = self._fresh()
        for token in self._tokens:
            fresh.consume_token(token)
        self._states = fresh._states

    def rollback(self, count: int) -> None:
        """Takes back the last ``count`` tokens."""
        if not 0 <= count <= len(self._tokens):
            raise ConstraintError(
                f"can't take back {count} tokens, only {len(self._tokens)} were consumed"
            )
        if count:
            del self._tokens[-count:]
            del self._states[-count:]
            if self._states:
                self._state()

    def copy(self) -> RecallMatcher:
        """Returns an independent cursor at the same place."""
        other = self._fresh()
        other._tokens = list(self._tokens)
        other._states = list(self._states)
        return other

    def _fresh(self) -> RecallMatcher:
        """The cursor before its first token."""
        fresh = RecallMatcher(self._index, self._max, self._prior, self._ends, self._starts)
        fresh._roots = self._roots
        return fresh

    @property
    def occurrences(self) -> Occurrences:
        """Where the copy so far stands: (run, position of its first token), in order."""
        if not self._tokens:
            return self._index.occurrences(_EMPTY, 0)
        state = self._state()
        live = state.bits if isinstance(state, Dense) else self._live()
        return self._index.occurrences(live, len(self._tokens))

    @property
    def first_occurrence(self) -> tuple[int, int] | None:
        """The first of ``occurrences``, without listing them all."""
        if not self._tokens:
            return None
        state, length = self._state(), len(self._tokens)
        if isinstance(state, int):
            return self._index.place_of(state - length)
        return self._index.place_of(state.first() - length)

    def closing_occurrences(self) -> Occurrences:
        """The occurrences that may end here: those that remain when the span is closed now."""
        length = len(self._tokens)
        if not length:
            return self._index.occurrences(_EMPTY, 0)
        flag = END if self._has_flag(END) or length < 2 * self._max else HARD_END
        state = self._state()
        if isinstance(state, int):
            ended = self._live() if self._has_flag(flag) else _EMPTY
            return self._index.occurrences(ended, length)
        return self._index.occurrences(state.ending(self._index, flag), length)

    def _live(self) -> Ints:
        state = self._state()
        return np.array([state]) if isinstance(state, int) else state.live()

    def log_prior(self, tokens: Ints) -> Floats:
        """Log share of the prior that each of ``tokens`` would keep, given what is alive.

        For each token: logsumexp of the start scores over live positions that continue with it,
        less the same over all live positions. Finite for every allowed token, 0 without a prior.
        """
        tokens = np.asarray(tokens, dtype=np.int64)
        if self._prior is None or not tokens.size:
            return np.zeros(len(tokens), dtype=np.float64)
        nexts = self._live() if self._tokens else self._first_slots()
        scores = self._prior[nexts - len(self._tokens)]
        mass = np.exp(scores - scores.max())
        sums = self._index.sums_by_token(nexts, mass, tokens)
        floor = np.finfo(np.float64).tiny
        return np.asarray(np.log(np.maximum(sums, floor)) - np.log(mass.sum()), dtype=np.float64)

    def _first_slots(self) -> Ints:
        return np.flatnonzero(self._index.starts if self._starts is None else self._starts)

    def close_tilt(self) -> float:
        """How much closing now is to be preferred, in log odds against copying on.

        Each live position has a share, from the start scores, and closes with the odds given for
        it, or not at all where it isn't a legal end: so a few ends among much that goes on are no
        reason to close. 0 without odds, or where the span can't close. Changes no allowed set.
        """
        if self._ends is None or not self._tokens or not self._has_flag(END):
            return 0.0
        state = self._state()
        if isinstance(state, int):
            return float(self._ends[state - 1])
        nexts = state.live()
        can_end = (self._index.flags[nexts - 1] & END) != 0
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
        length = len(self._tokens)
        if not length or count < 1 or (length >= self._max and self.can_close):
            return _EMPTY
        state = self._state()
        if not isinstance(state, int):
            return self._index.alphabet[state.draft(self._index, count)]
        ahead = self._index.letters[state : state + count]
        ended = np.flatnonzero(ahead == SENTINEL)
        return self._index.alphabet[ahead[: ended[0] if len(ended) else None]]
