"""Which token may come next inside a recall span: plain integers in, plain integers out.

The index is a flat array of the copyable token runs, each followed by a sentinel. Little is built:
the tokens become letters, their numbers among the distinct tokens of the prompt, which take two
bytes and make tables of tokens as short as the prompt's own vocabulary. A matcher keeps the places
that are still alive after each token. The first token scans the array, later ones filter what is
left (a handful, after about three tokens of real text).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recallm_core.decoding.live_copies import (
    END,
    HARD_END,
    SENTINEL,
    START,
    Dense,
    Letters,
    State,
    bits_of_slots,
    is_dense,
    simplest_state,
    slots_of_bits,
)
from recallm_core.decoding.occurrences import Occurrences
from recallm_core.decoding.recall_matcher import RecallMatcher
from recallm_core.errors import ConstraintError
from recallm_core.inputs.arguments import shown, whole_number

__all__ = ["RecallIndex", "RecallMatcher"]

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

_BITSETS = 32  # letters whose slots are remembered as bits: those of dense states are no more
_SPARSE_IDS = 8  # ids may be this many times more than slots; beyond that they are sorted
_LISTED = 64  # places up to which copies are struck out one by one


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

    Attributes:
        alphabet: The distinct tokens, ascending, and -1 before them for the sentinel.
        letters: The place of each slot's token in the alphabet.
        flags: Whether a span may begin or end in a slot, as bits.

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
        self.vocab_size = whole_number("vocab_size", vocab_size, 1, 1 << 31, error=ConstraintError)
        joined, lengths = _concatenate_runs(list(runs))
        self._check_ids(joined)
        self.run_lengths: Ints = np.array(lengths, dtype=np.int64)
        self.run_offsets: Ints = np.concatenate(
            [np.zeros(1, np.int64), np.cumsum(self.run_lengths + 1)]
        )[:-1]
        self.size = len(joined)
        starts = self._bools("can_start", can_start)
        ends = self._bools("can_end", can_end)
        hard = ends if can_end_hard is None else ends | self._bools("can_end_hard", can_end_hard)
        alive = self._up_to_last_end(ends)
        tokens = np.where(alive, joined, -1)
        self.alphabet, letters = _alphabet_and_letters(tokens)
        self.letters: Letters = self._over_slots(letters)
        flags = ends * np.uint8(END) + hard * np.uint8(HARD_END)
        self.flags: NDArray[np.uint8] = self._over_slots(flags + (starts & alive) * np.uint8(START))
        self._order, self._bounds = _sorted_slots(self.letters, len(self.alphabet))
        for array in (self.alphabet, self.letters, self.flags):
            array.flags.writeable = False
        # plain numbers, one by one
        self.views = (self.alphabet.data, self.letters.data, self.flags.data)
        self._firsts = self.run_offsets.data
        self._start_anywhere = bool((starts & alive).all())
        self.root_tokens = self._roots()
        self._bitsets: dict[int, int] = {}
        self._behind: dict[int, int] = {}

    def _check_ids(self, tokens: NDArray[np.integer]) -> None:
        if tokens.size and (tokens.min() < 0 or tokens.max() >= self.vocab_size):
            bad = tokens[(tokens < 0) | (tokens >= self.vocab_size)][0]
            raise ConstraintError(
                f"run token ids must be in [0, {self.vocab_size}), the width of the logits, "
                f"but a run holds {bad}"
            )

    def _bools(self, name: str, bits: Sequence[bool] | Bools | None) -> Bools:
        """One bool per run position."""
        if bits is None:
            return np.ones(self.size, dtype=np.bool_)
        array: Bools = _array(name, bits, np.bool_)
        if array.shape != (self.size,):
            raise ConstraintError(
                f"{name} needs one bool per run position ({self.size:,}), got {array.shape}"
            )
        return array

    def _up_to_last_end(self, ends: Bools) -> Bools:
        """Positions up to their run's last legal end: nothing behind it could be closed."""
        lengths = self.run_lengths[self.run_lengths > 0]
        if not len(lengths) or ends[np.cumsum(lengths) - 1].all():
            return np.ones(self.size, dtype=np.bool_)
        positions = np.arange(self.size)
        firsts = np.cumsum(lengths) - lengths
        last = np.maximum.reduceat(np.where(ends, positions, -1), firsts)
        return positions <= np.repeat(last, lengths)

    def _over_slots(self, values: NDArray[Any]) -> NDArray[Any]:
        """Lays one value per position out over the slots; sentinels get 0."""
        out = np.zeros(self.size + len(self.run_lengths), dtype=values.dtype)
        if len(self.run_lengths) == 1:
            out[: self.size] = values
            return out
        runs = np.repeat(np.arange(len(self.run_lengths)), self.run_lengths)
        out[np.arange(self.size) + runs] = values
        return out

    def _roots(self) -> Ints:
        """The distinct tokens that a span may begin with, ascending."""
        if self._start_anywhere:
            return self.alphabet[1:]
        return self.tokens_at(self.starts)

    @property
    def starts(self) -> Bools:
        """Whether a span may begin in each slot."""
        starts: Bools = (self.flags & START) != 0
        return starts

    def begun(self, letter: int, starts: Bools | None) -> State | None:
        """What is alive once a letter was copied where a span may begin; None: nothing.

        Args:
            letter: Of the first token.
            starts: Where this span may begin; None: wherever one may.
        """
        low, high = self._bounds[letter : letter + 2].tolist()
        if is_dense(high - low, len(self.letters)):
            return self._begun_densely(letter, starts)
        slots = self._order[low:high].astype(np.int64)
        if starts is not None:
            slots = slots[starts[slots]]
        elif not self._start_anywhere:
            slots = slots[(self.flags[slots] & START) != 0]
        return simplest_state(slots + 1)

    def _begun_densely(self, letter: int, starts: Bools | None) -> State | None:
        """The same for a letter that stands in very many slots."""
        bits = self.bits_of(letter)
        if starts is not None:
            bits &= bits_of_slots(starts)
        elif not self._start_anywhere:
            bits &= self.bits_behind(START) >> 1
        if is_dense(bits.bit_count(), len(self.letters)):
            return Dense(bits << 1)
        return simplest_state(slots_of_bits(bits << 1))

    @property
    def copyable(self) -> bool:
        """Whether a span can be opened at all."""
        return bool(self.root_tokens.size)

    def letter_of(self, token: int) -> int:
        """A token's place in the alphabet; the sentinel's where it isn't there."""
        ids = self.views[0]
        at = bisect_left(ids, token)
        return at if at < len(ids) and ids[at] == token else SENTINEL

    def tokens_at(self, slots: Bools) -> Ints:
        """The distinct tokens in some slots, ascending."""
        table = np.zeros(len(self.alphabet), dtype=np.bool_)
        table[self.letters[slots]] = True
        table[SENTINEL] = False
        tokens: Ints = self.alphabet[table]
        tokens.flags.writeable = False
        return tokens

    def sums_by_token(self, slots: Ints, weights: Floats, tokens: Ints) -> Floats:
        """The sum of the weights of those slots that hold each of some distinct, sorted tokens."""
        letters = self.letters[slots]
        if len(slots) > len(self.alphabet):
            sums = np.bincount(letters, weights=weights, minlength=len(self.alphabet))
            places = np.minimum(np.searchsorted(self.alphabet, tokens), len(self.alphabet) - 1)
            return np.where(self.alphabet[places] == tokens, sums[places], 0.0)
        following = self.alphabet[letters]
        places = np.searchsorted(tokens, following)
        places[places == len(tokens)] = 0
        hit = tokens[places] == following
        sums = np.bincount(places[hit], weights=weights[hit], minlength=len(tokens))
        return sums.astype(np.float64, copy=False)

    def bits_of(self, letter: int) -> int:
        """The slots that hold a letter, a bit for each."""
        bits = self._bitsets.get(letter)
        if bits is None:
            bits = bits_of_slots(self.letters == letter)
            if len(self._bitsets) >= _BITSETS:
                self._bitsets = {}  # another one, as others may be reading it
            self._bitsets[letter] = bits
        return bits

    def bits_behind(self, flag: int) -> int:
        """The slots behind those that have a flag, a bit for each."""
        bits = self._behind.get(flag)
        if bits is None:
            bits = self._behind[flag] = bits_of_slots((self.flags & flag) != 0) << 1
        return bits

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

    def place_of(self, slot: int) -> tuple[int, int]:
        """The run of a slot, and its position there."""
        run = bisect_right(self._firsts, slot) - 1
        return run, slot - self._firsts[run]

    def occurrences(self, live: Ints | int, length: int) -> Occurrences:
        """The copies of some length behind which these slots stand."""
        return Occurrences(self.run_offsets, live, length)

    def starts_outside(self, copies: Iterable[tuple[Sequence[tuple[int, int]], int]]) -> Bools:
        """Where a span may begin without lying in what was copied: one bool per slot.

        Args:
            copies: The (run, position of the first token) of each place of an earlier copy, and
                the number of its tokens.
        """
        starts = self.starts
        for places, length in copies:
            firsts = self._slots_of(places)
            if length == 1:
                starts[firsts] = False
            elif len(firsts) <= _LISTED:
                for first in firsts.tolist():
                    starts[first : first + length] = False
            else:
                depth = np.zeros(len(starts) + 1, dtype=np.int32)
                depth[firsts] += 1
                depth[firsts + length] -= 1
                starts &= np.cumsum(depth[:-1]) == 0
        return starts

    def _slots_of(self, places: Sequence[tuple[int, int]]) -> Ints:
        if isinstance(places, Occurrences):
            return places.slots
        pairs = np.array(places, dtype=np.int64).reshape(-1, 2)
        return np.unique(self.run_offsets[pairs[:, 0]] + pairs[:, 1])

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
        return self._over_slots(array)


def _concatenate_runs(runs: Sequence[Any]) -> tuple[NDArray[np.int32], list[int]]:
    """The tokens of all runs, and how many each has."""
    if all(isinstance(run, np.ndarray) and run.dtype == np.int32 for run in runs):
        arrays = [run.reshape(-1) for run in runs]
    else:
        arrays = [_array("a run", run, np.int32).reshape(-1) for run in runs]
    return np.concatenate([np.empty(0, np.int32), *arrays]), [len(array) for array in arrays]


def _alphabet_and_letters(tokens: NDArray[np.int32]) -> tuple[Ints, Letters]:
    """The distinct tokens, -1 before them, and the place of each token among them."""
    highest = int(tokens.max(initial=-1))
    if highest > _SPARSE_IDS * (len(tokens) + (1 << 16)):  # no table as wide as odd ids ask for
        several, letters = np.unique(np.append(np.int32(-1), tokens), return_inverse=True)
        return several.astype(np.int64), letters.reshape(-1)[1:].astype(np.uint32)
    table = np.zeros(highest + 2, dtype=np.bool_)
    table[0] = True
    table[tokens + 1] = True
    alphabet: Ints = np.flatnonzero(table) - 1
    narrow = len(alphabet) <= 1 << 16
    places = np.zeros(highest + 2, np.uint16) if narrow else np.zeros(highest + 2, np.uint32)
    places[alphabet + 1] = np.arange(len(alphabet))
    return alphabet, places[tokens + 1]


def _sorted_slots(letters: Letters, size: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """The slots by their letters, ascending for each, and where each letter's begin."""
    order = np.argsort(letters, kind="stable").astype(np.uint32)
    bounds = np.zeros(size + 1, dtype=np.uint32)
    np.cumsum(np.bincount(letters, minlength=size), out=bounds[1:])
    return order, bounds


def _array(name: str, values: Any, dtype: Any) -> Any:
    try:
        array = np.asarray(values)
        if dtype is np.int32 and array.size and array.dtype.kind not in "iu":
            raise TypeError
        if dtype is np.int32 and array.size and (array.min() < -(2**31) or array.max() >= 2**31):
            raise OverflowError
        return array.astype(dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConstraintError(f"{name} must hold plain numbers, got {shown(values)}") from error
