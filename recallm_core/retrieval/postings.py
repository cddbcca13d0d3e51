"""Which places each term occurs in, as plain arrays, collected and joined a block at a time."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recallm_core.text.lexical import terms

_MOST = 65_535  # occurrences that are told apart


@dataclass(frozen=True, slots=True)
class Postings:
    """For each term, sorted by its key, the places it occurs in and how often.

    Attributes:
        keys: 64-bit hash of each term, ascending, ``uint64[terms]``.
        starts: First entry of each term, ``int64[terms + 1]``.
        places: Number of the chunk or document, ascending within a term, ``int32[entries]``.
        counts: Occurrences there, ``uint16[entries]``; stops at 65,535.
    """

    keys: npt.NDArray[np.uint64]
    starts: npt.NDArray[np.int64]
    places: npt.NDArray[np.int32]
    counts: npt.NDArray[np.uint16]

    def of(self, key: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint16]]:
        """Returns the places of a term and how often it occurs in each."""
        at = int(np.searchsorted(self.keys, np.uint64(key)))
        if at == len(self.keys) or int(self.keys[at]) != key:
            return self.places[:0], self.counts[:0]
        entries = slice(int(self.starts[at]), int(self.starts[at + 1]))
        return self.places[entries], self.counts[entries]


def term_key(term: str) -> int:
    """Returns the 64-bit key under which a term is stored."""
    return int.from_bytes(hashlib.blake2b(term.encode(), digest_size=8).digest(), "little")


def collect(texts: Sequence[str], first: int = 0) -> tuple[Postings, npt.NDArray[np.int32]]:
    """Returns where each term occurs, and the number of terms in each text.

    Args:
        texts: Some texts.
        first: The place of the first one.
    """
    numbers: dict[str, int] = {}
    term, place, count, lengths = array("i"), array("i"), array("i"), array("i")
    for position, text in enumerate(texts, start=first):
        tally = Counter(terms(text))
        lengths.append(tally.total())
        term.extend(numbers.setdefault(word, len(numbers)) for word in tally)
        place.extend([position] * len(tally))
        count.extend(tally.values())
    keys, inverse = np.unique(
        np.array([term_key(word) for word in numbers], np.uint64), return_inverse=True
    )
    ranks = inverse[np.frombuffer(term, np.int32)] if len(keys) else np.zeros(0, np.int64)
    order = np.argsort(ranks, kind="stable")  # places ascend already
    counts = np.frombuffer(count, np.int32)[order]
    collected = Postings(
        keys=keys,
        starts=_starts(np.bincount(ranks, minlength=len(keys))),
        places=np.frombuffer(place, np.int32)[order],
        counts=np.minimum(counts, _MOST).astype(np.uint16),
    )
    return collected, np.frombuffer(lengths, np.int32)


def join(parts: Sequence[Postings]) -> Postings:
    """Returns one table of several; the places of each part come after those of the part before.

    Needs room for the result and little else: entries are moved, not sorted.
    """
    keys = np.unique(np.concatenate([np.zeros(0, np.uint64), *(part.keys for part in parts)]))
    ranks = [np.searchsorted(keys, part.keys) for part in parts]
    sizes = np.zeros(len(keys), np.int64)
    for rank, part in zip(ranks, parts, strict=True):
        sizes[rank] += np.diff(part.starts)
    starts = _starts(sizes)
    places = np.empty(int(starts[-1]), np.int32)
    counts = np.empty(int(starts[-1]), np.uint16)
    following = starts[:-1].copy()  # where the next entry of each term goes
    for rank, part in zip(ranks, parts, strict=True):
        amounts = np.diff(part.starts)
        target = np.repeat(following[rank] - part.starts[:-1], amounts)
        target += np.arange(len(target))
        places[target], counts[target] = part.places, part.counts
        following[rank] += amounts
    return Postings(keys, starts, places, counts)


def select(part: Postings, rows: npt.NDArray[np.bool_], first: int) -> Postings:
    """Returns the entries at the places that are kept, those numbered anew from ``first``."""
    inside = rows[part.places]
    numbers = (np.cumsum(rows) - 1 + first).astype(np.int32)
    passed = np.concatenate([[0], np.cumsum(inside)])
    sizes = np.diff(passed[part.starts])
    some = sizes > 0
    return Postings(
        keys=part.keys[some],
        starts=_starts(sizes[some]),
        places=numbers[part.places[inside]],
        counts=part.counts[inside],
    )


def _starts(sizes: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    starts: npt.NDArray[np.int64] = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return starts
