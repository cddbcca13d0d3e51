"""Quotes in quotation marks, of many languages, and the references written beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from recallm_core.checking.written import Claim, View, Written

_CLOSES = {
    "\u201c": "\u201d", "\u201e": "\u201c\u201d", "\u201d": "\u201d", "\u201f": "\u201d",
    "\u00ab": "\u00bb", "\u00bb": "\u00ab", "\u2039": "\u203a", "\u203a": "\u2039",
    "\u300c": "\u300d", "\u300e": "\u300f", "\u301d": "\u301e\u301f",
    "\u2018": "\u2019", "\u201a": "\u2018\u2019", "\uff02": "\uff02", '"': '"', "'": "'",
}  # fmt: skip
# Where they open, they can't be anything else; left open, they run to the end of the paragraph.
_SURE = frozenset("\u201c\u201e\u00ab\u2039\u300c\u300e\u301d")
_APOSTROPHES = frozenset("'\u2019")
_OPENERS = re.compile("[" + "".join(_CLOSES) + "]")
_BREAK = re.compile(r"\n[ \t]*\n|\n(?=[ \t]*(?:[-*+\u2022|]|#{1,6}|\d{1,3}[.)])[ \t])")
_CODE = re.compile(r"(?<!`)(`+)(?!`)(?:(?!\n[ \t]*\n).){1,2000}?(?<!`)\1(?!`)", re.DOTALL)
_NUMBERS = r"\^?\d{1,3}(?:\s*[,;\u2013-]\s*\^?\d{1,3})*"
_KIND = r"(?:source|src|doc|document|passage|context|ref)s?\.?\s*[#]?"
_REFERENCE = re.compile(
    rf"""\[(?:{_KIND}\s*)?(?P<plain>{_NUMBERS})\]|\((?:{_KIND}\s*)(?P<named>{_NUMBERS})\)
    |\u3010(?:\d+:)?(?P<lens>\d{{1,3}})[^\u3011\n]{{0,60}}\u3011""",
    re.VERBOSE | re.IGNORECASE,
)
_LAST = re.compile(rf"(?:{_REFERENCE.pattern})\Z", re.VERBOSE | re.IGNORECASE)
_BESIDE = re.compile(r"[ \t\u00a0.,;:!?*_)\u2026\"'\u201d]{0,4}")
_NAME = re.compile(r"[\s.,*_]{0,4}(?:\(([^()\n]{1,120})\)|\[([^\[\]\n]{1,120})\])")
_ATTRIBUTION = re.compile(r"[\s.,*_]{0,3}[\u2014\u2013-]{1,2}\s*([^\n.;]{1,80})")
_BEFORE = 24  # characters before a quote that may hold its number
LENGTH = 10_000  # characters that quotation marks may hold
AHEAD = 700  # characters after a quote that may say where it is from
_ELISION = re.compile(r"(?:tis|twas|twere|em|cause|til|n|\d0s)\b", re.IGNORECASE)
_TICKS = re.compile("`+")
_PASSED = re.compile(
    r"(?:[^\w\[(\u3010\u2014\u2013-]{0,6}(?:\[[^\]\n]{1,30}\]|\u3010[^\u3011\n]{1,70}\u3011)){0,8}"
    r"[^\w\[(\u3010\u2014\u2013-]{0,6}[^\W\d]"
)
_MARKERS = 8  # references in a row


def in_marks(view: View) -> Iterator[Written]:
    """Yields the quotes in quotation marks, outermost ones only, in order.

    A quote lies within a paragraph or list item. Apostrophes, inches and code are no marks. A mark
    that only opens quotes and is never closed holds what follows in its paragraph.
    """
    for start, end, closed, _ in _pairs(view.text):
        claim = reference(view.text, start, end + 1) if closed else None
        found = view.written(start + 1, end, "marks", claim, _CLOSES[view.text[start]])
        if found is not None:
            yield found


def open_from(text: str) -> int:
    """Returns from where on more text could change what is a quote; its length, if nowhere."""
    spans = [match.span() for match in _CODE.finditer(text)]
    runs = (match.span() for match in _TICKS.finditer(text))
    ticks = (a for a, b in runs if not any(c <= a and b <= d < len(text) for c, d in spans))
    marks = (start for start, _, _, decided in _pairs(text, undecided=True) if not decided)
    return min(next(ticks, len(text)), next(marks, len(text)))


def is_passed(text: str, end: int) -> bool:
    """Whether what follows a quote, with its marks, can't name its source any more."""
    return len(text) >= end + AHEAD or _PASSED.match(text, end) is not None


def _pairs(text: str, *, undecided: bool = False) -> Iterator[tuple[int, int, bool, bool]]:
    """Yields where quotes open and close, whether a mark closes them, and whether that is certain.

    Args:
        text: Any text.
        undecided: Whether openings that nothing closes, as far as the text goes, count as well.
    """
    code = [match.span() for match in _CODE.finditer(text)]
    at = 0
    while match := _OPENERS.search(text, at):
        i = match.start()
        inside = next((end for start, end in code if start <= i < end), None)
        if inside is not None:
            at = inside
            continue
        at = i + 1
        if not _opens(text, i):
            if undecided and at == len(text):
                yield i, i, False, False
            continue
        end, closed, certain = _closed(text, i)
        if end is not None or (undecided and not certain):
            yield i, i if end is None else end, closed, certain
        if end is not None:
            at = end + 1


def reference(text: str, start: int, end: int) -> Claim | None:
    """Returns what stands beside a quote, with its marks at ``[start, end)``, of its source."""
    numbers = _numbers_after(text, end) or _number_before(text, start)
    if numbers:
        return Claim(numbers)
    name = _NAME.match(text, end) or _ATTRIBUTION.match(text, end)
    names = tuple(found.strip() for found in name.groups() if found) if name else ()
    return Claim(names=names, loose=True) if names else None


def last_reference(text: str) -> tuple[int, tuple[int, ...]]:
    """Returns where the words of a text end before the numbers that close it, and the numbers."""
    found: list[int] = []
    end = len(text.rstrip())
    while match := _LAST.search(text, max(0, end - _BEFORE), end):
        found = [*listed(_named(match)), *found]
        end = len(text[: match.start()].rstrip())
    return (end if found else len(text)), tuple(dict.fromkeys(found))


def listed(numbers: str) -> tuple[int, ...]:
    """Returns the numbers of a reference; a range's ends only stand for themselves."""
    return tuple(int(number) for number in re.findall(r"\d+", numbers))


def _numbers_after(text: str, end: int) -> tuple[int, ...]:
    found: list[int] = []
    at = end
    for _ in range(_MARKERS):
        beside = _BESIDE.match(text, at)
        match = _REFERENCE.match(text, beside.end() if beside else at)
        if match is None:
            break
        found += listed(_named(match))
        at = match.end()
    return tuple(dict.fromkeys(found))


def _number_before(text: str, start: int) -> tuple[int, ...]:
    """The number at the head of a line, as in ``[2]: "quote"``."""
    near = max(0, start - _BEFORE)
    line = max(text.rfind("\n", near, start) + 1, near)
    head = text[line:start].strip(" \t:-*\u2022>.")
    match = _REFERENCE.fullmatch(head)
    return listed(_named(match)) if match else ()


def _named(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group)


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


def _closed(text: str, i: int) -> tuple[int | None, bool, bool]:
    """Where the quote that opens at ``i`` ends, whether a mark says so, whether more text can't."""
    mark, limit = text[i], _limit(text, i)
    ends = _closing(text, i, limit)
    first = next(ends, None)
    decided = limit < len(text.rstrip(" \t\n"))
    if first is None:
        return (limit if mark in _SURE else None), False, decided
    if text[first] in _APOSTROPHES and _is_possessive(text, first):
        later = next(ends, None)
        return (first if later is None else later), True, decided or later is not None
    return first, True, first + 3 < len(text)


def _limit(text: str, i: int) -> int:
    end = min(len(text), i + LENGTH)
    match = _BREAK.search(text, i, end)
    return match.start() if match else end


def _closing(text: str, i: int, limit: int) -> Iterator[int]:
    """The places that may close the quote that opens at ``i``."""
    mark, closes, depth = text[i], _CLOSES[text[i]], 0
    marks = re.compile("[" + re.escape(closes + mark) + "]")
    for match in marks.finditer(text, i + 1, limit):
        j = match.start()
        if text[j] in closes and _closes(text, j):
            if depth == 0:
                yield j
            depth = max(0, depth - 1)
        elif text[j] == mark and mark not in closes:
            depth += 1


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
    return "\u0e00" <= character <= "\u109f" or "\u3000" <= character <= "\u9fff"
