"""Keys and values in lines, JSON or CSV: looked up, several at once, or after a calculation.

The calculation is the paper's ``math_retrieval``: the key has to be worked out before it can be
looked up, which is where models that don't recall lose the value (lost-in-thought).
"""

from __future__ import annotations

import random
import string
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from recallm_core.train.tasks.training_example import Part, Quote, Split, TrainingExample

SHAPES = ("lines", "json", "csv")
_PAIR_CHARACTERS = 34  # of one line, about

_ASK_ONE: dict[Split, tuple[str, ...]] = {
    "train": (
        "What is the value of {k}?",
        "Look up {k}.",
        "Which value belongs to {k}?",
        "Return the value stored under {k}.",
        "{k}?",
    ),
    "held-out": ("What does the entry {k} hold?", "Read out the entry for {k}."),
}
_ASK_SEVERAL: dict[Split, tuple[str, ...]] = {
    "train": (
        "What are the values of {k}?",
        "Look up {k}, in this order.",
        "Give the values that belong to {k}.",
    ),
    "held-out": ("What do the entries {k} hold?", "Read out, one after the other, {k}."),
}
_ASK_SOLVED: dict[Split, tuple[str, ...]] = {
    "train": (
        "Solve {p} for x, then give the value stored under the key x.",
        "What is the value whose key is the solution x of {p}?",
        "Find x with {p}. Which value belongs to x?",
    ),
    "held-out": ("The key is the x for which {p}. What does its entry hold?",),
}
_ASK_WORKED_OUT: dict[Split, tuple[str, ...]] = {
    "train": (
        "Work out x = {p}, then give the value stored under the key x.",
        "What is the value whose key equals {p}?",
    ),
    "held-out": ("The key is {p}. What does its entry hold?",),
}


@dataclass(frozen=True, slots=True)
class Table:
    """Keys and values as text.

    Attributes:
        text: As shown.
        lines: For each key, where its line stands.
        values: For each key, where its value stands.
    """

    text: str
    lines: dict[str, Quote]
    values: dict[str, Quote]


def table(pairs: dict[str, str], shape: str) -> Table:
    """Lays pairs out as ``lines``, ``json`` or ``csv``."""
    head, form, between, tail = {
        "lines": ("", "{}: {}", "\n", "\n"),
        "json": ("{\n", '  "{}": "{}"', ",\n", "\n}\n"),
        "csv": ("key,value\n", "{},{}", "\n", "\n"),
    }[shape]
    text, lines, values = head, {}, {}
    for number, (key, value) in enumerate(pairs.items()):
        text += between if number else ""
        line = form.format(key, value)
        blank = len(line) - len(line.lstrip())
        lines[key] = Quote(0, len(text) + blank, len(text) + len(line))
        at = len(text) + line.rindex(value)
        values[key] = Quote(0, at, at + len(value))
        text += line
    return Table(text + tail, lines, values)


def key_value(
    rng: random.Random,
    *,
    size: int = 2000,
    split: Split = "train",
    pairs: int | None = None,
    shape: str | None = None,
) -> TrainingExample:
    """Returns one key to look up among ``pairs`` (default: as many as ``size`` holds)."""
    values = _pairs(rng, pairs or max(2, size // _PAIR_CHARACTERS), _code_maker(rng))
    shown = table(values, shape or rng.choice(SHAPES))
    key = rng.choice(sorted(values))
    question = rng.choice(_ASK_ONE[split]).replace("{k}", key)
    thinking = (
        f"I need the line of {key}:",
        shown.lines[key],
        "\n",
        f"Its value is {values[key]}.",
    )
    passages = (("", shown.text),)
    return TrainingExample(
        passages, question, thinking, values[key], "key_value", shown.values[key]
    )


def multi_needle(
    rng: random.Random, *, size: int = 2000, split: Split = "train", needles: int | None = None
) -> TrainingExample:
    """Returns several keys (two to four) to look up among others; the answer lists the values."""
    values = _pairs(rng, max(6, size // _PAIR_CHARACTERS), _code_maker(rng))
    shown = table(values, rng.choice(SHAPES))
    keys = rng.sample(sorted(values), needles or rng.randint(2, 4))
    named = ", ".join(keys[:-1]) + f" and {keys[-1]}"
    question = rng.choice(_ASK_SEVERAL[split]).replace("{k}", named)
    thinking: list[Part] = [f"There are {len(keys)} keys to look up, one by one.\n"]
    for key in keys:
        thinking += [f"{key}:", shown.lines[key], "\n"]
    answer = ", ".join(values[key] for key in keys)
    return TrainingExample((("", shown.text),), question, tuple(thinking), answer, "multi_needle")


def compute_then_retrieve(
    rng: random.Random, *, size: int = 2000, split: Split = "train", pairs: int | None = None
) -> TrainingExample:
    """Returns a small problem whose solution is the key to look up, among keys close to it.

    Half are linear equations with one whole solution, half are expressions; coefficients lie in
    -10 to 9, solutions in -100 to 99, as in the paper's task.
    """
    solution = rng.randint(-100, 99)
    count = pairs or max(3, size // _PAIR_CHARACTERS)
    window = max(count, 20)
    near = [n for n in range(solution - window, solution + window + 1) if n != solution]
    keys = [solution, *rng.sample(near, count - 1)]
    rng.shuffle(keys)
    values = list(_pairs(rng, count, _word))
    shown = table(dict(zip(map(str, keys), values, strict=True)), rng.choice(SHAPES))
    linear = rng.random() < 0.5
    problem, steps = equation(rng, solution) if linear else _expression(rng, solution)
    wordings = (_ASK_SOLVED if linear else _ASK_WORKED_OUT)[split]
    question = rng.choice(wordings).replace("{p}", problem)
    key = str(solution)
    answer = shown.text[shown.values[key].start : shown.values[key].end]
    thinking: tuple[Part, ...] = (
        *(f"{step}\n" for step in steps),
        f"So the key is {key}. Its line:",
        shown.lines[key],
        "\n",
        f"The value is {answer}.",
    )
    passages = (("", shown.text),)
    return TrainingExample(
        passages, question, thinking, answer, "compute_then_retrieve", shown.values[key]
    )


def equation(rng: random.Random, x: int) -> tuple[str, list[str]]:
    """Returns ``a*x + b = c*x + d`` with the solution x, and the steps that solve it."""
    a, c = rng.sample(range(-10, 10), 2)
    b = rng.randint(-100, 99)
    d = a * x + b - c * x
    problem = f"{a}*x {_with_sign(b)} = {c}*x {_with_sign(d)}"
    steps = [
        f"Bring x to one side: ({a} - {c if c >= 0 else f'({c})'})*x = {d} - {_bracket(b)}",
        f"That is {a - c}*x = {d - b}.",
        f"Divide by {a - c}: x = {x}.",
    ]
    return problem, steps


def _expression(rng: random.Random, x: int) -> tuple[str, list[str]]:
    """Returns sums and one product that give x, and the steps that work it out."""
    a, b = rng.choice([n for n in range(-10, 10) if n]), rng.randint(-10, 9)
    c = rng.randint(-50, 49)
    d = x - a * b - c
    problem = f"{a} * {_bracket(b)} {_with_sign(c)} {_with_sign(d)}"
    steps = [
        f"{a} * {_bracket(b)} = {a * b}.",
        f"{a * b} {_with_sign(c)} = {a * b + c}.",
        f"{a * b + c} {_with_sign(d)} = {x}.",
    ]
    return problem, steps


def _with_sign(number: int) -> str:
    return f"+ {number}" if number >= 0 else f"- {-number}"


def _bracket(number: int) -> str:
    return str(number) if number >= 0 else f"({number})"


def _pairs(rng: random.Random, count: int, code: Callable[[random.Random], str]) -> dict[str, str]:
    """Returns different keys with different values; no value is part of another."""
    codes: dict[str, None] = {}
    while len(codes) < 2 * count:
        codes[code(rng)] = None
    distinct = list(codes)
    return dict(zip(distinct[:count], distinct[count:], strict=True))


def _code_maker(rng: random.Random) -> Callable[[random.Random], str]:
    """Returns one way of making codes; all codes of a table have the same length."""
    return rng.choice((_uuid, _hex, _word, _number))


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128)))


def _hex(rng: random.Random) -> str:
    return "".join(rng.choices("0123456789abcdef", k=8))


def _word(rng: random.Random) -> str:
    return "".join(rng.choices(string.ascii_lowercase + string.digits, k=8))


def _number(rng: random.Random) -> str:
    return str(rng.randint(10_000_000, 99_999_999))
