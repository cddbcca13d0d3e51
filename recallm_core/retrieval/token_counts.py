"""How many tokens each chunk of a segment has, by tokenizer; saved with the index."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int32]

UNKNOWN = -1
_KEPT = 8  # tokenizers; four bytes per chunk for each


def counts_name(key: str) -> str:
    """Returns the name, 16 hexadecimal digits, under which a tokenizer's counts are kept."""
    return hashlib.blake2b(key.encode(), digest_size=8).hexdigest()


class TokenCounts:
    """Tokens of the chunks of one segment; each is counted once per tokenizer.

    They only estimate what a pack costs; its passages are counted anew.

    Args:
        chunks: Chunks of the segment.
        known: Counts by name, ``int32[chunks]``; -1 where a chunk hasn't been counted.
    """

    def __init__(self, chunks: int, known: Mapping[str, Counts] | None = None) -> None:
        self._chunks = chunks
        self._known = dict(known or {})

    def under(self, name: str) -> Counts:
        """Returns the counts under a tokenizer; none is known of one that is new."""
        counts = self._known.get(name)
        if counts is None:
            for oldest in list(self._known)[: max(0, len(self._known) - _KEPT + 1)]:
                self._known.pop(oldest, None)
            counts = self._known.setdefault(name, np.full(self._chunks, UNKNOWN, np.int32))
        return counts

    def of(
        self, name: str, chunk: int, text: Callable[[], str], count: Callable[[str], int]
    ) -> int:
        """Returns the tokens of a chunk, counted if nobody did so before."""
        counts = self.under(name)
        tokens = int(counts[chunk])
        if tokens == UNKNOWN:
            tokens = counts[chunk] = count(text())
        return int(tokens)

    def all(self) -> dict[str, Counts]:
        """Returns what is known, by name."""
        known = list(self._known.items())  # a search in another thread may add to it
        return {name: counts for name, counts in known if (counts >= 0).any()}


def merge_counts(
    parts: Sequence[TokenCounts], rows: Sequence[npt.NDArray[np.bool_]]
) -> TokenCounts:
    """Returns the counts of the chunks that are kept of several segments."""
    names = dict.fromkeys(name for part in parts for name in part.all())
    pairs = list(zip(parts, rows, strict=True))
    known = {
        name: np.concatenate([part.under(name)[inside] for part, inside in pairs]) for name in names
    }
    return TokenCounts(sum(int(inside.sum()) for inside in rows), known)
