"""Citing: list all that a question asks for, each with the number of the passage that says so."""

from __future__ import annotations

import random

from recallm_core.train.tasks.families.problem import Family, Gold, Key, Passage, Problem, Scoring
from recallm_core.train.tasks.families.sources import Sources
from recallm_core.train.tasks.invented import MONTHS, person
from recallm_core.train.tasks.templates import make_page
from recallm_core.train.tasks.training_example import Quote

_SCORING = Scoring("top", 0.7, top=5, free_spans=4, least_characters=7)
_PLACES = [
    "Arnside",
    "Bellwick",
    "Corrie",
    "Dunmere",
    "Elstow",
    "Farleigh",
    "Grimsay",
    "Holmby",
    "Inverey",
    "Jurby",
]
_TRADES = [
    "bookbinder",
    "cooper",
    "glazier",
    "farrier",
    "luthier",
    "potter",
    "weaver",
    "chandler",
    "saddler",
    "tiler",
]
_RELATIONS = (
    ("{p} moved to {v} in {m}.", "Who moved to {v}?", _PLACES),
    ("Trained as a {v}, {p} opened a workshop in {m}.", "Who was trained as a {v}?", _TRADES),
    ("In {m} the town of {v} elected {p} to its council.", "Whom did {v} elect?", _PLACES),
    ("{p} sold the business to a {v} in {m}.", "Who sold a business to a {v}?", _TRADES),
)
_PASSAGE = 260  # characters, about
_MOST = 60


def _list_all(rng: random.Random, _: Sources, size: int) -> Problem:
    template, wording, values = rng.choice(_RELATIONS)
    answer, *others = rng.sample(values, len(values))
    count = max(5, min(_MOST, size // _PASSAGE))
    right = rng.randint(1, max(1, min(8, count // 5)))
    people = _people(rng, count)
    order = rng.sample(range(count), count)
    passages: list[Passage] = []
    golds, named, numbers = [], [], []
    for place, who in enumerate(order):
        value = answer if who < right else rng.choice(others)
        sentence = template.replace("{p}", people[who]).replace("{v}", value)
        sentence = sentence.replace("{m}", f"{rng.choice(MONTHS)} {rng.randint(1890, 1990)}")
        label = f"[{place + 1}]"
        text = (
            f"{label} {sentence} {_more(rng, (size // count) - len(sentence), people[who], answer)}"
        )
        passages.append(("", text.strip()))
        if who < right:
            whole = Quote(place, 0, len(passages[-1][1]))
            golds.append(Gold(whole, Quote(place, 0, len(label))))
            named.append((people[who], people[who].split()[-1]))
            numbers.append(str(place + 1))
    question = (
        f"{wording.replace('{v}', answer)}\n\nName all of them, each with the number of the "
        "passage that says so, as in: Ann Lee [3], Bo Ray [7]."
    )
    key = Key("cited", tuple(named), references=tuple(numbers))
    return Problem(
        "citation_qa", "list_all", tuple(passages), question, key, tuple(golds), _SCORING
    )


def _people(rng: random.Random, count: int) -> list[str]:
    """Different people, with surnames of their own."""
    by_surname: dict[str, str] = {}
    while len(by_surname) < count:
        name = person(rng)
        by_surname.setdefault(name.split()[-1], name)
    return list(by_surname.values())


def _more(rng: random.Random, size: int, name: str, answer: str) -> str:
    """Lines of a made-up page that say nothing of it."""
    if size < 40:
        return ""
    lines = make_page(rng, 3).text.splitlines()
    text = " ".join(line.strip() for line in lines if name not in line and answer not in line)
    return text[: min(size, 500)].rpartition(".")[0] + "." if "." in text[: min(size, 500)] else ""


FAMILY = Family(
    name="citation_qa",
    what="all that a question asks for, each with the number of its passage",
    kinds=(("list_all", 1.0, _list_all),),
    stand_in="generated registers; the paper takes QAMPARI",
)
