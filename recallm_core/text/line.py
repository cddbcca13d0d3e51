"""A line of a plain text, and what it may be by itself: an item, a record, a row, code."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ITEM = re.compile(
    r"(?:[-+*\u2022\u2023\u25e6\u25aa\u2043]|\d{1,3}[.)]|[(\[]?[a-zA-Z]?\d{0,2}[)])\s"
)
_RECORD = re.compile(
    r"""(?P<time>[\[(]?\d{4}[-/.]\d\d?[-/.]\d\d?\b|[\[(]?\d\d?[-/.]\d\d?[-/.]\d{2,4}\b
        |[\[(]?\d\d?:\d\d\b|[A-Z][a-z]{2}[ ]{1,2}\d\d?[ ]\d\d:\d\d)
    |(?P<level>\[?(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|FATAL|CRITICAL)\b)
    |(?P<key>[^\s:=|,]{1,80}+[ \t]{0,8}+(?::\s|=))
    |(?P<table>[|{}<])
    |(?P<number>[(\[]?\d[\d.,]*\b)""",
    re.VERBOSE,
)
_COLUMNS = re.compile(r"[^\s|][ ]*(?:\t|[ ]{2}[ ]|\|)[ ]*[^\s|]")
# One sign, then what stands before or after it: so a search only stops at signs.
_CODE = re.compile(
    r"[;{}()\].=!<>+:-](?:(?<=[;{}])$|(?<=[)\]]):$|(?<=\w\()[^()\s]*\)?$|(?<=\w\.)\w+\("
    r"|(?<=[-=])>|(?<=[!=<>+:-])=|(?<=\s=)\s|(?<=:):)"
)
_CODE_HEAD = re.compile(r"@\w|import\s|def\s|\$\s")
# A line that begins with a letter and has none of these is of no kind; this only saves time.
ODD = re.compile(r"[|{}<>=\t;@$:()]")
_LOUD = re.compile(r"(?:import|def|[A-Z]{4,})\b")
FINISHED = re.compile(
    r"""[.!?\u2026:\u3002\uff01\uff1f\u061f\u06d4\u0964]["'\u201d\u2019\xbb)\]*_]*$"""
)
GOES_ON = re.compile(
    r"""(?:[,\u2013\u2014(\[/\u3001\uff0c-]|\b(?:
    a|an|the|of|to|in|on|at|by|for|from|with|and|or|but|that|which|is|are|was|were|be|has|have
    |its|his|her|their|our|your|as|than|into
    |der|die|das|des|dem|den|eine?|eine[rsmn]|und|oder|vo[nm]|mit|[ia]m|zu|zu[mr]|f\xfcr|auf|aus|bei
    |de|la|le|les|du|et|el|los|las|y|en|une?|una|di|il|per|con))$""",
    re.VERBOSE,
)
CUE_TIME = re.compile(r"\s*(?:\d+:)?\d\d:\d\d[.,]\d{3} --> ")
_COUNT = re.compile(r"(?P<number>\d+)|(?P<letter>[a-zA-Z])(?!\d)")
_LONGEST_WORD = 12  # more characters than the words and marks after which a line goes on have
LOOK_AHEAD = 200  # characters of a line that are enough to tell what it is

_FIRST = frozenset((None, 1, ord("a"), ord("A")))


@dataclass(frozen=True, slots=True)
class Label:
    """What an item of a list begins with.

    Attributes:
        style: Its signs, without the number or the letter.
        value: The number or the letter's code point; None: it is only a sign.
    """

    style: str
    value: int | None

    @property
    def is_word(self) -> bool:
        """Whether it may be a word of a sentence: a bracket alone closes one, of code."""
        return self.style != ")"

    @property
    def is_first(self) -> bool:
        """Whether a list may begin with it."""
        return self.value in _FIRST

    def is_beside(self, other: Label) -> bool:
        """Whether it stands right before or after another one in a list."""
        if self.style != other.style or self.value is None or other.value is None:
            return self == other
        return abs(self.value - other.value) <= 1  # Markdown counts for lazy writers


class Line:
    """A line: its range, where its words begin after the mark, and what they look like."""

    __slots__ = ("at", "end", "first", "kind", "mark", "start", "width", "words")

    def __init__(self, text: str, start: int, end: int, at: int, mark: str) -> None:
        self.start, self.end, self.at, self.mark = start, end, at, mark
        words = text[at:end].rstrip()
        self.width = len(words)
        self.words = words.lstrip()
        self.first = self.words.split(None, 1)[0] if words else ""
        self.kind = _kind(self.words)

    @property
    def indent(self) -> int:
        """How far its words stand from the mark or the margin."""
        return self.width - len(self.words)

    @property
    def is_fence(self) -> bool:
        """Whether it begins or ends a block of code in Markdown."""
        return self.words.startswith("```")

    @property
    def is_row(self) -> bool:
        """Whether it is a whole row of a table with bars at both ends."""
        return self.words.startswith("|") and self.words.endswith("|", 1)

    def is_apart_from(self, before: Line) -> bool:
        """Whether it and the line before are a cue and its words, a table's end, or a fence."""
        is_cue = "cue" in (self.kind, before.kind)
        return is_cue or self.is_row != before.is_row or self.is_fence or before.is_fence

    @property
    def label(self) -> Label:
        """What it begins with, if it is an item."""
        sign = _COUNT.search(self.first)
        if sign is None:
            return Label(self.first, None)
        value = int(sign["number"]) if sign["number"] else ord(sign["letter"])
        return Label(_COUNT.sub("#", self.first), value)

    @property
    def is_finished(self) -> bool:
        """Whether a sentence ends here, or a colon says that something follows."""
        return FINISHED.search(self.words[-LOOK_AHEAD:]) is not None

    @property
    def goes_on(self) -> bool:
        """Whether it can't end here: after a comma, an article or a preposition."""
        return GOES_ON.search(self.words[-_LONGEST_WORD:]) is not None

    @property
    def begins_anew(self) -> bool:
        """Whether it begins as a sentence or a record does."""
        first = self.first.lstrip("\"'\u201c\u2018\xab([")[:1]
        return first.isupper() or first.isdigit()


def _kind(words: str) -> str | None:
    """What a line by itself may be, if it isn't prose; one such line makes no record."""
    head = words[:LOOK_AHEAD]
    has_values = "," in head and head.count(",") > head.count(", ") + 1
    has_gaps = "   " in head or "\t" in head or "|" in head
    is_odd = has_values or has_gaps or not head[:1].isalpha() or ODD.search(head)
    if not is_odd and not _LOUD.match(head):
        return None
    if head[:1].isdecimal() and CUE_TIME.match(head):
        return "cue"
    if _ITEM.match(head):
        return "item"
    record = _RECORD.match(head)
    if record:
        return record.lastgroup
    if has_values or (has_gaps and _COLUMNS.search(head)):
        return "columns"
    return "code" if is_code(words) else None


def is_code(words: str) -> bool:
    """Whether a line without outer white space has a sign that only lines of code have."""
    tail = words[-LOOK_AHEAD:]
    return _CODE.search(tail) is not None or _CODE_HEAD.match(tail) is not None
