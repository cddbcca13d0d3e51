"""Per token of a passage: its characters, and whether a span may begin or end with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recallm_core.text.boundaries import (
    amid_phrases,
    beside_digits,
    grapheme_boundaries,
    inside_numbers,
    word_boundaries,
)
from recallm_core.text.lexical import sentences
from recallm_core.tokenization.tokenizer import PlainTokens

Bools = NDArray[np.bool_]
Ints32 = NDArray[np.int32]

_APART = "\v"  # a control character and a Newline: UAX #29 breaks before and after it
_TOGETHER = 2_000_000  # characters
_BLANK = np.array([chr(c).isspace() for c in range(0x3002)], dtype=np.bool_)
_BLANK_ASCII = _BLANK[:256].tobytes()


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """An unbroken stretch of copyable tokens of one passage.

    Attributes:
        passage: Number of the passage.
        first: Token position in the prompt of the run's first token.
        starts, ends: Character range of each token in the passage's text.
    """

    passage: int
    first: int
    starts: Ints32
    ends: Ints32


@dataclass(frozen=True, slots=True, eq=False)
class Limits:
    """Where a span may begin and end, one bool per token.

    Attributes:
        can_start: With this token.
        can_end: After this token.
        can_end_hard: After this token where it is far too long: not amid a character or a number,
            nor where a number is part of a word.
    """

    can_start: Bools
    can_end: Bools
    can_end_hard: Bools

    def part(self, first: int, last: int) -> Limits:
        """Returns the limits of some consecutive tokens."""
        return Limits(
            self.can_start[first:last], self.can_end[first:last], self.can_end_hard[first:last]
        )


@dataclass(frozen=True, slots=True, eq=False)
class PlacedTokens:
    """A passage's tokens where they stand in the prompt."""

    passage: int
    first: int
    tokens: PlainTokens
    limits: Limits


def limits(texts: Sequence[str], tokens: Sequence[PlainTokens], boundary: str) -> Iterator[Limits]:
    """Finds where spans over some texts may begin and end: trimmed, on whole characters or words.

    Short texts are looked at together, for many small arrays cost more than one large one.

    Args:
        texts: The passages' texts.
        tokens: Their tokens.
        boundary: ``sentence``, ``word`` or ``character``. A text in which no sentence begins and
            ends between tokens is quoted by words.
    """
    if boundary == "sentence":
        by_word = limits(texts, tokens, "word")
        yield from map(_sentence_limits, texts, tokens, by_word)
        return
    first = 0
    while first < len(texts):
        last, size = first + 1, len(texts[first])
        while last < len(texts) and size + len(texts[last]) < _TOGETHER:
            size += len(texts[last])
            last += 1
        yield from _limits(texts[first:last], tokens[first:last], boundary)
        first = last


def _sentence_limits(text: str, tokens: PlainTokens, by_word: Limits) -> Limits:
    """The limits of whole sentences and lines; those of words where a span is far too long.

    In scripts without spaces those of phrases.
    """
    if not len(tokens.ids):
        return by_word
    begins, stops = np.zeros(len(text) + 1, np.bool_), np.zeros(len(text) + 1, np.bool_)
    spans = np.array(sentences(text), dtype=np.int64).reshape(-1, 2)
    begins[spans[:, 0]] = stops[spans[:, 1]] = True
    visible = _Visible(text)
    can_start = by_word.can_start & begins[visible.after(tokens.starts)]
    can_end = by_word.can_end & stops[visible.before(tokens.ends)]
    if not (can_start.any() and can_end.any()):
        return by_word
    return Limits(can_start, can_end, by_word.can_end & ~amid_phrases(text)[tokens.ends])


def _limits(texts: Sequence[str], tokens: Sequence[PlainTokens], boundary: str) -> Iterator[Limits]:
    """The same for texts that are joined by a separator no grapheme or word reaches across."""
    text = _APART.join(texts)
    sizes = np.array([len(t.ids) for t in tokens])
    bases = np.cumsum([0, *(len(t) + 1 for t in texts[:-1])]).astype(np.int32)
    base = np.repeat(bases, sizes)
    starts = np.concatenate([t.starts for t in tokens]) + base
    ends = np.concatenate([t.ends for t in tokens]) + base
    characters = grapheme_boundaries(text)
    if boundary == "word":
        marks = word_boundaries(text, characters)
        hard_marks = characters & (marks | ~beside_digits(text))
    else:
        marks = hard_marks = characters & ~inside_numbers(text)
    apart = np.ones(len(starts) + 1, dtype=np.bool_)
    if len(starts):
        np.greater_equal(starts[1:], ends[:-1], out=apart[1:-1])
    visible = _Visible(text)
    begins = visible.after(starts)
    finishes = np.maximum(visible.before(ends), base)
    can_start = apart[:-1] & (begins < ends) & marks[begins]
    can_end = apart[1:] & marks[finishes]
    hard = can_end if marks is hard_marks else apart[1:] & hard_marks[finishes]
    whole = Limits(can_start, can_end, hard)
    stops = np.cumsum(sizes).tolist()
    for a, b in zip([0, *stops[:-1]], stops, strict=True):
        yield whole.part(a, b)


def first_visible(text: str, offsets: Ints32) -> Ints32:
    """For each offset, the first character at or after it that isn't white space."""
    return _Visible(text).after(offsets)


class _Visible:
    """The characters of a text that aren't white space (as ``str.isspace`` has it)."""

    def __init__(self, text: str) -> None:
        seen = ~_blank(text)
        self._size = len(text)
        self._at = np.append(np.flatnonzero(seen).astype(np.int32), np.int32(self._size))
        self._count = np.zeros(self._size + 1, dtype=np.int32)
        np.cumsum(seen, out=self._count[1:])

    def after(self, offsets: Ints32) -> Ints32:
        """Returns for each offset the first marked one at or after it, else the text's end."""
        offsets_after: Ints32 = self._at[self._count[offsets]]
        return offsets_after

    def before(self, offsets: Ints32) -> Ints32:
        """Returns for each offset one past the last marked one before it, else 0."""
        counts = self._count[offsets]
        offsets_before: Ints32 = np.where(
            counts > 0, self._at[counts - 1] + np.int32(1), np.int32(0)
        )
        return offsets_before


def _blank(text: str) -> Bools:
    if text.isascii():
        return np.frombuffer(text.encode("ascii").translate(_BLANK_ASCII), dtype=np.bool_)
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    is_blank: Bools = _BLANK[np.minimum(codes, np.uint32(0x3001))]
    return is_blank


def copyable_runs(places: Sequence[PlacedTokens]) -> tuple[tuple[Run, ...], Limits]:
    """Splits passages at tokens that can't be copied; limits are those of all runs, in order."""
    runs: list[Run] = []
    parts: list[Limits] = []
    for place in places:
        tokens = place.tokens
        if not len(tokens.ids):
            continue
        if tokens.copyable.all():
            runs.append(Run(place.passage, place.first, tokens.starts, tokens.ends))
            parts.append(place.limits)
            continue
        edges = np.flatnonzero(np.diff(tokens.copyable, prepend=False, append=False))
        for a, b in edges.reshape(-1, 2).tolist():
            runs.append(Run(place.passage, place.first + a, tokens.starts[a:b], tokens.ends[a:b]))
            parts.append(place.limits.part(a, b))
    return tuple(runs), _together(parts)


def _together(parts: Sequence[Limits]) -> Limits:
    if len(parts) == 1:
        return parts[0]
    none = np.empty(0, dtype=np.bool_)
    return Limits(
        np.concatenate([none, *(p.can_start for p in parts)]),
        np.concatenate([none, *(p.can_end for p in parts)]),
        np.concatenate([none, *(p.can_end_hard for p in parts)]),
    )
