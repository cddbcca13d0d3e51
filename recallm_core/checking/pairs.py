"""Which quotation marks open a quote and which close it, in many languages, in linear time."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from recallm_core.text.scripts import UNSPACED

CLOSES = {
    "\u201c": "\u201d", "\u201e": "\u201c\u201d", "\u201d": "\u201d", "\u201f": "\u201d",
    "\u00ab": "\u00bb", "\u00bb": "\u00ab", "\u2039": "\u203a", "\u203a": "\u2039",
    "\u300c": "\u300d", "\u300e": "\u300f", "\u301d": "\u301e\u301f",
    "\u2018": "\u2019", "\u201a": "\u2018\u2019", "\uff02": "\uff02", '"': '"', "'": "'",
}  # fmt: skip
# Where they open, they can't be anything else; left open, they run to the end of the paragraph.
_SURE = frozenset("\u201c\u201e\u00ab\u2039\u300c\u300e\u301d")
_APOSTROPHES = frozenset("'\u2019")
_EITHER = {
    mark: re.compile("[" + re.escape(closes + mark) + "]") for mark, closes in CLOSES.items()
}
_OPENERS = re.compile("[" + "".join(CLOSES) + "]")
_BREAK = re.compile(r"\n[ \t]*\n|\n(?=[ \t]*(?:[-*+\u2022|]|#{1,6}|\d{1,3}[.)])[ \t])")
_CODE = re.compile(r"(?<!`)(`+)(?!`)(?:(?!\n[ \t]*\n).){1,2000}?(?<!`)\1(?!`)", re.DOTALL)
_ELISION = re.compile(r"(?:tis|twas|twere|em|cause|til|n|\d0s)\b", re.IGNORECASE)
_TICKS = re.compile("`+")
_UNSPACED = re.compile(f"[{UNSPACED}]")
LENGTH = 10_000  # characters that quotation marks may hold


@dataclass(frozen=True, slots=True)
class Pair:
    """The marks of a quote.

    Attributes:
        start: Where the opening one stands.
        end: Where the closing one stands, or the quote ends without one.
        closed: Whether a mark closes it.
        certain: Whether more text after this one can't change that.
    """

    start: int
    end: int
    closed: bool
    certain: bool


def pairs(text: str) -> Iterator[Pair]:
    """Yields the outermost quotes of a text, in order."""
    return (pair for pair in _Scan(text).pairs() if pair.end > pair.start)


def open_from(text: str) -> int:
    """Returns from where on more text could change what is a quote; its length, if nowhere."""
    spans = _code(text)
    starts = [start for start, _ in spans]
    doubtful = len(text)
    for match in _TICKS.finditer(text):
        at = bisect_right(starts, match.start()) - 1
        if at < 0 or not match.end() <= spans[at][1] < len(text):
            doubtful = match.start()
            break
    marks = (pair.start for pair in _Scan(text).pairs() if not pair.certain)
    return min(doubtful, next(marks, len(text)))


def _code(text: str) -> list[tuple[int, int]]:
    """The ranges of code within the lines."""
    return [match.span() for match in _CODE.finditer(text)]


class _Scan:
    """One walk through a text; remembers what it has looked for in vain."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._code = _code(text)
        self._starts = [start for start, _ in self._code]
        self._break = -1  # where the paragraph ends that was looked at last
        self._barren: dict[str, int] = {}  # up to where nothing closes what a mark opens

    def pairs(self) -> Iterator[Pair]:
        """Yields the quotes; and, empty, openings that more text could make one."""
        text, at = self._text, 0
        while match := _OPENERS.search(text, at):
            i = match.start()
            inside = bisect_right(self._starts, i) - 1
            if inside >= 0 and i < self._code[inside][1]:
                at = self._code[inside][1]
                continue
            at = i + 1
            if not _opens(text, i):
                if at == len(text):
                    yield Pair(i, i, closed=False, certain=False)
                continue
            pair = self._pair_at(i)
            if pair.end > i or not pair.certain:
                yield pair
            at = max(at, pair.end + 1)

    def _pair_at(self, i: int) -> Pair:
        """The quote that opens at ``i``; empty where it is none."""
        text, mark = self._text, self._text[i]
        limit = self._limit(i)
        ends = self._closing(i, limit)
        first = next(ends, None)
        decided = limit < len(text.rstrip(" \t\n"))
        if first is None:
            self._barren[mark] = limit
            return Pair(i, limit if mark in _SURE else i, closed=False, certain=decided)
        if text[first] in _APOSTROPHES and _is_possessive(text, first):
            later = next(ends, None)
            certain = decided or later is not None
            return Pair(i, first if later is None else later, closed=True, certain=certain)
        return Pair(i, first, closed=True, certain=first + 3 < len(text))

    def _limit(self, i: int) -> int:
        """Where the paragraph of a place ends, or a quote would grow too long."""
        if self._break <= i:
            match = _BREAK.search(self._text, i)
            self._break = match.start() if match else len(self._text)
        return min(self._break, i + LENGTH)

    def _closing(self, i: int, limit: int) -> Iterator[int]:
        """The places that may close the quote that opens at ``i``."""
        text, mark = self._text, self._text[i]
        closes, depth = CLOSES[mark], 0
        start = i + 1 if mark in _SURE else max(i + 1, self._barren.get(mark, 0))
        for match in _EITHER[mark].finditer(text, start, limit):
            j = match.start()
            if text[j] in closes and _closes(text, j):
                if depth == 0:
                    yield j
                depth = max(0, depth - 1)
            elif text[j] == mark and mark not in closes:
                depth += 1


def _opens(text: str, i: int) -> bool:
    mark, before, after = text[i], text[i - 1 : i], text[i + 1 : i + 2]
    if not after:
        return False
    if mark in _SURE:
        return True
    if after.isspace():
        return False
    if mark in "'\u2018":
        if _ELISION.match(text, i + 1):
            return False
        return not before.isalnum() and before not in ("'", "\u2019")
    return not before or not before.isalnum() or _is_unspaced(before)


def _closes(text: str, j: int) -> bool:
    mark, before, after = text[j], text[j - 1], text[j + 1 : j + 2]
    if mark in _APOSTROPHES:
        return not before.isspace() and not after.isalnum()
    if mark in '"\uff02':
        return not before.isspace() and (not after.isalnum() or _is_unspaced(after))
    return True


def _is_possessive(text: str, j: int) -> bool:
    """Whether an apostrophe after an s goes on to what is owned: ``the dogs' bones``."""
    return text[j - 1] in "sS" and text[j + 1 : j + 2] == " " and text[j + 2 : j + 3].islower()


def _is_unspaced(character: str) -> bool:
    return _UNSPACED.match(character) is not None
