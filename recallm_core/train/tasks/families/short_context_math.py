"""Short sums in words: nothing has to be recalled, and nothing is gained by it."""

from __future__ import annotations

import random
from collections.abc import Callable

from recallm_core.train.tasks.families.problem import Family, Key, Problem, Scoring
from recallm_core.train.tasks.families.sources import Sources
from recallm_core.train.tasks.invented import person

_SCORING = Scoring("always")
_THINGS = ("crates", "tickets", "lamps", "books", "oars", "tiles", "bulbs", "coats")
Sum = tuple[str, int]


def _stock(rng: random.Random) -> Sum:
    who, thing = person(rng), rng.choice(_THINGS)
    a, b, c = rng.randint(20, 90), rng.randint(3, 12), rng.randint(2, 15)
    text = (
        f"{who} has {a} {thing}. {b} parcels arrive with {c} {thing} each, and a third of those "
        f"that arrived are given away at once, rounded down. How many {thing} are there then?"
    )
    return text, a + b * c - b * c // 3


def _price(rng: random.Random) -> Sum:
    thing, count, price = rng.choice(_THINGS), rng.randint(3, 15), rng.randint(4, 40)
    percent = rng.choice((10, 20, 25, 50))
    count *= 100 // percent
    text = (
        f"{count} {thing} cost {price} each. From the {count // 2 + 1}th on they are {percent} "
        f"percent cheaper. What do all {count} cost together, in hundredths?"
    )
    full, cheap = (count + 1) // 2, count // 2
    if count % 2:
        full, cheap = count // 2, count - count // 2
    return text, 100 * price * full + (100 - percent) * price * cheap


def _linear(rng: random.Random) -> Sum:
    x, y = rng.randint(-12, 30), rng.randint(-12, 30)
    a, b, c, d = (rng.choice([n for n in range(-6, 7) if n]) for _ in range(4))
    if a * d == b * c:
        d += 13
    text = (
        f"Two numbers x and y satisfy {a}x + ({b})y = {a * x + b * y} and "
        f"{c}x + ({d})y = {c * x + d * y}. What is x - y?"
    )
    return text, x - y


def _digits(rng: random.Random) -> Sum:
    base, times = rng.randint(11, 99), rng.randint(11, 99)
    modulus = rng.choice((7, 9, 11, 13, 17))
    text = f"What is the remainder of {base} times {times}, plus {base}, on division by {modulus}?"
    return text, (base * times + base) % modulus


_SUMS: tuple[Callable[[random.Random], Sum], ...] = (_stock, _price, _linear, _digits)


def _open(rng: random.Random, _: Sources, size: int) -> Problem:
    text, result = rng.choice(_SUMS)(rng)
    question = "Solve the problem on the sheet. Give the result as \\boxed{...}."
    key = Key("boxed", ((str(result),),))
    return Problem(
        "short_context_math", "sums", (("Sheet", text),), question, key, scoring=_SCORING
    )


def _options(rng: random.Random, _: Sources, size: int) -> Problem:
    text, result = rng.choice(_SUMS)(rng)
    spread = max(4, abs(result) // 3)
    others = [n for n in range(result - spread, result + spread + 1) if n != result]
    options = [result, *rng.sample(others, 3)]
    rng.shuffle(options)
    listed = "\n".join(f"{letter}. {n}" for letter, n in zip("ABCD", options, strict=True))
    question = "Solve the problem on the sheet. Answer with the letter of the right option."
    key = Key("choice", (("ABCD"[options.index(result)],),))
    passages = (("Sheet", f"{text}\n{listed}"),)
    return Problem("short_context_math", "options", passages, question, key, scoring=_SCORING)


FAMILY = Family(
    name="short_context_math",
    what="sums in words, open or with four options; nothing to quote",
    kinds=(("sums", 0.5, _open), ("options", 0.5, _options)),
    stand_in="generated; the paper takes DAPO and MATH",
)
