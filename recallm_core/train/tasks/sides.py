# ruff: noqa: SIM905 (tables of words)
"""Questions for either of two things in a sentence, and questions whose answer has many words.

Who hired whom can't be told by the kind of an answer, and "between 3 and 9 km" isn't "3".
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from recallm_core.train.tasks.invented import VALUES
from recallm_core.train.tasks.templates import make_page
from recallm_core.train.tasks.traces import Example

_MARKS = (("{Y}", "year"), ("{X}", "money"))
_UNITS = (
    "km/h;mph;knots;kWh;square metres;hectares;acres;litres a minute;beats per minute;"
    "degrees Celsius;percent;tonnes;volts;megabytes;light years;inches;centimetres;"
    "people per square kilometre;minutes a day;times a year;points;kg;grams;minutes;days"
).split(";")
_THINGS = (
    "apples;maps;goats;candles;ropes;flutes;stamps;old coins;wooden boats;paper flowers;wild geese;"
    "spare keys;clay pots;blue herons;tall hats;field notes"
).split(";")
_NAMED = "Amsel Birke Corona Delta Eiger Falke Gamma Heron Ibis Jade Karst Linde Merle".split()
_KINDS_OF_THING = "engine lamp boat press wheel pump tent camera drum stove kite scale".split()
_RANGES = ("between {} and {} {}", "from {} to {} {}", "{} to {} {}", "{}-{} {}", "{} or {} {}")


@dataclass(frozen=True, slots=True)
class Sided:
    """A sentence with two things of one kind, and what asks for either.

    Attributes:
        kind: Of both things.
        about: Kind of the thing ``{T}`` that the sentence is about; empty: there is none.
        statements: Each with ``{A}`` and ``{B}`` once.
        asks_first: Questions whose answer is ``{A}``.
        asks_second: Questions whose answer is ``{B}``.
    """

    kind: str
    about: str
    statements: tuple[str, ...]
    asks_first: tuple[str, ...]
    asks_second: tuple[str, ...]


@cache
def sided() -> tuple[Sided, ...]:
    """Returns every sentence with two things of one kind."""
    return tuple(
        Sided(kind, about, *(_choices(part) for part in rest))
        for kind, about, *rest in _table("sides.txt")
    )


@cache
def whole() -> tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]:
    """Returns kinds of answers of many words, what states them and what asks for them."""
    return tuple(
        (kind, _choices(said), _choices(asked)) for kind, said, asked in _table("wholes.txt")
    )


def _table(name: str) -> list[list[str]]:
    lines = Path(__file__).with_name(name).read_text("utf-8").splitlines()
    return [
        [part.strip() for part in line.split("|")] for line in lines if not line.startswith("#")
    ]


def _choices(part: str) -> tuple[str, ...]:
    return tuple(choice.strip() for choice in part.split(" ; "))


@dataclass(frozen=True, slots=True)
class Stated:
    """A sentence, what asks for a piece of it, and where the piece stands."""

    text: str
    question: str
    start: int
    end: int


def state_sides(rng: random.Random) -> Stated:
    """Says something of two things of one kind, and asks for one of them."""
    relation = rng.choice(sided())
    names = dict(zip("AB", _different(VALUES[relation.kind], 2, rng), strict=True))
    names["T"] = VALUES[relation.about](rng) if relation.about else ""
    asked = rng.choice("AB")
    asking = relation.asks_first if asked == "A" else relation.asks_second
    return _state(rng.choice(relation.statements), rng.choice(asking), names, asked, rng)


def state_whole(rng: random.Random) -> Stated:
    """Says a range, a list or an amount of something, and asks for it."""
    kind, statements, questions = rng.choice(whole())
    names = {"V": _MAKERS[kind](rng), "T": f"{rng.choice(_NAMED)} {rng.choice(_KINDS_OF_THING)}"}
    return _state(rng.choice(statements), rng.choice(questions), names, "V", rng)


def _state(
    statement: str, question: str, names: dict[str, str], asked: str, rng: random.Random
) -> Stated:
    for mark, kind in _MARKS:
        statement = statement.replace(mark, VALUES[kind](rng))
    before, after = statement.split(f"{{{asked}}}")
    for name, thing in names.items():
        before, after = (part.replace(f"{{{name}}}", thing) for part in (before, after))
        question = question.replace(f"{{{name}}}", thing)
    piece = names[asked] if before else names[asked][:1].upper() + names[asked][1:]
    start = len(before)
    return Stated(before + piece + after, question, start, start + len(piece))


def sides(rng: random.Random, sentences: int) -> Example:
    """Returns a question for one of two things of one kind, amid other sentences of such form.

    Args:
        rng: The example follows from it.
        sentences: At most so many others stand around the evidence.
    """
    return _lay_out(state_sides(rng), "sides", rng, sentences)


def wholes(rng: random.Random, sentences: int) -> Example:
    """Returns a question whose answer is a range, a list, or an amount with its unit.

    Args:
        rng: The example follows from it.
        sentences: At most so many others stand around the evidence.
    """
    return _lay_out(state_whole(rng), "wholes", rng, sentences)


def _lay_out(stated: Stated, task: str, rng: random.Random, sentences: int) -> Example:
    others = [_other(rng) for _ in range(rng.randint(0, sentences))]
    place = rng.randint(0, len(others))
    between = rng.choice((" ", " ", " ", "\n", "\n\n"))
    before = "".join(other + between for other in others[:place])
    text = between.join([*others[:place], stated.text, *others[place:]])
    at = len(before)
    evidence = (0, at, at + len(stated.text))
    answer = (0, at + stated.start, at + stated.end)
    title = rng.choice(("", "", "Notes", "Chronicle", "Overview"))
    return Example(((title, text),), stated.question, (evidence,), answer, task)


def _other(rng: random.Random) -> str:
    """A sentence of the same form, or some of a page, which is about other things but by chance."""
    form = rng.random()
    if form < 0.4:
        return state_sides(rng).text
    if form < 0.6:
        return state_whole(rng).text
    return make_page(rng, 1).text.strip() or state_sides(rng).text


def _range(rng: random.Random) -> str:
    low = rng.randint(1, 400)
    return rng.choice(_RANGES).format(low, low + rng.randint(1, 400), rng.choice(_UNITS))


def _unit(rng: random.Random) -> str:
    number = rng.choice((str(rng.randint(2, 999)), f"{rng.randint(1, 99)}.{rng.randint(1, 9)}"))
    return f"{number} {rng.choice(_UNITS)}"


def _different(make: Callable[[random.Random], str], count: int, rng: random.Random) -> list[str]:
    """So many things, none of them twice."""
    things: dict[str, None] = {}
    while len(things) < count:
        things[make(rng)] = None
    return list(things)


def _list(make: Callable[[random.Random], str], rng: random.Random) -> str:
    """Some different things in a row, as sentences name them."""
    things = _different(make, rng.randint(2, 5), rng)
    if len(things) < 3:
        return rng.choice((" and ", " or ")).join(things)
    return ", ".join(things[:-1]) + rng.choice((" and ", ", and ", " or ")) + things[-1]


_MAKERS: dict[str, Callable[[random.Random], str]] = {
    "range": _range,
    "unit": _unit,
    "names": lambda rng: _list(VALUES["person"], rng),
    "cities": lambda rng: _list(VALUES["city"], rng),
    "things": lambda rng: _list(lambda r: r.choice(_THINGS), rng),
}
