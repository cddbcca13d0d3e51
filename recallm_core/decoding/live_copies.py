"""Which copies are alive after some tokens: a list of slots, or where there are very many, bits.

A slot is a place of the index. A state holds the slots whose letters come next; one live copy, by
far the commonest state, is the bare number of its slot, which the matcher handles itself. What is
alive is the same in each form, which the tests check against a naive scan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Letters = NDArray[np.uint32] | NDArray[np.uint16]

# Flags of a slot: a span may end here, or once it is far too long, or begin here.
END, HARD_END, START = 1, 2, 4
SENTINEL = 0  # the letter that stands where nothing can be copied
_DENSE_FLOOR = 2048  # below this many live copies a list of slots is always cheaper
_DENSE_SHARE = 12  # above 1/12 of the slots bits are cheaper; no word of prose is so frequent
_COUNTED = 8  # bits are counted once in so many tokens; counting costs as much as a token
_SELECTIVE = 4  # tokens within which nearly all copies of prose have parted
_FEW = 64  # letters that a set tells apart sooner than a table
_DISTINCT_TRIES = 4  # letters looked for among bits before they are unrolled
_DRAFT_ROWS = 64  # live copies that a draft compares; with more there is rarely one choice


class Slots(Protocol):
    """What a state reads of its index."""

    @property
    def letters(self) -> Letters:
        """The letter in each slot: its number in the alphabet."""

    @property
    def flags(self) -> NDArray[np.uint8]:
        """Where a span may end."""

    @property
    def alphabet(self) -> Ints:
        """The distinct tokens, ascending, and the sentinel before them."""

    def bits_of(self, letter: int) -> int:
        """The slots that hold a letter."""

    def bits_behind(self, flag: int) -> int:
        """The slots behind those that have a flag."""


@dataclass(slots=True, eq=False)
class SlotList:
    """Live copies as the slots of what comes next, ascending; more than one."""

    slots: Ints
    following: Letters | None = None  # the letters there
    distinct: list[int] | Ints | None = None
    uniform: bool = False  # whether they are one letter, and none has ended

    def letters(self, index: Slots) -> list[int] | Ints:
        """The distinct letters that may come next, ascending, without the sentinel."""
        if self.distinct is None:
            following = self._following(index)
            first = int(following[0])
            perhaps = first != SENTINEL and first == int(following[-1])  # prose has parted by then
            self.uniform = perhaps and bool((following == first).all())
            size = len(index.alphabet)
            self.distinct = [first] if self.uniform else _distinct(following, size)
        return self.distinct

    def _following(self, index: Slots) -> Letters:
        if self.following is None:
            self.following = index.letters[self.slots]
        return self.following

    def after(self, index: Slots, letter: int, length: int) -> State | None:
        """What is alive once a letter was copied as the ``length``-th; None: nothing."""
        if self.uniform and self.distinct is not None and self.distinct[0] == letter:
            return SlotList(self.slots + 1)
        return simplest_state(self.slots[self._following(index) == letter] + 1)

    def ends(self, index: Slots, flag: int) -> bool:
        """Whether a copy has a flag at its last token."""
        if index.flags[self.slots[0] - 1] & flag:
            return True
        return bool((index.flags[self.slots - 1] & flag).any())

    def live(self) -> Ints:
        """The slots, as a list."""
        return self.slots

    def first(self) -> int:
        """The first of the slots."""
        return int(self.slots[0])

    def ending(self, index: Slots, flag: int) -> Ints | int:
        """The slots behind the copies that have a flag at their last token."""
        ended: Ints = self.slots[(index.flags[self.slots - 1] & flag) != 0]
        return ended

    def draft(self, index: Slots, count: int) -> Ints:
        """The letters that all copies go on with, up to ``count``; ended ones have no say."""
        letters = self.letters(index)
        if len(letters) != 1 or len(self.slots) > _DRAFT_ROWS:
            return np.array(letters if len(letters) == 1 else [], dtype=np.int64)
        ahead = self.slots[:, None] + np.arange(count)
        return _common_continuation(index.letters[np.minimum(ahead, len(index.letters) - 1)])


@dataclass(slots=True, eq=False)
class Dense:
    """Live copies as a bit for each slot of what comes next, the first slot lowest."""

    bits: int
    distinct: list[int] | Ints | None = None
    ahead: tuple[int, int] | None = None  # a letter, and the slots that hold it

    def letters(self, index: Slots) -> list[int] | Ints:
        """The distinct letters that may come next, ascending, without the sentinel."""
        if self.distinct is None:
            self.distinct = self._by_elimination(index)
        return self.distinct

    def _by_elimination(self, index: Slots) -> list[int] | Ints:
        """In repetitive text there are one or two, found one after the other."""
        letters: list[int] = []
        rest = self.bits ^ (self.bits & index.bits_of(SENTINEL))
        while rest and len(letters) < _DISTINCT_TRIES:
            letter = int(index.letters[rest.bit_length() - 1])  # the last slot's: no search
            going = rest & index.bits_of(letter)
            self.ahead = (letter, going)
            letters.append(letter)
            rest ^= going
            if rest and going.bit_count() < rest.bit_count():
                break  # prose after a very frequent word: there are many
        if rest:
            return _distinct(index.letters[slots_of_bits(self.bits)], len(index.alphabet))
        return sorted(letters)

    def after(self, index: Slots, letter: int, length: int) -> State | None:
        """What is alive once a letter was copied as the ``length``-th; None: nothing."""
        if self.ahead is not None and self.ahead[0] == letter:
            hits = self.ahead[1]
        else:
            hits = self.bits & index.bits_of(letter)
        if not hits:
            return None
        counted = length <= _SELECTIVE or length % _COUNTED == 0
        if not counted or is_dense(hits.bit_count(), len(index.letters)):
            return Dense(hits << 1)
        return simplest_state(slots_of_bits(hits << 1))

    def ends(self, index: Slots, flag: int) -> bool:
        """Whether a copy has a flag at its last token."""
        return bool(self.bits & index.bits_behind(flag))

    def live(self) -> Ints:
        """The slots, as a list."""
        return slots_of_bits(self.bits)

    def first(self) -> int:
        """The first of the slots."""
        return (self.bits & -self.bits).bit_length() - 1

    def ending(self, index: Slots, flag: int) -> Ints | int:
        """The slots behind the copies that have a flag at their last token."""
        return self.bits & index.bits_behind(flag)

    def draft(self, index: Slots, count: int) -> Ints:
        """The letter that all copies go on with, where there is just one."""
        letters = self.letters(index)
        return np.array(letters if len(letters) == 1 else [], dtype=np.int64)


State = int | SlotList | Dense


def is_dense(alive: int, slots: int) -> bool:
    """Whether bits are the cheaper form."""
    return alive > _DENSE_FLOOR and alive * _DENSE_SHARE > slots


def simplest_state(slots: Ints) -> State | None:
    """A list of slots in the simplest form."""
    if len(slots) > 1:
        return SlotList(slots)
    return int(slots[0]) if len(slots) else None


def bits_of_slots(flags: Bools) -> int:
    """One bit a slot as one number, the first slot lowest."""
    return int.from_bytes(np.packbits(flags, bitorder="little").tobytes(), "little")


def slots_of_bits(bits: int) -> Ints:
    """The slots whose bits are set, ascending."""
    data = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
    return np.flatnonzero(np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little"))


def _distinct(letters: Letters, size: int) -> list[int] | Ints:
    """Letters without repetitions and the sentinel, ascending; ``size`` is the alphabet's."""
    if len(letters) <= _FEW:
        return sorted({*letters.tolist()} - {SENTINEL})
    table = np.zeros(size, dtype=np.bool_)
    table[letters] = True
    table[SENTINEL] = False
    return np.flatnonzero(table)


def _common_continuation(table: Letters) -> Ints:
    """The one continuation that rows of letters share; a row that has ended has no say."""
    alive = ~np.logical_or.accumulate(table == SENTINEL, axis=1)
    highest = np.where(alive, table, SENTINEL).max(axis=0)
    lowest = np.where(alive, table, np.iinfo(table.dtype).max).min(axis=0)
    parted = np.flatnonzero((highest != lowest) | (highest == SENTINEL))
    return np.asarray(highest[: parted[0] if len(parted) else None], dtype=np.int64)
