# ruff: noqa: E501, SIM905 (tables of words)
"""Names and two-hop templates that no training task uses, so that evaluation can."""

from __future__ import annotations

import random

FIRST = "Quentin Wilhelmina Ottoline Zebedee Thaddeus Ulrika Xanthe Perpetua Ignatius Jocasta Lysander Ondine Cosmo Drusilla Evander Hermione Kasimir Leocadia Barnaby Ysolde".split()
LAST_A = "Thw Quib Yev Zub Pff Gwy Ock Ulf Ebb Knu Jex Vrin Smy Drum".split()
LAST_B = "ackett odden ippel umfrey erloo istock argle untley ossett imble".split()
PLACES = "Ashquith Bexhollow Cragmuir Dunwhistle Eskerby Fawthorpe Gloamhurst Hexrigg Ivelmoor Jarrowby Kestwick Lummock Mirkwell Netherquay Oxbarrow Pellgrave".split()
THINGS = "saffron copper velvet lantern juniper marble thistle cobalt heather meteor".split()

HOPS = (
    ("vineyard", "person", "The cellar book of {A} was kept by {P}.", "{P} retired to {V}.", "Where did the keeper of the cellar book of {A} retire to?", "place"),
    ("manuscript", "person", "{P} restored {A}.", "A workshop in {V} belongs to {P}.", "In which town is the workshop of the person who restored {A}?", "place"),
    ("drone", "person", "Only {P} may fly {A}.", "{P} holds licence {V}.", "Which licence is held by the one who may fly {A}?", "licence"),
    ("glacier", "lake", "The lake called {P} is fed by {A}.", "The lake called {P} is {V} deep.", "How deep is the lake that {A} feeds?", "depth"),
    ("observing run", "lake", "The {P} dome was used for {A}.", "The {P} dome was rebuilt in {V}.", "In what year was the dome rebuilt that was used for {A}?", "year"),
    ("glacier", "person", "{P} drew the first map of {A}.", "The bank of {P} was {V}.", "What was the bank of the one who drew the first map of {A}?", "bank"),
)  # fmt: skip
"""As ``chains.Hop``."""


def surname(rng: random.Random) -> str:
    """Returns an invented surname."""
    return rng.choice(LAST_A) + rng.choice(LAST_B)


def person(rng: random.Random) -> str:
    """Returns an invented name."""
    return f"{rng.choice(FIRST)} {surname(rng)}"


def entity(topic: str, rng: random.Random) -> str:
    """Returns an invented thing of one of the topics of ``held_out.txt``."""
    place, word = rng.choice(PLACES), rng.choice(THINGS)
    by_topic = {
        "vineyard": f"the {place} vineyard",
        "observing run": f"the {word} run of {place}",
        "glacier": f"the {surname(rng)} glacier",
        "manuscript": f"the {place} {word} book",
        "drone": f"drone {word.title()} {rng.randint(2, 99)}",
    }
    return by_topic[topic]


def value(kind: str, rng: random.Random) -> str:
    """Returns a value of one of the kinds that ``HOPS`` names."""
    if kind == "licence":
        return f"{rng.choice('QXZ')}{rng.choice('QXZ')}/{rng.randint(100, 999)}"
    if kind == "depth":
        return f"{rng.randint(11, 240)} fathoms"
    if kind == "year":
        return str(rng.randint(1500, 2020))
    if kind == "bank":
        return f"{surname(rng)} & {surname(rng)}"
    if kind == "lake":
        return f"{rng.choice(THINGS).title()} {surname(rng)}"
    if kind == "person":
        return person(rng)
    return rng.choice(PLACES)
