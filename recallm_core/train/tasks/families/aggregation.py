"""Aggregation: who got the most votes. All lines count, so quoting some of them is of no use."""

from __future__ import annotations

import random

from recallm_core.train.tasks.families.problem import Family, Key, Problem, Scoring
from recallm_core.train.tasks.families.sources import Sources
from recallm_core.train.tasks.invented import person

_SCORING = Scoring("always")
_OPTIONS = [
    "heron",
    "otter",
    "lynx",
    "badger",
    "falcon",
    "marten",
    "beaver",
    "plover",
    "stoat",
    "curlew",
    "osprey",
    "ibex",
    "viper",
    "crane",
    "gannet",
    "weasel",
    "bittern",
    "dormouse",
    "kestrel",
    "raven",
]
_LINE = 26  # characters, about
_LEVELS = ("easy", "medium", "hard")
_SHARES = {"easy": (2, 2, 0.60, 0.70), "medium": (3, 5, 0.40, 0.55), "hard": (6, 10, 0.30, 0.40)}
_TOP = {"easy": (3, 1.5), "medium": (5, 1.0), "hard": (10, 0.5)}


def _level(rng: random.Random) -> str:
    return rng.choices(_LEVELS, (0.45, 0.45, 0.10))[0]


def _majority(rng: random.Random, _: Sources, size: int) -> Problem:
    fewest, many, low, high = _SHARES[_level(rng)]
    options = rng.sample(_OPTIONS, rng.randint(fewest, many))
    voters = max(len(options) * 4, size // _LINE)
    first = round(voters * rng.uniform(low, high))
    rest = [options[1 + n % (len(options) - 1)] for n in range(voters - first)]
    key = Key("label", ((options[0],),))
    question = "Which animal got the most votes? Answer with its name alone."
    return _problem(rng, [options[0]] * first + rest, question, key, "majority_vote")


def _top(rng: random.Random, _: Sources, size: int) -> Problem:
    count, exponent = _TOP[_level(rng)]
    options = rng.sample(_OPTIONS, min(len(_OPTIONS), count + rng.randint(2, 6)))
    voters = max(len(options) * 8, size // _LINE)
    weights = [1 / (n + 1) ** exponent for n in range(len(options))]
    votes = [max(1, round(voters * w / sum(weights))) for w in weights]
    for n in range(len(votes) - 2, -1, -1):  # no ties: each place is one animal's
        votes[n] = max(votes[n], votes[n + 1] + 1)
    ballots = [option for option, n in zip(options, votes, strict=True) for _ in range(n)]
    key = Key("values", tuple((option,) for option in options[:count]))
    question = (
        f"Which {count} animals got the most votes? Answer with their names, separated by commas."
    )
    return _problem(rng, ballots, question, key, "top_n_vote")


def _problem(rng: random.Random, ballots: list[str], question: str, key: Key, kind: str) -> Problem:
    rng.shuffle(ballots)
    text = "\n".join(f"{person(rng)}: {ballot}" for ballot in ballots)
    passages = (("Ballots", text),)
    return Problem("aggregation", kind, passages, question, key, scoring=_SCORING)


FAMILY = Family(
    name="aggregation",
    what="votes to count: the most frequent, or the first few",
    kinds=(("majority_vote", 0.5, _majority), ("top_n_vote", 0.5, _top)),
)
