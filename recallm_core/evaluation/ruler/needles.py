"""The eight tasks that hide needles: one or several, in noise, in text, or among other needles."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recallm_core.documents.document import Document
from recallm_core.evaluation.frame.sample import Sample
from recallm_core.evaluation.frame.texts import NOISE, Haystack, compound

NEEDLE = "One of the special magic {kind} for {key} is: {value}."
DEPTHS = tuple(round(step * 100 / 39) for step in range(40))
_OUT = 128
_SENTENCES = [f"{piece}." for piece in NOISE.rstrip(".").split(". ")] * 2
_PIECES = {"words": 4, "uuids": 10}  # sentences of noise that are about as long as a needle


@dataclass(frozen=True, slots=True)
class Needles:
    """One of the tasks.

    Attributes:
        hay: ``noise``, ``text``, or ``needles`` (every line is one, with another key).
        keys: What the keys are: ``words`` or ``uuids``.
        values: What the values are: ``numbers`` or ``uuids``.
        hidden: Needles in the haystack that aren't part of it.
        each: Values of each key.
        asked: Keys in the question.
    """

    hay: str = "text"
    keys: str = "words"
    values: str = "numbers"
    hidden: int = 1
    each: int = 1
    asked: int = 1

    def make(self, rng: random.Random, size: int, text: Haystack) -> Sample:
        """Returns a sample; its size is lines of noise, words of text, or parts of a needle."""
        pairs = [
            (key, [_make(self.values, rng) for _ in range(self.each)])
            for key in _distinct(self.keys, self.hidden, rng)
        ]
        queried = rng.sample(pairs, self.asked)
        needles = [self._needle(key, value) for key, values in pairs for value in values]
        rng.shuffle(needles)
        units, others = self._haystack(rng, size, text)
        placed, depths = _place_needles(units, needles, rng, even=self.hay == "text")
        names = {key for key, _ in queried}
        first = next(n for n, needle in enumerate(needles) if any(k in needle for k in names))
        golds = tuple(value for _, values in queried for value in values)
        between = " " if self.hay == "text" else "\n"
        hidden = [value for _, values in pairs for value in values]
        return Sample(
            id="",
            documents=(Document(between.join(placed), "text", "Text"),),
            question=self._question([key for key, _ in queried]),
            answers=golds,
            budget=_OUT,
            facts={"depth": depths[first], "others": [*(v for v in hidden if v not in golds)]}
            | ({"distractors": len(others)} if others else {}),
        )

    def _needle(self, key: str, value: str) -> str:
        return NEEDLE.format(kind=self.values, key=key, value=value)

    def _haystack(
        self, rng: random.Random, size: int, text: Haystack
    ) -> tuple[list[str], list[str]]:
        """The units of the haystack, and the values in it."""
        if self.hay == "noise":
            return [NOISE] * size, []
        if self.hay == "text":
            return text.take(size), []
        lines, rest = divmod(size, _PIECES[self.keys])
        keys = _distinct(self.keys, lines, rng)
        values = [_make(self.values, rng) for _ in keys]
        units = [self._needle(k, v) for k, v in zip(keys, values, strict=True)]
        return [*units, *[" ".join(_SENTENCES[:rest])] * bool(rest)], values

    def _question(self, keys: Sequence[str]) -> str:
        """The question in RULER's words; one key with one value is asked for in the singular."""
        listed = keys[0] if len(keys) == 1 else f"{', '.join(keys[:-1])}, and {keys[-1]}"
        if len(keys) * self.each == 1:
            kind = self.values.removesuffix("s")
            return f"What is the special magic {kind} for {listed} mentioned in the provided text?"
        return (
            f"What are all the special magic {self.values} for {listed} mentioned in the provided "
            "text?"
        )


def _make(kind: str, rng: random.Random) -> str:
    makers: dict[str, Callable[[], str]] = {
        "words": lambda: compound(rng),
        "numbers": lambda: str(rng.randint(1_000_000, 9_999_999)),
        "uuids": lambda: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
    }
    return makers[kind]()


def _distinct(kind: str, count: int, rng: random.Random) -> list[str]:
    names: dict[str, None] = {}
    while len(names) < count:
        names[_make(kind, rng)] = None
    return list(names)


def _place_needles(
    units: list[str], needles: Sequence[str], rng: random.Random, *, even: bool
) -> tuple[list[str], list[float]]:
    """Units with the needles among them, and each needle's depth in per cent.

    In text a depth is one of 40 even steps; elsewhere any place is as likely as another.
    """
    depths: list[float] = (
        [float(depth) for depth in rng.sample(DEPTHS, len(needles))]
        if even
        else [100 * rng.randint(0, len(units)) / max(1, len(units)) for _ in needles]
    )
    out = list(units)
    for depth, needle in sorted(zip(depths, needles, strict=True), reverse=True):
        out.insert(round(len(units) * depth / 100), needle)
    return out, depths
