"""Where a copy stands, listed when somebody looks: a closing span shouldn't wait for the list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from recallm_core.decoding.live_copies import slots_of_bits

Ints = NDArray[np.int64]
Place = tuple[int, int]


class Occurrences(Sequence[Place]):
    """The (run, position of the first token) of each place of a copy, in order; read-only.

    Args:
        run_offsets: The slot at which each run begins, ascending.
        live: The slots behind the copies: their numbers, or a bit for each.
        length: Tokens of the copy.
    """

    __slots__ = ("_length", "_live", "_offsets", "_slots")

    def __init__(self, run_offsets: Ints, live: Ints | int, length: int) -> None:
        self._offsets = run_offsets
        self._live = live
        self._length = length
        self._slots: Ints | None = None

    @property
    def slots(self) -> Ints:
        """The slots of the copies' first tokens."""
        if self._slots is None:
            live = self._live
            self._slots = (slots_of_bits(live) if isinstance(live, int) else live) - self._length
        return self._slots

    def _places(self, slots: Ints) -> list[Place]:
        runs = np.searchsorted(self._offsets, slots, side="right") - 1
        return list(zip(runs.tolist(), (slots - self._offsets[runs]).tolist(), strict=True))

    def __len__(self) -> int:
        live = self._live
        return live.bit_count() if isinstance(live, int) else len(live)

    @overload
    def __getitem__(self, at: int) -> Place: ...

    @overload
    def __getitem__(self, at: slice) -> list[Place]: ...

    def __getitem__(self, at: int | slice) -> Place | list[Place]:
        if isinstance(at, slice):
            return self._places(self.slots[at])
        return self._places(np.array([self.slots[at]]))[0]

    def __iter__(self) -> Iterator[Place]:
        return iter(self._places(self.slots))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Occurrences) and self._offsets is other._offsets:
            return bool(np.array_equal(self.slots, other.slots))
        if isinstance(other, (Occurrences, list, tuple)):
            return len(self) == len(other) and list(self) == list(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Occurrences({self[:3]}{', ...' if len(self) > 3 else ''})"
