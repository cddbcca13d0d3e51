# ruff: noqa: E501 (tables of words)
"""More kinds of values and of things for the made-up pages."""

from __future__ import annotations

import random
from collections.abc import Callable

Make = Callable[[random.Random], str]

_FOODS = "cinnamon;ginger;black pepper;lemon zest;saffron;vanilla;small fish;grass;insects;berries;seeds and nuts;honey;worms;bamboo;leaves"
_PRODUCTS = "bicycles;paper;shoes;garden tools;cheese;watches;glass;furniture;toys;paint;engines;medical devices;software for schools;ropes;ceramic tiles"
_ANIMALS = "trout;salmon;eels;pike;otters;crabs;herons"
_SYMPTOMS = "headache;fever;a sore throat;tiredness;a dry mouth;dizziness;coughing;high blood pressure;back pain;sleeplessness"
_KEPT = "in the fridge;below 25 degrees;in a dark place;away from children;at room temperature;in its box"
_PURPOSES = "the size of the cache;the number of workers;how often data is saved;tenants;small shops;workers;the colour of the menu;old forests;drinking water;the order of the results;the level of detail in the log"
_ACTS = "smoking in public places;hunting at night;the sale of fireworks;child labour;parking on pavements;burning coal;night flights;loud music after ten"
_PEOPLE = "the Northern League;the king's army;the settlers;the coastal towns;the French;the Swedes;the Duke's troops;the Republicans"
_PRIZES = "the Golden Reel;first prize;the audience award;two medals;the Silver Leaf;a state prize"
_COLOURS = "red;green;blue;white;yellow;orange;purple;black;grey;brown"
_STEMS = "cache;worker;index;theme;proxy;upload;session;backup;report;queue;search;mail"
_DISHES = "apple;carrot;plum;nut;cheese;leek;lemon;rye"


def _one(row: str) -> Make:
    items = row.split(";")
    return lambda rng: rng.choice(items)


def _file(rng: random.Random) -> str:
    stem = _one(_STEMS)(rng)
    kind = rng.choice(("toml", "yaml", "json", "ini", "conf"))
    return rng.choice((f"{stem}.{kind}", f"/etc/{stem}/{stem}.conf", f"~/.{stem}rc"))


def _setting(rng: random.Random) -> str:
    stem, end = _one(_STEMS)(rng), rng.choice(("size", "limit", "mode", "level", "path"))
    return rng.choice((f"{stem}_{end}", f"{stem.upper()}_{end.upper()}", f"--{stem}-{end}"))


def more_values(city: Make, name: Make, colour: Make, tree: Make) -> dict[str, Make]:
    """Returns makers of values by kind, over those that make parts of names."""
    return {
        "temperature": lambda r: f"{r.randint(12, 25) * 10} {r.choice(('degrees', '°C', '°F'))}",
        "food": _one(_FOODS),
        "place": lambda r: r.choice((f"{city(r)} Park", f"Lake {name(r)}", f"the {colour(r)} Hills", f"the {tree(r)} Road ground", f"the Bay of {city(r)}", f"the {colour(r)} Sea")),
        "two colours": lambda r: f"{_one(_COLOURS)(r)} and {_one(_COLOURS)(r)}",
        "score": lambda r: f"{r.randint(0, 9)}{r.choice((':', '-', ' to '))}{r.randint(0, 9)}",
        "product": _one(_PRODUCTS),
        "bigmoney": lambda r: f"{r.choice('$€£')}{r.randint(2, 900)} {r.choice(('million', 'billion'))}",
        "company": lambda r: f"{name(r)} {r.choice(('Ltd', 'Group', 'Works', 'Foods', 'Systems', 'and Sons', 'Labs'))}",
        "distance": lambda r: f"{r.randint(3, 2900)} {r.choice(('km', 'miles', 'kilometres'))}",
        "animal": _one(_ANIMALS),
        "platform": lambda r: f"platform {r.randint(1, 24)}",
        "dose": lambda r: f"{r.randint(1, 40) * 25} mg" if r.random() < 0.6 else f"{r.choice(('one', 'two', 'three'))} tablets",
        "symptom": _one(_SYMPTOMS),
        "place to keep": _one(_KEPT),
        "file": _file,
        "purpose": _one(_PURPOSES),
        "command": lambda r: f"{r.choice(('make', 'npm run', 'git', 'docker', 'cargo', 'pip'))} {_one(_STEMS)(r)}",
        "prize": _one(_PRIZES),
        "people": _one(_PEOPLE),
        "act": _one(_ACTS),
    }  # fmt: skip


def more_entities(city: Make, name: Make, colour: Make, work: Make) -> dict[str, Make]:
    """Returns makers of the names of things by topic."""
    return {
        "recipe": lambda r: f"{_one(_DISHES)(r)} {r.choice(('cake', 'pie', 'bread', 'tart', 'soup', 'bake'))}",
        "club": lambda r: f"{city(r)} {r.choice(('Rovers', 'United', 'Chess Club', 'Athletic', 'Choir', 'Rowing Club'))}",
        "company": lambda r: f"{name(r)} {r.choice(('Ltd', 'Group', 'Works', 'Foods', 'Systems', 'and Sons', 'Labs'))}",
        "river": lambda r: f"{r.choice(('River', 'river'))} {name(r)}",
        "animal": lambda r: f"{_one(_COLOURS)(r)} {r.choice(('heron', 'fox', 'lizard', 'bat', 'tortoise', 'owl', 'hare', 'crane'))}",
        "school": lambda r: f"{name(r)} {r.choice(('School', 'Primary School', 'College', 'Academy'))}",
        "train": lambda r: f"{r.choice(('express', 'night train', 'bus', 'tram', 'line'))} {r.randint(1, 90)}",
        "medicine": lambda r: name(r)[:5] + r.choice(("oxin", "amol", "ivir", "azol", "idine", "profen")),
        "setting": _setting,
        "song": lambda r: r.choice((work(r), f'"{work(r)}"')),
        "film": lambda r: r.choice((work(r), f"{colour(r)} {name(r)}")),
        "war": lambda r: r.choice((f"the {name(r)} War", f"the Battle of {city(r)}", f"the {colour(r)} Rising")),
        "law": lambda r: r.choice((f"the {colour(r)} {r.choice(('Air', 'Water', 'Shops', 'Roads', 'Forest'))} Act", f"the {name(r)} Treaty")),
    }  # fmt: skip
