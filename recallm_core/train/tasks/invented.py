# ruff: noqa: E501, SIM905 (tables of words and patterns)
"""Invented things and values of many kinds: names, cities, prices, codes."""

from __future__ import annotations

import random
from collections.abc import Callable

from recallm_core.train.tasks import held_out
from recallm_core.train.tasks.more_words import more_entities, more_values
from recallm_core.train.tasks.training_example import Split

_CITIES = """
    Antwerp Aarhus Bergen Bilbao Bristol Brno Calgary Cork Dakar Denver Dresden Dublin Graz Haifa
    Hanoi Izmir Kyoto Lagos Leipzig Lima Linz Lisbon Lyon Malmo Manila Marseille Mumbai Nairobi
    Naples Nice Oslo Osaka Ottawa Perth Pisa Poznan Prague Quito Reno Riga Rome Seoul Seville
    Skopje Sofia Split Tampa Toledo Toronto Turin Utrecht Vienna Vilnius Warsaw York Zagreb
""".split()
_FIRST = """
    Ada Aisha Alan Amara Ana Anton Asha Ben Bruno Carla Chen Clara Dario David Elena Emil Eva
    Farid Fiona Greta Hana Hugo Ines Irene Ivan Jana Jonas Julia Kai Karim Lars Leila Lena Liam
    Lucia Luis Maja Marco Maria Mei Mina Nadia Nina Noor Olga Omar Paula Pedro Petra Priya Rosa
    Ruth Samir Sara Selma Simon Sofia Sven Tara Theo Tomas Vera Viktor Yara Yusuf Zoe
""".split()
_LAST_A = """
    Al Bar Bel Bro Car Cor Dan Del Dor Fal Fer Gar Gil Hal Har Hol Kar Kel Lan Lin Mar Mor Nor Ol
    Par Pel Ras Ros San Sel Sol Tan Tor Val Var Wel Wil Zan
""".split()
_LAST_B = """
    berg man ner son ova ski ado ez ini aki ura gate field well wood stein dal sen ton ley quist
    edo ler ane off ia er mond
""".split()
SERVICES = """
    alerts api auth billing cache catalog checkout cron events export feed gateway geo identity
    images import inbox ingest ledger login mailer maps media metrics notify orders parser
    payments pricing profile proxy queue ranking render reports router scheduler search session
    shipping signup stats storage streams sync tax tokens upload users video wallet webhook
""".split()
TEAMS = """
    Accounts Analytics Archive Atlas Backend Brand Catering Cleaning Content Data Delivery Design
    Events Facilities Finance Frontend Growth Hiring Infrastructure Legal Logistics Marketing
    Mobile Onboarding Operations Outreach Payroll Platform Press Procurement Product Quality
    Research Robotics Sales Security Service Support Training Warehouse
""".split()
_STAFF = (
    "Employees;Full-time employees;Part-time employees;Contractors;Interns;Managers;New hires;"
    "Drivers;Engineers;Nurses;Teachers;Trainees;Volunteers;Students;Senior staff;Field workers;"
    "Apprentices;Consultants;Researchers;Sales staff"
).split(";")
_THING = "tower bridge lighthouse museum castle abbey mill theatre station chapel town hall;harbour;garden;observatory;windmill;palace;gallery;dam;market hall;school;church;aquarium;stadium;fort;cathedral".replace(
    " ", ";"
).split(";")
_DEVICE = """
    kettle toaster drill printer router scanner vacuum heater fan lamp camera speaker radio mixer
    blender freezer oven tablet monitor projector pump mower scooter humidifier thermostat
""".split()
_EVENT = (
    "summer fair;spring meeting;annual review;code freeze;open day;book sale;winter market;"
    "charity run;team retreat;safety week;music night;fire drill;maintenance window;hackathon;"
    "science day;film festival"
).split(";")
_LANGS = """
    Ada C Clojure Dart Elm Erlang Fortran Go Haskell Java Julia Lua OCaml Perl PHP Python Ruby
    Scala Swift TypeScript Zig
""".split()
_DBS = [
    "PostgreSQL",
    "MySQL",
    "SQLite",
    "Redis",
    "MongoDB",
    "Cassandra",
    "MariaDB",
    "CockroachDB",
    "DynamoDB",
    "Oracle",
]
_COLOURS = [
    "red",
    "green",
    "blue",
    "white",
    "yellow",
    "orange",
    "purple",
    "amber",
    "pink",
    "violet",
]
_MATERIALS = (
    "a dry cloth;warm water;a soft brush;vinegar;soap and water;alcohol;lemon juice;a damp sponge;"
    "compressed air;baking soda;mild soap"
).split(";")
_ROLES = [
    "the team lead",
    "the head of department",
    "the finance office",
    "the managing director",
    "their manager",
    "the works council",
    "human resources",
    "the board",
    "the line manager",
    "the chief of staff",
]
_REASONS = (
    "heavy rain;a power cut;a strike;low demand;the nesting birds;a broken pump;ice on the road;"
    "a lack of volunteers;repair work;strong wind;a holiday;missing permits;the flood;"
    "noise complaints"
).split(";")
_CONDITIONS = (
    "when the tank is empty;when the door is opened;as soon as the water boils;"
    "after the lid is closed;when smoke is detected;if the pressure drops;"
    "when the button is pressed;after the last customer leaves;when the battery is full;at sunset;"
    "when the temperature falls below zero"
).split(";")
_JOBS = (
    "a nurse;a carpenter;a pilot;a translator;a baker;a lawyer;a geologist;a teacher;"
    "a photographer;an architect;an engineer;a chemist;a painter;a journalist;a violinist;"
    "a historian"
).split(";")
MONTHS = """
    January February March April May June July August September October November December
""".split()
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_ORDINALS = [
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
]
_COUNTS = """
    two three four five six seven eight nine ten eleven twelve fifteen twenty
""".split()
_TREES = """
    Ash Birch Cedar Elm Fir Hazel Larch Lime Maple Oak Olive Pine Poplar Rowan Spruce Willow Yew
""".split()
_COLOUR_WORDS = """
    Amber Bright Cold Dark East Far Gold Grand Great Green High Iron Long New North Old Queen Red
    Royal Silver Small South Stone Upper West White Wild
""".split()


def person(rng: random.Random) -> str:
    """Returns an invented name."""
    last = rng.choice(_LAST_A) + rng.choice(_LAST_B)
    name = f"{rng.choice(_FIRST)} {last}"
    return rng.choice(("Dr. ", "Mr. ", "Ms. ")) + name if rng.random() < 0.08 else name


def _city(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return rng.choice(_CITIES)
    return rng.choice(_LAST_A) + rng.choice(
        """
    borg by dale ford gard haven mouth port stad ton vik wick
""".split()
    )


def _money(rng: random.Random) -> str:
    amount = rng.choice((rng.randint(2, 99), rng.randint(1, 40) * 25, rng.randint(1, 90) * 100))
    shown = f"{amount:,}" if rng.random() < 0.9 else f"{amount}.50"
    return rng.choice(
        ("${}", "€{}", "£{}", "{} euros", "{} dollars", "{} pounds", "{} EUR", "{} cents")
    ).format(shown)


def _count(rng: random.Random, unit: str, top: int = 40) -> str:
    if rng.random() < 0.35:
        return f"{rng.choice(_COUNTS)} {unit}s"
    return f"{rng.randint(2, top)} {unit}s"


def _time(rng: random.Random) -> str:
    hour, minute = rng.randint(1, 23), rng.choice((0, 0, 15, 30, 45, 5, 20))
    if rng.random() < 0.6:
        return f"{hour}:{minute:02}" if rng.random() < 0.6 else f"{hour:02}:{minute:02}"
    return rng.choice(
        (
            f"{hour % 12 + 1} am",
            f"{hour % 12 + 1}:{minute:02} pm",
            "noon",
            "midnight",
            f"{hour % 12 + 1} o'clock",
        )
    )


def _date(rng: random.Random) -> str:
    year = str(rng.randint(1890, 2029))
    month = rng.choice(MONTHS)
    return rng.choice((year, year, f"{month} {year}", f"{rng.randint(1, 28)} {month} {year}"))


def _code(rng: random.Random) -> str:
    letters = "".join(rng.choice("ABCDEFGHKLMNPRSTVWX") for _ in range(rng.randint(1, 3)))
    return f"{letters}{rng.choice('- -'.strip() or '-')}{rng.randint(10, 9999)}"


VALUES: dict[str, Callable[[random.Random], str]] = {
    "time": _time,
    "hours": lambda r: f"{_clock(r, 6, 11)} {r.choice(('to', '-', 'until'))} {_clock(r, 13, 22)}",
    "person": person,
    "number": lambda r: str(r.randint(2, 400)),
    "bignumber": lambda r: r.choice((f"{r.randint(2, 950)},{r.randint(0, 999):03}", str(r.randint(1000, 99999)))),
    "count": lambda r: r.choice((r.choice(_COUNTS), str(r.randint(2, 30)))),
    "date": _date,
    "year": lambda r: str(r.randint(1400, 2029)),
    "street": lambda r: r.choice((f"{r.randint(1, 180)} {r.choice(_TREES)} Street", f"{r.choice(_LAST_A)}{r.choice(_LAST_B)} Road {r.randint(1, 99)}", f"the {r.choice(_COLOUR_WORDS)} {r.choice(_TREES)} House")),
    "ordinal": lambda r: r.choice(_ORDINALS),
    "ordinal day": lambda r: f"{r.choice(_ORDINALS)} day",
    "money": _money,
    "port": lambda r: str(r.randint(100, 65000)),
    "language": lambda r: r.choice(_LANGS),
    "database": lambda r: r.choice(_DBS),
    "city": _city,
    "duration": lambda r: _count(r, r.choice(("minute", "hour", "day", "week", "month", "second", "year")), 90),
    "days": lambda r: _count(r, "day"),
    "weeks": lambda r: _count(r, r.choice(("week", "week", "month")), 26),
    "years": lambda r: _count(r, "year", 12),
    "version": lambda r: f"{r.randint(0, 12)}.{r.randint(0, 30)}" + (f".{r.randint(0, 9)}" if r.random() < 0.5 else ""),
    "role": lambda r: r.choice(_ROLES),
    "channel": lambda r: f"#{r.choice(SERVICES)}-{r.choice(('help', 'team', 'ops', 'chat'))}",
    "weekday": lambda r: f"{r.choice(_DAYS)}s" if r.random() < 0.4 else r.choice(_DAYS),
    "weekday time": lambda r: f"{r.choice(_DAYS)}s at {_time(r)}" if r.random() < 0.6 else f"{r.choice(_DAYS)} at {_time(r)}",
    "room": lambda r: r.choice((f"room {r.randint(1, 500)}", f"the {r.choice(_TREES)} Room", f"the {r.choice(_COLOUR_WORDS)} Hall", f"building {r.choice('ABCDEF')}")),
    "email": lambda r: f"{r.choice(SERVICES)}@{r.choice(_LAST_A).lower()}{r.choice(_LAST_B)}.{r.choice(('com', 'org', 'net', 'example'))}",
    "length": lambda r: f"{r.randint(3, 300)} {r.choice(('metres', 'feet', 'm', 'meters'))}",
    "month range": lambda r: f"{r.choice(MONTHS[:6])} {r.choice(('to', 'until'))} {r.choice(MONTHS[6:])}",
    "harbour": lambda r: r.choice((f"{_city(r)} pier", f"{_city(r)} harbour", f"the {r.choice(_COLOUR_WORDS)} Quay", f"Port {r.choice(_LAST_A)}{r.choice(_LAST_B)}", f"{_city(r)} dock")),
    "weight": lambda r: f"{r.randint(1, 90)}{r.choice(('', '.5', '.2'))} {r.choice(('kg', 'grams', 'kilograms', 'pounds'))}",
    "power": lambda r: f"{r.randint(2, 60) * 50} {r.choice(('watts', 'W'))}",
    "volume": lambda r: f"{r.randint(1, 80)}{r.choice(('', '.5', '.8'))} {r.choice(('litres', 'liters', 'cups', 'gallons', 'ml'))}",
    "code": _code,
    "colour": lambda r: r.choice(_COLOURS),
    "material": lambda r: r.choice(_MATERIALS),
    "interval": lambda r: r.choice(("once a week", "once a year", "every day", "twice a month", "twice a year", "every six months", "once a month", "three times a week", "every two years")),
    "job": lambda r: r.choice(_JOBS),
    "work": lambda r: f"The {r.choice(_COLOUR_WORDS)} {r.choice((*_TREES, 'River', 'House', 'Winter', 'Letter', 'Garden', 'Sea'))}",
    "dayofmonth": lambda r: f"{r.randint(1, 28)} {r.choice(MONTHS)}" if r.random() < 0.6 else f"{r.choice(MONTHS)} {r.randint(1, 28)}",
    "dayrange": lambda r: f"{r.randint(1, 28)} {r.choice(MONTHS)} {r.choice(('to', 'until'))} {r.randint(1, 28)} {r.choice(MONTHS)}",
    "reason": lambda r: r.choice(_REASONS),
    "condition": lambda r: r.choice(_CONDITIONS),
}  # fmt: skip


def _clock(rng: random.Random, low: int, high: int) -> str:
    return f"{rng.randint(low, high)}:{rng.choice(('00', '30', '15'))}"


def _name(rng: random.Random) -> str:
    return rng.choice(_LAST_A) + rng.choice(_LAST_B)


def _colour(rng: random.Random) -> str:
    return rng.choice(_COLOUR_WORDS)


VALUES |= more_values(_city, _name, _colour, lambda rng: rng.choice(_TREES))
VALUES["held-out person"] = held_out.person
_MORE = more_entities(_city, _name, _colour, VALUES["work"])


def _entity(topic: str, rng: random.Random) -> str:
    name = rng.choice(_LAST_A) + rng.choice(_LAST_B)
    by_topic = {
        "office": lambda: _city(rng),
        "service": lambda: rng.choice(SERVICES) + rng.choice(("", "", "-v2", "-worker", "-db")),
        "policy": lambda: rng.choice(_STAFF),
        "team": lambda: rng.choice(TEAMS),
        "place": lambda: rng.choice((f"The {name} {rng.choice(_THING)}", f"{name} {rng.choice(_THING).title()}", f"The {rng.choice(_COLOUR_WORDS)} {rng.choice(_THING).title()}")),
        "ferry": lambda: rng.choice((f"{name} Island", f"Isle of {name}", f"{name} Skerry", name)),
        "library": lambda: rng.choice((f"{name} Library", f"the {_city(rng)} library", f"{rng.choice(_TREES)} Street Library", "the library")),
        "device": lambda: rng.choice((f"{name} {rng.choice('KXPSTZ')}{rng.randint(1, 90)}", rng.choice(_DEVICE), f"{name} {rng.choice(_DEVICE)}")),
        "person": lambda: person(rng),
        "event": lambda: rng.choice((f"The {rng.choice(_EVENT)}", f"The {name} {rng.choice(_EVENT)}")),
        "condition": lambda: rng.choice(_DEVICE),
    }  # fmt: skip
    if topic in _MORE:
        return _MORE[topic](rng)
    return by_topic[topic]()


def entity(topic: str, rng: random.Random, split: Split = "train") -> str:
    """Returns an invented thing of one topic."""
    return _entity(topic, rng) if split == "train" else held_out.entity(topic, rng)
