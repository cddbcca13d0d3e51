"""Reads a reply that points, character by character, however it is cut into pieces."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from recallm_core.errors import ReplyError
from recallm_core.pointing.schema import MOST_POINTERS, MOST_STATEMENTS

MOST_CHARACTERS = 400_000

_SPACE = " \t\n\r"
_FENCE = "```"
_THOUGHT = tuple("</think>")
_MOST_DIGITS = 18
_PLAIN = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}

Reading = Generator[None, str, None]  # is sent one character after another


@dataclass(slots=True)
class Statement:
    """A statement as far as it was read.

    Attributes:
        pointers: The numbers that it names, each once; None: they haven't all come yet.
        pieces: Its words so far.
    """

    pointers: tuple[int, ...] | None = None
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Its words so far."""
        return "".join(self.pieces)


@dataclass(slots=True)
class ReplyParser:
    """Reads a reply; what is there so far is in its attributes.

    It takes exactly what ``reply_schema`` allows, with white space or one fence of Markdown around
    it, and passes over thinking before it, between ``<think>`` and ``</think>``. Linear in the
    reply.

    Attributes:
        count: How many sentences there are.
        strict: Whether the number of no sentence is an error; else its statement points at none.
        answered: Whether the model says that the documents hold an answer; None: not yet.
        statements: Those that have begun.
        over: Whether the reply is complete.
    """

    count: int
    strict: bool = True
    answered: bool | None = None
    statements: list[Statement] = field(default_factory=list)
    over: bool = False
    _size: int = 0
    _next: str = ""  # the character that the reading is at
    _reading: Reading | None = None

    def feed(self, piece: str) -> None:
        """Reads a piece.

        Raises:
            ReplyError: The reply is none that the schema allows; what was read before stays.
        """
        if self._reading is None:
            self._reading = self._document()
            next(self._reading)
        for character in piece:
            self._size += 1
            if self._size > MOST_CHARACTERS:
                raise self._error(f"at most {MOST_CHARACTERS:,} characters")
            self._reading.send(character)

    # the grammar: each reads from the character that it is at, up to the one after it

    def _document(self) -> Reading:
        yield from self._step()
        yield from self._space()
        if self._next == "<":
            yield from self._thinking()
        fenced = self._next == "`"
        if fenced:
            yield from self._fence(opens=True)
        yield from self._object({"answered": self._answered, "statements": self._statements})
        self.over = True
        yield from self._space()
        if fenced:
            yield from self._fence(opens=False)
        while True:
            if self._next not in _SPACE:
                raise self._error("nothing after the object")
            yield from self._step()

    def _thinking(self) -> Reading:
        for mark in "<think>":
            yield from self._take(mark)
        last: deque[str] = deque(maxlen=len(_THOUGHT))
        while tuple(last) != _THOUGHT:
            last.append(self._next)
            yield from self._step()
        yield from self._space()

    def _step(self) -> Reading:
        self._next = yield

    def _space(self) -> Reading:
        while self._next in _SPACE:
            yield from self._step()

    def _fence(self, *, opens: bool) -> Reading:
        for mark in _FENCE:
            yield from self._take(mark)
        if opens:
            while self._next not in "\n{":
                yield from self._step()
            yield from self._space()

    def _take(self, mark: str) -> Reading:
        if self._next != mark:
            raise self._error(repr(mark))
        yield from self._step()

    def _object(self, fields: dict[str, Callable[[], Reading]]) -> Reading:
        """An object with each of some fields once, in any order."""
        waiting = dict(fields)
        yield from self._take("{")
        while waiting:
            yield from self._space()
            name: list[str] = []
            yield from self._string(name.append)
            value = waiting.pop("".join(name), None)
            if value is None:
                raise self._error(
                    f"the fields {list(fields)}, each once, not {''.join(name)!r:.60}"
                )
            yield from self._space()
            yield from self._take(":")
            yield from self._space()
            yield from value()
            yield from self._space()
            if waiting:
                yield from self._take(",")
        if self._next != "}":
            raise self._error("'}'")
        self._next = " "  # what follows the last brace may never come

    def _array(self, item: Callable[[], Reading]) -> Reading:
        yield from self._take("[")
        yield from self._space()
        while self._next != "]":
            yield from item()
            yield from self._space()
            if self._next == "]":
                break
            yield from self._take(",")
            yield from self._space()
            if self._next == "]":
                raise self._error("a value after ','")
        yield from self._take("]")

    def _answered(self) -> Reading:
        word = "true" if self._next == "t" else "false"
        for letter in word:
            yield from self._take(letter)
        self.answered = word == "true"

    def _statements(self) -> Reading:
        yield from self._array(self._statement)

    def _statement(self) -> Reading:
        if len(self.statements) == MOST_STATEMENTS:
            raise self._error(f"at most {MOST_STATEMENTS} statements")
        self.statements.append(Statement())
        yield from self._object({"sentences": self._pointers, "text": self._text})
        yield from self._step()

    def _text(self) -> Reading:
        yield from self._string(self.statements[-1].pieces.append)

    def _pointers(self) -> Reading:
        numbers: dict[int, None] = {}

        def pointer() -> Reading:
            yield from self._pointer(numbers)

        yield from self._array(pointer)
        known = all(1 <= number <= self.count for number in numbers)
        self.statements[-1].pointers = tuple(numbers) if known else ()

    def _pointer(self, numbers: dict[int, None]) -> Reading:
        digits = ""
        while "0" <= self._next <= "9" and len(digits) < _MOST_DIGITS:
            digits += self._next
            yield from self._step()
        known = digits and digits[0] != "0" and int(digits) <= self.count
        if not digits or (self.strict and not known):
            raise self._error(f"the number of a sentence, 1 to {self.count}, after {digits!r}")
        numbers[int(digits)] = None
        if len(numbers) > MOST_POINTERS:
            raise self._error(f"at most {MOST_POINTERS} sentences for a statement")

    def _string(self, add: Callable[[str], None]) -> Reading:
        yield from self._take('"')
        while self._next != '"':
            if self._next < " ":
                raise self._error("control characters escaped in a string")
            if self._next == "\\":
                yield from self._escape(add)
            elif "\ud800" <= self._next <= "\udfff":
                raise self._error("characters, not half of one")
            else:
                add(self._next)
                yield from self._step()
        yield from self._take('"')

    def _escape(self, add: Callable[[str], None]) -> Reading:
        yield from self._step()
        if self._next in _PLAIN:
            add(_PLAIN[self._next])
            yield from self._step()
            return
        units: list[str] = []
        yield from self._unit(units)
        if "\\ud8" <= units[0] < "\\udc":  # the first half of a character
            yield from self._take("\\")
            yield from self._unit(units)
        character = json.loads(f'"{"".join(units)}"')
        if len(character) != 1 or "\ud800" <= character <= "\udfff":
            raise self._error("characters, not half of one")
        add(character)

    def _unit(self, units: list[str]) -> Reading:
        yield from self._take("u")
        digits = ""
        for _ in range(4):
            if self._next not in "0123456789abcdefABCDEF":
                raise self._error("four hexadecimal digits after \\u")
            digits += self._next.lower()
            yield from self._step()
        units.append(f"\\u{digits}")

    def _error(self, expected: str) -> ReplyError:
        return ReplyError(
            f"the model's reply isn't the JSON that it was asked for: expected {expected}, got "
            f"{self._next!r} as character {self._size:,}; use a model that keeps to JSON schemas, "
            "or allow its words to be matched to the documents instead (outside='match')"
        )
