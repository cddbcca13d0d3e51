"""Variable tracing and the two tasks of counting words."""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from itertools import pairwise

from recallm_core.documents.document import Document
from recallm_core.evaluation.frame.sample import Sample
from recallm_core.evaluation.frame.texts import NOISE, word_list

HOPS = 4
COMMON = 10
_ZETA_2 = 1.6449340668482264  # of the Riemann zeta function: the counts' scale for alpha = 2
_SHOT_NOISE = 22  # lines of noise in the solved example: some 500 tokens
_SHORT, _TINY = 4096, 2048
_FREQUENT = (
    "Do not provide any explanation. Please ignore the dots '....'. What are the three most "
    "frequently appeared words in the above coded text?"
)
_RANKS = (2, 3, 4)
_LENGTH = 6


def variables(rng: random.Random, size: int) -> Sample:
    """Returns a chain of assignments in ``size`` lines of noise; all its variables are wanted."""
    text, value, names, depth = _chain(rng, size, 5)
    shot_text, shot_value, shot_names, _ = _chain(rng, _SHOT_NOISE, 3)
    shot = f"{shot_text}\n\n{_question(shot_value)}", _answer(shot_value, shot_names)
    return Sample(
        id="",
        documents=(Document(text, "text", "Text"),),
        question=_question(value),
        answers=tuple(names),
        budget=30,
        shots=(shot,),
        facts={"depth": depth},
    )


def _question(value: str) -> str:
    return f"Find all variables that are assigned the value {value} in the text above."


def _answer(value: str, names: Sequence[str]) -> str:
    return (
        "According to the chain(s) of variable assignment in the text above, "
        f"{len(names)} variables are assigned the value {value}, they are: {' '.join(names)}"
    )


def _chain(rng: random.Random, size: int, letters: int) -> tuple[str, str, list[str], float]:
    """Text, value and names of a chain, and the depth of its first line in per cent."""
    names: dict[str, None] = {}
    while len(names) <= HOPS:
        names["".join(rng.choices(string.ascii_uppercase, k=letters))] = None
    chain = list(names)
    value = str(rng.randint(10_000, 99_999))
    steps = [f"VAR {chain[0]} = {value}"]
    steps += [f"VAR {b} = VAR {a} " for a, b in pairwise(chain)]
    places = sorted(rng.randint(0, size) for _ in steps)
    lines = [NOISE] * size
    for place, step in sorted(zip(places, steps, strict=True), reverse=True, key=lambda p: p[0]):
        lines.insert(place, step)
    ordered = _in_order(lines, steps)
    return "\n".join(ordered), value, chain, 100 * places[0] / max(1, size)


def _in_order(lines: list[str], steps: Sequence[str]) -> list[str]:
    """The lines with the steps in the chain's order, wherever steps stand."""
    following = iter(steps)
    known = set(steps)
    return [next(following) if line in known else line for line in lines]


def common_words(rng: random.Random, size: int, length: int) -> Sample:
    """Returns a numbered list of words, ten of which come more often; ``size`` distinct ones.

    Below 4,096 tokens they come 6 and 1 times, above 30 and 3.
    """
    often, rare = (30, 3) if length >= _SHORT else (6, 1)
    text, golds = _words_to_count(rng, max(size, COMMON + 1), often, rare)
    distinct = 40 if length >= _TINY else 15
    shot_text, shot_golds = _words_to_count(
        rng, distinct, *((10, 3) if length >= _SHORT else (3, 1))
    )
    question = "What are the 10 most common words in the above list?"
    return Sample(
        id="",
        documents=(Document(text, "words", "List"),),
        question=question,
        answers=tuple(golds),
        budget=120,
        shots=((f"{shot_text}\n\n{question}", _number_words(shot_golds, "\n")),),
        facts={"distinct": max(size, COMMON + 1)},
    )


def most_words() -> int:
    """How many different words there are for a list."""
    return len(word_list())


def _words_to_count(
    rng: random.Random, distinct: int, often: int, rare: int
) -> tuple[str, list[str]]:
    words = rng.sample(word_list(), min(distinct, most_words()))
    golds = words[:COMMON]
    listed = golds * often + words[COMMON:] * rare
    rng.shuffle(listed)
    return _number_words(listed, " "), golds


def _number_words(words: Sequence[str], between: str) -> str:
    return between.join(f"{n}. {word}" for n, word in enumerate(words, start=1))


def frequent_words(rng: random.Random, size: int, length: int) -> Sample:
    """Returns coded text of ``size`` words; the three commonest after the dots are wanted."""
    vocabulary = _codes(rng, max(10, length // 50))
    counts = [round(size * rank**-2 / _ZETA_2) for rank in range(1, len(vocabulary) + 1)]
    coded = [word for word, count in zip(vocabulary, counts, strict=True) for _ in range(count)]
    rng.shuffle(coded)
    return Sample(
        id="",
        documents=(Document(" ".join(coded), "text", "Coded text"),),
        question=_FREQUENT,
        answers=tuple(vocabulary[rank - 1] for rank in _RANKS),
        budget=50,
        facts={"words": len(coded)},
    )


def _codes(rng: random.Random, count: int) -> list[str]:
    """Made-up words of six letters; the first is the dots."""
    names: dict[str, None] = {"...": None}
    while len(names) < count:
        names["".join(rng.choices(string.ascii_lowercase, k=_LENGTH))] = None
    return list(names)
