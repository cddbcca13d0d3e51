"""Text of one section on its way out: what is certain is let through, the rest held back."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from recallm_core.answers.loops import KEPT, is_loop, turn_length

_OPENERS = "([{<=:"  # what stands before a mark that opens words, and isn't white space
_MEASURE = r"(?<![\w.,/-])(?:\d{1,3} ?['\u2032] ?)?\d{1,3}(?:[.,/]\d{1,4})?"  # 12, 5'11, 1/2, 7.5
_SEEN = 16  # characters before a mark that are looked at; no measure is longer


@dataclass(slots=True)
class TextFlow:
    """Text of one section on its way out: outer white space and a prefix dropped, stops found.

    What may still turn out to be trailing white space, the prefix of a line or a stop string is
    held back. A ``closing`` mark ends the text as well, but where a word is set in such marks, or
    where it is the unit of one of the ``measures``. With ``ends_loops`` words that go round in
    circles end the text, and their last turn is left out. Where quotes come by the rules and not by
    the model's own hand, ``spaced`` keeps them apart from the words around them.
    """

    prefix: str = ""
    stop: tuple[str, ...] = ()
    spaced: bool = False
    ends_loops: bool = False
    closing: str = ""
    measures: frozenset[str] = frozenset()  # numbers that ``closing`` stands behind as their unit
    length: int = 0  # characters let through, quotes included
    held: str = ""
    begun: bool = False
    stopped: bool = False
    looped: bool = False  # it was stopped for going round in circles
    last: str = ""  # the last character let through, quotes not included
    quoted: bool = False  # whether a quote came after it
    taken: str = ""  # the last words, since the last quote
    turning: int = 0  # characters at the end that may be the last turn of a loop
    before: str = ""  # the last characters, as far as the closing mark has to know
    inside: bool = False  # whether it stands in marks of its own
    measured: bool = False  # whether a mark was the unit of one of the measures

    def text(self, piece: str) -> str:
        """Takes a piece of the model's own words and returns what can be let through."""
        if self.stopped:
            return ""
        self.held += piece
        if not self.begun:
            self.held = self.held.lstrip()
        whole = len(self.held)
        self._find_closing(piece)
        self._find_stop()
        if self.ends_loops:
            self._find_loop(piece[: len(piece) - (whole - len(self.held))])
        if self.stopped:
            return self._let_out(self._without_prefix().rstrip())
        settled = self._certain_length()
        if not settled:
            return ""
        rest, self.held = self.held[settled:], self.held[:settled]
        out = self._let_out(self._without_prefix())
        self.held = rest
        return out

    def _let_out(self, text: str) -> str:
        self.held = ""
        if self.spaced and self.quoted and text[:1].isalnum() and _is_spaced(text[0]):
            text = f" {text}"
        if text:
            self.begun, self.quoted, self.last = True, False, text[-1]
        self.length += len(text)
        return text

    def _without_prefix(self) -> str:
        """What is held, less the prefix at the beginnings of its lines."""
        if not self.prefix or self.prefix not in self.held:
            return self.held
        at = r"\n[ \t]*" if self.begun else r"(?:\A|\n)[ \t]*"
        pattern = rf"({at}){re.escape(self.prefix)}\s*"
        text = re.sub(pattern, lambda match: match[1], self.held)
        return text if self.begun else text.lstrip()

    def _find_stop(self) -> None:
        places = [at for at in (self.held.find(s) for s in self.stop) if at >= 0]
        if places:
            self.held = self.held[: min(places)]
            self.stopped = True

    def _find_closing(self, piece: str) -> None:
        """Ends the text at a closing mark; ``piece`` is what ``held`` ends with.

        Behind white space, a bracket, a colon or an equals sign the mark opens words of its own,
        which the next one closes; behind a backslash, or as a unit, it is a character like others.
        Once a unit was met, a line's end ends the text as well: the model may take it for closed.
        """
        if not self.closing:
            return
        for at, character in enumerate(piece):
            before, self.before = self.before, (self.before + character)[-_SEEN:]
            if self._ends_at(character, before):
                self.held = self.held[: len(self.held) - (len(piece) - at)]
                self.stopped = True
                return

    def _ends_at(self, character: str, before: str) -> bool:
        """Takes a character; returns whether the text ends before it."""
        if character == "\n":
            return self.measured
        if character != self.closing or before.endswith("\\"):
            return False
        if self._is_measure(before):
            self.measured = True
            return False
        return self._take_mark(before[-1:])

    def _take_mark(self, last: str) -> bool:
        """Takes a mark; returns whether it closes the whole text, by what stands before it."""
        if not self.inside and last.strip(_OPENERS) and not last.isspace():
            return True
        self.inside = not self.inside
        return False

    def _is_measure(self, text: str) -> bool:
        """Whether a text ends with a number that the evidence holds in inches or seconds of arc."""
        number = re.search(rf"{_MEASURE}\Z", text) if self.measures and not self.inside else None
        return number is not None and _plain(number[0]) in self.measures

    def _find_loop(self, piece: str) -> None:
        """Cuts off the last turn of a loop; ``piece`` is what ``held`` ends with."""
        text = self.taken + piece
        for end in range(len(self.taken) + 1, len(text) + 1):
            before = text[max(0, end - KEPT) : end]
            length = turn_length(before)
            if length and is_loop(before, length):
                self.held = self.held[: max(0, len(self.held) - (len(text) - end) - length)]
                self.stopped = self.looped = True
                return
            self.turning = self.turning + 1 if length else 0
        self.taken = text[-KEPT:]

    def _certain_length(self) -> int:
        """How much of what is held is certain."""
        size = len(self.held[: max(0, len(self.held) - self.turning)].rstrip())
        for stop in self.stop:
            for length in range(min(len(stop) - 1, len(self.held)), 0, -1):
                if stop.startswith(self.held[-length:]):
                    size = min(size, len(self.held) - length)
                    break
        full = self.held.rstrip()
        newline = full.rfind("\n")
        if newline >= 0 or not self.begun:
            line = full[newline + 1 :].strip()
            if self.prefix.startswith(line):  # it may become the prefix, or nothing follows it yet
                size = min(size, newline + 1)
        return len(self.held[:size].rstrip())

    def before_quote(self) -> str:
        """Lets through what was held, for a quote follows; only leading space is lost."""
        out = self._let_out(self._without_prefix())
        apart = " " if self.spaced and not self.quoted and _is_spaced(self.last) else ""
        self.length += len(apart)
        self.begun = self.quoted = True
        self.taken, self.turning = "", 0
        return out + apart

    def end(self) -> str:
        """Lets through what was held at the end, but for trailing white space."""
        return self._let_out("" if self.stopped else self._without_prefix().rstrip())


def measures_in(texts: Iterable[str], mark: str) -> frozenset[str]:
    """Returns the numbers that ``mark`` stands behind in the texts as a unit: ``12" record``.

    Where it closes words that it opened it is none. A text whose marks don't pair otherwise counts
    for nothing: which of them stands for inches can't be told.
    """
    return frozenset(number for text in texts for number in _measures_of(text, mark))


def _measures_of(text: str, mark: str) -> set[str]:
    numbers, inside = set(), False
    for match in re.finditer(rf"({_MEASURE})?({re.escape(mark)}|\u2033)", text) if mark else ():
        if match[1] and (match[2] != mark or not inside):
            numbers.add(_plain(match[1]))
        elif match[2] == mark:
            inside = not inside
    return set() if inside else numbers


def _plain(measure: str) -> str:
    return measure.replace(" ", "").replace("\u2032", "'")


def _is_spaced(character: str) -> bool:
    """Whether a space belongs between this character and a quote; wide scripts have none."""
    ends = character.isalnum() or character in tuple(".!?:;,\u2026")
    return ends and unicodedata.east_asian_width(character) not in ("W", "F")
