"""Dictionaries of numbers and codes, and the equations whose solution is the number to look up."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from dataclasses import dataclass

from recallm_core.documents.document import Document

SHAPES = ("lines", "json", "csv")
_CHARACTERS = string.ascii_letters + string.digits
_VALUE = 10
_SOLUTIONS = (-100, 99)
_COEFFICIENTS = [n for n in range(-10, 10) if n]
_WINDOW = 60  # at least so many numbers on each side of the solution are keys to choose from


@dataclass(frozen=True, slots=True)
class Dictionary:
    """A dictionary with one entry that is asked for.

    Attributes:
        number: Which one it is.
        shape: ``lines``, ``json`` or ``csv``.
        pairs: Keys and values, in order.
        key: The key that is asked for.
        absent: A key nearby that isn't there.
        problem: An equation whose solution is the key.
        steps: How it is solved, a sentence each; the last one states the key.
        absent_problem: An equation whose solution is the key that isn't there.
    """

    number: int
    shape: str
    pairs: tuple[tuple[int, str], ...]
    key: int
    absent: int
    problem: str
    steps: tuple[str, ...]
    absent_problem: str

    @property
    def value(self) -> str:
        """The value that is right."""
        return dict(self.pairs)[self.key]

    @property
    def values(self) -> tuple[str, ...]:
        """All values."""
        return tuple(value for _, value in self.pairs)

    @property
    def before(self) -> str:
        """What stands right before the value in the text."""
        head = {"lines": "Key {}:\n", "json": '  "{}": "', "csv": "{},"}[self.shape]
        return head.format(self.key)

    @property
    def document(self) -> Document:
        """The dictionary as text."""
        return Document(_dictionary_text(self.pairs, self.shape), "dictionary", "Dictionary")

    @property
    def depth(self) -> float:
        """Where the entry stands, in per cent."""
        keys = [key for key, _ in self.pairs]
        return 100 * keys.index(self.key) / max(1, len(keys) - 1)


def _dictionary_text(pairs: tuple[tuple[int, str], ...], shape: str) -> str:
    head, form, between, tail = {
        "lines": ("", "Key {}:\n{}", "\n\n", "\n"),
        "json": ("{\n", '  "{}": "{}"', ",\n", "\n}\n"),
        "csv": ("key,value\n", "{},{}", "\n", "\n"),
    }[shape]
    return head + between.join(form.format(key, value) for key, value in pairs) + tail


def dictionary(number: int, size: int, seed: int) -> Dictionary:
    """Returns a dictionary of ``size`` entries, the same for the same seed."""
    rng = random.Random(f"thought:{seed}:{number}")
    key = rng.randint(*_SOLUTIONS)
    problem, steps = equation(rng, key)
    shape = rng.choice(SHAPES)
    width = max(size, _WINDOW)
    near = [n for n in range(key - width, key + width + 1) if n != key]
    absent = rng.choice([n for n in near if _SOLUTIONS[0] <= n <= _SOLUTIONS[1]])
    others = rng.sample([n for n in near if n != absent], size - 1)
    keys = [key, *others]
    rng.shuffle(keys)
    values = _values(rng, size)
    return Dictionary(
        number=number,
        shape=shape,
        pairs=tuple(zip(keys, values, strict=True)),
        key=key,
        absent=absent,
        problem=problem,
        steps=steps,
        absent_problem=equation(rng, absent)[0],
    )


def _values(rng: random.Random, count: int) -> list[str]:
    """Distinct codes, each with a letter and a digit in it."""
    values: dict[str, None] = {}
    while len(values) < count:
        value = "".join(rng.choices(_CHARACTERS, k=_VALUE))
        if not value.isalpha() and not value.isdigit():
            values[value] = None
    return list(values)


def equation(rng: random.Random, solution: int) -> tuple[str, tuple[str, ...]]:
    """Returns a linear equation of three to five terms, and the steps that solve it."""
    factors = rng.choices(_COEFFICIENTS, k=rng.randint(1, 3))
    if sum(factors) == 0:
        factors.append(rng.choice(_COEFFICIENTS))
    numbers = [rng.randint(-20, 20) for _ in range(2)]
    total, rest = sum(factors), sum(numbers)
    right = total * solution + rest
    terms = [f"{factor}x" for factor in factors] + [str(number) for number in numbers]
    problem = " + ".join(_bracket(term) for term in terms) + f" = {right}"
    steps = (
        f"I have to solve {problem}.",
        f"The terms with x add up to {total}x, the others to {rest}.",
        f"So {total}x = {right} - {_bracket(str(rest))} = {right - rest}.",
        f"Dividing by {total} gives x = {solution}.",
        f"Check: {total} times {_bracket(str(solution))} is {total * solution}, and with {rest} "
        f"that makes {right}, as it should.",
        f"So the key is {solution}.",
    )
    return problem, steps


def _bracket(term: str) -> str:
    return f"({term})" if term.startswith("-") else term


def templated_trace(entry: Dictionary) -> str:
    """Returns the working as someone writes it who thinks aloud."""
    return " ".join(entry.steps)


Trace = Callable[[Dictionary], str]
