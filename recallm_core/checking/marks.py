"""Quotes in quotation marks, of many languages, and the references written beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from recallm_core.checking.pairs import CLOSES, pairs
from recallm_core.checking.written import Claim, View, WrittenQuote

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
_IN_BRACKETS = re.compile(r"\[[^\[\]]{1,120}\]|\([^()]{1,120}\)|\u3010[^\u3011]{1,70}\u3011")
_ATTRIBUTION = re.compile(r"[\s.,*_]{0,3}[\u2014\u2013-]{1,2}\s*([^\n.;]{1,80})")
_BEFORE = 24  # characters before a quote that may hold its number
AHEAD = 700  # characters after a quote that may say where it is from
_PASSED = re.compile(
    r"(?:[^\w\[(\u3010\u2014\u2013-]{0,6}(?:\[[^\]\n]{1,30}\]|\u3010[^\u3011\n]{1,70}\u3011)){0,8}"
    r"[^\w\[(\u3010\u2014\u2013-]{0,6}[^\W\d]"
)
_MARKERS = 8  # references in a row


def in_marks(view: View) -> Iterator[WrittenQuote]:
    """Yields the quotes in quotation marks, outermost ones only, in order.

    A quote lies within a paragraph or list item. Apostrophes, inches and code are no marks. A mark
    that only opens quotes and is never closed holds what follows in its paragraph.
    """
    for pair in pairs(view.text):
        claim = reference(view.text, pair.start, pair.end + 1) if pair.closed else None
        close = CLOSES[view.text[pair.start]]
        quote = view.quote_in(pair.start + 1, pair.end, "marks", claim, close)
        if quote is not None:
            yield quote


def is_passed(text: str, end: int) -> bool:
    """Whether what follows a quote, with its marks, can't name its source any more."""
    return len(text) >= end + AHEAD or _PASSED.match(text, end) is not None


def reference(text: str, start: int, end: int) -> Claim | None:
    """Returns what stands beside a quote, with its marks at ``[start, end)``, of its source."""
    numbers = _numbers_after(text, end) or _number_before(text, start)
    if numbers:
        return Claim(numbers)
    name = _NAME.match(text, end) or _ATTRIBUTION.match(text, end)
    names = tuple(part.strip() for part in name.groups() if part) if name else ()
    return Claim(names=names, loose=True) if names else None


def claims_in_brackets(text: str) -> Iterator[tuple[int, int, Claim]]:
    """Yields where each pair of brackets stands in a text, and the source that it may name."""
    for match in _IN_BRACKETS.finditer(text):
        numbered = _REFERENCE.fullmatch(match[0])
        names = (" ".join(match[0][1:-1].split()),)
        claim = (
            Claim(parse_numbers(_numbers_text(numbered)))
            if numbered
            else Claim(names=names, loose=True)
        )
        yield *match.span(), claim


def last_reference(text: str) -> tuple[int, tuple[int, ...]]:
    """Returns where the words of a text end before the numbers that close it, and the numbers."""
    numbers: list[int] = []
    end = len(text.rstrip())
    while match := _LAST.search(text, max(0, end - _BEFORE), end):
        numbers = [*parse_numbers(_numbers_text(match)), *numbers]
        end = len(text[: match.start()].rstrip())
    return (end if numbers else len(text)), tuple(dict.fromkeys(numbers))


def parse_numbers(numbers: str) -> tuple[int, ...]:
    """Returns the numbers of a reference; a range's ends only stand for themselves.

    Documents are counted from 1, so that a 0 (``【4:0†source】``) says nothing of which it is.
    """
    return tuple(int(number) for number in re.findall(r"\d+", numbers) if int(number))


def _numbers_after(text: str, end: int) -> tuple[int, ...]:
    numbers: list[int] = []
    at = end
    for _ in range(_MARKERS):
        gap = _BESIDE.match(text, at)
        match = _REFERENCE.match(text, gap.end() if gap else at)
        if match is None:
            break
        numbers += parse_numbers(_numbers_text(match))
        at = match.end()
    return tuple(dict.fromkeys(numbers))


def _number_before(text: str, start: int) -> tuple[int, ...]:
    """The number at the head of a line, as in ``[2]: "quote"``."""
    near = max(0, start - _BEFORE)
    line = max(text.rfind("\n", near, start) + 1, near)
    head = text[line:start].strip(" \t:-*\u2022>.")
    match = _REFERENCE.fullmatch(head)
    return parse_numbers(_numbers_text(match)) if match else ()


def _numbers_text(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group)
