"""Where in a sentence an answer has clean edges: not amid an amount, a date, a list, a bracket.

An answer is a piece of a sentence. The reader sees where it lies, and is at times a word off: the
unit is missing, or a bracket is opened and not closed. Such edges are told by rule. They tilt where
a quote starts and ends, as the reader's scores do, and forbid nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recallm_core.evidence.question_forms import (
    asks_for_a_date,
    asks_for_a_measure,
    asks_for_one_end,
    asks_for_several,
)

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_DIGITS = r"(?<![\d.,])(?:\d[\d,.]*\d|\d)"
_WORD = (
    r"(?<!\w)(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|"
    r"thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|billion|dozen)"
)
_UNIT = (
    r"(?:\N{DEGREE SIGN}\s?[CF]\b|\N{DEGREE SIGN}|%|(?:per\s?cent|percentage points?|seconds?|"
    r"minutes?|hours?|days?|weeks?|months?|years?|decades?|centuries|(?:centi|milli|kilo)?met(?:re|"
    r"er)s?|[ckm]m2?|m|ft|f[eo]{2}t|inch(?:es)?|miles?|yards?|acres?|hectares?|[km]?g|"
    r"(?:kilo)?grams?|tons?|tonnes?|pounds?|lbs?|lit(?:re|er)s?|gallons?|volts?|watts?|[kMG]?Hz|"
    r"[kMG]?W|[kKMGT]?B|bits?|bytes?|mph|km/h|dollars?|euros?|pence|cents?|USD|EUR|GBP|degrees?|"
    r"times|AD|BCE?|CE|[ap]\.m\.|[ap]m)(?!\w))"
)
_AMOUNT = re.compile(
    rf"(?:{_DIGITS}|{_WORD})[\s-]?(?:(?:hundred|thousand|million|billion|trillion)\s)?"
    rf"(?:(?:square|cubic|nautical|metric)\s)?(?P<unit>{_UNIT})"
)
_COUNTED = re.compile(
    rf"{_DIGITS} (?!(?:across|as|does|has|his|its|plus|this|towards|versus|was|whereas)\b)"
    r"(?P<unit>[a-z]{2,}s)\b"
)
_MANY = re.compile(rf"(?:{_DIGITS}|{_WORD})\s(?:hundred|thousand|million|billion|trillion)\b")
_PRICE = re.compile(rf"[$\N{{EURO SIGN}}\N{{POUND SIGN}}\N{{YEN SIGN}}]\s?{_DIGITS}")
_NAME = re.compile(
    r"(?<!\w)[A-Z]\w*(?:-[a-z]{1,4})*(?:-[A-Z]\w*)+|(?<![\w-])#?\w+(?:-\w+){3,}"
    r"|(?<!\w)[A-Z]\w*(?: [A-Z]\w*){0,4} & [A-Z]\w*"
)
_RANGE = re.compile(rf"{_DIGITS}\s?[-\N{{EN DASH}}\N{{EM DASH}}]\s?{_DIGITS}")
_MONTH = (
    r"(?:(?:January|February|March|April|May|June|July|August|September|October|November|December)"
    r"|(?:Jan|Feb|Mar|Apr|Aug|Sept?|Oct|Nov|Dec)\.)"
)
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
_DATE = re.compile(
    rf"\b{_MONTH}\s{_DAY}\b(?:,?\s\d{{4}}\b)?|\b{_DAY}(?:\sof)?\s{_MONTH}(?:,?\s\d{{4}}\b)?"
    rf"|\b{_MONTH},?\s\d{{4}}\b"
)
_ITEM = r"[^,;:.()\n]{1,60}?"
_LIST = re.compile(rf"(?:{_ITEM}, ){{0,16}}{_ITEM},? (?:and|or|&) ")
_BETWEEN_ITEMS = re.compile(r",? (?:and|or|&) |, ")
_APART = re.compile(r"[,;:](?=\s|\Z)")  # marks between words, which belong to neither
_CLOSING = {
    "(": ")",
    "[": "]",
    "{": "}",
    "\N{LEFT DOUBLE QUOTATION MARK}": "\N{RIGHT DOUBLE QUOTATION MARK}",
    "\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}": (
        "\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}"
    ),
}
_ALIKE = '"`'  # what opens and closes with the same mark
_DEEPEST = 32  # marks that are open at once; more of them are no writing


@dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """The clean edges of a sentence; arrays have ``len(sentence) + 1`` entries, one a position.

    Attributes:
        may_start: Where an answer may start.
        may_end: Where it may end.
        nested: In which pair of brackets or quotation marks a position lies: where the innermost
            one opens, -1 in none. Between two positions of one pair no mark stands alone.
        first: Where an answer that starts at a position starts, if not with marks that belong to no
            word or pair of it.
        last: Where it ends, likewise.
        pairs: Where each pair opens, and where it closes.
    """

    may_start: Bools
    may_end: Bools
    nested: Ints
    first: Ints
    last: Ints
    pairs: Mapping[int, int]


def clean_edges(question: str, sentence: str) -> Edges:
    """Returns the clean edges of a sentence, for an answer to a question.

    Args:
        question: Says what may be divided: who asks for a year is content with a piece of a date.
        sentence: Where the answer lies.
    """
    may_start, may_end = np.ones((2, len(sentence) + 1), dtype=np.bool_)
    for start, end in _wholes(question, sentence):
        may_start[start + 1 : end] = may_end[start + 1 : end] = False
    if asks_for_several(question):
        for start, end in _breaks_of_lists(sentence):
            may_end[start], may_start[end] = False, False
    pairs, lone = _pairs(sentence)
    nested = np.full(len(sentence) + 1, -1, dtype=np.int64)
    for opening, closing in pairs.items():
        nested[opening + 1 : closing + 1] = opening
    first, last = np.arange(len(sentence) + 1), np.arange(len(sentence) + 1)
    apart = sorted({*lone, *(match.start() for match in _APART.finditer(sentence))})
    for place in apart:
        may_start[place] = may_end[place + 1] = False
        last[place + 1] = last[place]
    for place in reversed(apart):
        first[place] = first[place + 1]
    return Edges(may_start, may_end, nested, first, last, pairs)


def _wholes(question: str, sentence: str) -> Iterator[tuple[int, int]]:
    """The ranges that an answer takes whole or not at all."""
    asked = question.casefold()
    for amount in [_AMOUNT, *([_COUNTED] if asks_for_a_measure(question) else [])]:
        for match in amount.finditer(sentence):
            if not _names_unit(asked, match["unit"].casefold()):
                yield match.span()
    patterns = [_MANY, _PRICE, _NAME]
    patterns += [_DATE] if asks_for_a_date(question) else []
    patterns += [] if asks_for_one_end(question) else [_RANGE]
    for pattern in patterns:
        yield from (match.span() for match in pattern.finditer(sentence))


def _names_unit(question: str, unit: str) -> bool:
    """Whether a question says the unit itself: "how many metres", "what percentage"."""
    if unit in ("%", "percent", "per cent"):
        return "percent" in question or "per cent" in question
    stem = unit.rstrip("s").replace("metre", "meter").replace("litre", "liter")
    return len(stem) > 1 and stem in question.replace("metre", "meter").replace("litre", "liter")


def _breaks_of_lists(sentence: str) -> Iterator[tuple[int, int]]:
    """The ranges between the items of the lists."""
    for match in _LIST.finditer(sentence):
        for between in _BETWEEN_ITEMS.finditer(sentence, *match.span()):
            yield between.span()


def _pairs(sentence: str) -> tuple[dict[int, int], frozenset[int]]:
    """Where pairs open and close, the outer ones first, and the marks that have no partner."""
    opened: list[tuple[int, str]] = []
    pairs: list[tuple[int, int]] = []
    closers = {*_CLOSING.values(), *_ALIKE}
    marks = {n: mark for n, mark in enumerate(sentence) if mark in closers or mark in _CLOSING}
    for place, mark in marks.items():
        waiting = [n for n, (_, closing) in enumerate(opened) if closing == mark]
        if waiting:
            pairs.append((opened[waiting[-1]][0], place))
            del opened[waiting[-1] :]
        elif mark in _CLOSING or mark in _ALIKE:
            opened = [*opened[1 - _DEEPEST :], (place, _CLOSING.get(mark, mark))]
    return dict(sorted(pairs)), frozenset(marks) - {place for pair in pairs for place in pair}
