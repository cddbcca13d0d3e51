# ruff: noqa: E501, SIM905 (tables of words and patterns)
"""Made-up documents: pages of facts about invented things, and questions about them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from recallm_core.train.tasks import held_out
from recallm_core.train.tasks.lesson import Split
from recallm_core.train.tasks.more_words import more_entities, more_values
from recallm_core.train.tasks.traces import Example

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
_SERVICE = """
    alerts api auth billing cache catalog checkout cron events export feed gateway geo identity
    images import inbox ingest ledger login mailer maps media metrics notify orders parser
    payments pricing profile proxy queue ranking render reports router scheduler search session
    shipping signup stats storage streams sync tax tokens upload users video wallet webhook
""".split()
_TEAMS = """
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
_MONTHS = """
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
_FILLERS = (
    "Please read this page before you ask a question.;The page is reviewed twice a year.;"
    "Some details differ from place to place.;Ask a colleague if something is unclear.;"
    "Nothing on this page replaces the contract.;Earlier versions of this page are in the archive.;"
    "Changes are announced by mail.;Most visitors find their way without help.;"
    "We are always happy to hear what could be better.;The list below is not complete.;"
    "Safety comes first.;Thank you for helping to keep this up to date."
).split(";")


@dataclass(frozen=True, slots=True)
class Relation:
    """One kind of fact: how it is said, and how it is asked for."""

    topic: str
    label: str
    kind: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]


_RELATIONS: dict[Split, str] = {"train": "relations.txt", "held-out": "held_out.txt"}


@cache
def relations(split: Split = "train") -> tuple[Relation, ...]:
    """Returns all relations of a split; no topic, statement or question is in both."""
    parsed = []
    for line in (Path(__file__).with_name(_RELATIONS[split])).read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            topic, label, kind, statements, questions = (part.strip() for part in line.split("|"))
            cut = [tuple(s.strip() for s in part.split(" ; ")) for part in (statements, questions)]
            parsed.append(Relation(topic, label, kind, *cut))
    return tuple(parsed)


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
    month = rng.choice(_MONTHS)
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
    "channel": lambda r: f"#{r.choice(_SERVICE)}-{r.choice(('help', 'team', 'ops', 'chat'))}",
    "weekday": lambda r: f"{r.choice(_DAYS)}s" if r.random() < 0.4 else r.choice(_DAYS),
    "weekday time": lambda r: f"{r.choice(_DAYS)}s at {_time(r)}" if r.random() < 0.6 else f"{r.choice(_DAYS)} at {_time(r)}",
    "room": lambda r: r.choice((f"room {r.randint(1, 500)}", f"the {r.choice(_TREES)} Room", f"the {r.choice(_COLOUR_WORDS)} Hall", f"building {r.choice('ABCDEF')}")),
    "email": lambda r: f"{r.choice(_SERVICE)}@{r.choice(_LAST_A).lower()}{r.choice(_LAST_B)}.{r.choice(('com', 'org', 'net', 'example'))}",
    "length": lambda r: f"{r.randint(3, 300)} {r.choice(('metres', 'feet', 'm', 'meters'))}",
    "month range": lambda r: f"{r.choice(_MONTHS[:6])} {r.choice(('to', 'until'))} {r.choice(_MONTHS[6:])}",
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
    "dayofmonth": lambda r: f"{r.randint(1, 28)} {r.choice(_MONTHS)}" if r.random() < 0.6 else f"{r.choice(_MONTHS)} {r.randint(1, 28)}",
    "dayrange": lambda r: f"{r.randint(1, 28)} {r.choice(_MONTHS)} {r.choice(('to', 'until'))} {r.randint(1, 28)} {r.choice(_MONTHS)}",
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
        "service": lambda: rng.choice(_SERVICE) + rng.choice(("", "", "-v2", "-worker", "-db")),
        "policy": lambda: rng.choice(_STAFF),
        "team": lambda: rng.choice(_TEAMS),
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


@dataclass(frozen=True, slots=True)
class Page:
    """A generated page.

    Attributes:
        title: Its title.
        text: Its text.
        facts: (question, first and last character of the evidence, those of the answer).
        entities: Names of the things that it is about.
    """

    title: str
    text: str
    facts: tuple[tuple[str, int, int, int, int], ...]
    entities: tuple[str, ...] = ()


@dataclass(slots=True)
class _Line:
    text: str
    question: str | None = None
    at: int = 0
    length: int = 0
    more: tuple[str, int, int] | None = None  # a second question about the same line


_MARKS = (("{P}", "person"), ("{C}", "city"), ("{Y}", "year"), ("{N}", "number"), ("{X}", "money"))
_SUBJECTS = ("The {E} office ", "The {E} team ", "The {E} service ", "The {E} ", "{E} ")
_BY_LABEL = ("What is the {L} of {E}?", "{E}: {L}?", "Tell me the {L} of {E}.", "{L} {E}")


def _statement(relation: Relation, entity: str, rng: random.Random) -> _Line:
    """Says one fact as a sentence, and remembers where its value is."""
    value = VALUES[relation.kind](rng)
    sentence = _filled(rng.choice(relation.statements), entity, rng)
    sentence = sentence[0].upper() + sentence[1:]
    at = sentence.index("{V}")
    question = _question(relation, entity, rng)
    value = value[0].upper() + value[1:] if at == 0 else value
    return _Line(sentence.replace("{V}", value), question, at, len(value))


def _filled(sentence: str, entity: str, rng: random.Random) -> str:
    """Fills everything but the value."""
    for mark, kind in _MARKS:
        sentence = sentence.replace(mark, VALUES[kind](rng))
    sentence = sentence.replace("{M}", rng.choice(_MONTHS))
    if entity.startswith(("The ", "the ")):
        sentence = sentence.replace("The {E}", "{E}").replace("the {E}", "{E}")
    return sentence.replace("{E}", entity)


def _double(first: Relation, second: Relation, entity: str, rng: random.Random) -> _Line | None:
    """Says two facts about one thing in one sentence, if two statements share their subject."""
    opening = {
        statement: next((s for s in _SUBJECTS if statement.startswith(s)), "")
        for statement in (*first.statements, *second.statements)
    }
    pairs = [
        (a, b, opening[a])
        for a in first.statements
        for b in second.statements
        if opening[a] and opening[a] == opening[b] and "," not in a
    ]
    if not pairs or first.label == second.label:
        return None
    a, b, subject = rng.choice(pairs)
    link = rng.choice((" and ", " and ", ", and ", "; it ", " but "))
    parts = (a.rstrip(".") + link + b[len(subject) :]).split("{V}")
    ahead, middle, rest = (_filled(part, entity, rng) for part in parts)
    ahead = ahead[:1].upper() + ahead[1:]
    one, two = VALUES[first.kind](rng), VALUES[second.kind](rng)
    questions = [_question(relation, entity, rng) for relation in (first, second)]
    at = len(ahead) + len(one) + len(middle)
    text = ahead + one + middle + two + rest
    return _Line(text, questions[0], len(ahead), len(one), (questions[1], at, len(two)))


def _said(relation: Relation, entity: str, kinds: list[Relation], rng: random.Random) -> _Line:
    """Says one fact in a sentence, or at times two."""
    double = _double(relation, rng.choice(kinds), entity, rng) if rng.random() < 0.4 else None
    return double or _statement(relation, entity, rng)


def _question(relation: Relation, entity: str, rng: random.Random) -> str:
    question = rng.choice(relation.questions)
    if rng.random() < 0.08:
        question = rng.choice(_BY_LABEL).replace("{L}", relation.label)
    low = entity[0].lower() + entity[1:] if entity.startswith("The ") else entity
    if low.startswith("the "):
        question = question.replace("the {E}", "{E}")
    question = question.replace("{E}", low).replace("{e}", entity.lower())
    if rng.random() < 0.12:
        question = question.rstrip("?").lower()
    return question


def _keyed(relation: Relation, entity: str, rng: random.Random) -> _Line:
    """Says one fact as ``label: value``, asked for with or without the entity's name."""
    value = VALUES[relation.kind](rng)
    label = relation.label if rng.random() < 0.5 else relation.label.capitalize()
    lead = rng.choice(
        (f"{label}: ", f"- {label}: ", f"**{label}**: ", f"* {label} - ", f"{label} = ")
    )
    question = _question(relation, entity, rng)
    if rng.random() < 0.35:
        question = rng.choice(
            (
                f"What is the {relation.label} of {entity}?",
                f"{relation.label} of {entity}?",
                f"What is the {relation.label}?",
            )
        )
    return _Line(lead + value, question, len(lead), len(value))


def make_page(rng: random.Random, lines: int, *, split: Split = "train") -> Page:
    """Returns a page of about ``lines`` facts about a few things of one topic."""
    by_topic: dict[str, list[Relation]] = {}
    for relation in relations(split):
        by_topic.setdefault(relation.topic, []).append(relation)
    topic = rng.choice(sorted(by_topic))
    entities = list(dict.fromkeys(entity(topic, rng, split) for _ in range(rng.randint(1, 4))))
    page = _page(topic, by_topic[topic], entities, lines, rng)
    return replace(page, entities=tuple(entities))


def _page(
    topic: str, kinds: list[Relation], entities: list[str], lines: int, rng: random.Random
) -> Page:
    """Lays facts about some things out, as a table, as keys and values, or in sentences."""
    style = rng.random()
    if style < 0.15 and len(entities) > 1:
        return _table(topic, kinds, entities, rng)
    keyed = style < 0.32
    rows: list[_Line] = []
    used: set[tuple[str, str]] = set()
    for _ in range(lines):
        entity = entities[0] if keyed else rng.choice(entities)
        relation = rng.choice(kinds)
        if (entity, relation.label) in used:
            continue
        used.add((entity, relation.label))
        if keyed:
            rows.append(_keyed(relation, entity, rng))
        else:
            rows.append(_said(relation, entity, kinds, rng))
        if not keyed and rng.random() < 0.15:
            rows.append(_Line(rng.choice(_FILLERS)))
    title = (
        entities[0]
        if keyed
        else rng.choice(
            (
                f"{topic.title()}s",
                f"{topic}.md",
                entities[0],
                "",
                "Handbook",
                f"{topic.title()} guide",
            )
        )
    )
    return _lay_out(title, rows, rng, bare=keyed)


def _table(topic: str, kinds: list[Relation], entities: list[str], rng: random.Random) -> Page:
    """Returns a page that is a table, one thing a row."""
    columns = rng.sample(kinds, min(len(kinds), rng.randint(2, 4)))
    rows: list[_Line] = [
        _Line(f"| {topic} | " + " | ".join(c.label for c in columns) + " |"),
        _Line("|" + "---|" * (len(columns) + 1)),
    ]
    for entity in entities:
        values = [VALUES[c.kind](rng) for c in columns]
        row = f"| {entity} |"
        column = rng.randrange(len(columns))
        line = _Line("", _question(columns[column], entity, rng))
        for number, value in enumerate(values):
            if number == column:
                line.at, line.length = len(row) + 1, len(value)
            row += f" {value} |"
        line.text = row
        rows.append(line)
    return _lay_out(rng.choice((f"{topic.title()}s", "Overview", "")), rows, rng, bare=True)


def _lay_out(title: str, lines: list[_Line], rng: random.Random, *, bare: bool) -> Page:
    """Joins lines to prose, lines, or a list, below a heading or not."""
    style = (
        "lines"
        if bare
        else rng.choice(("prose", "prose", "prose", "lines", "bullets", "paragraphs"))
    )
    between = {"prose": " ", "lines": "\n", "bullets": "\n", "paragraphs": "\n\n"}[style]
    text = ""
    if rng.random() < 0.45:
        text = f"{'#' * rng.randint(1, 3)} {title or 'Notes'}\n" + "\n" * rng.randint(0, 1)
    facts = []
    for number, line in enumerate(lines):
        if number:
            text += between if rng.random() < 0.85 or style != "prose" else "\n\n"
        start = len(text)
        mark = rng.choice("-*") + " " if style == "bullets" else ""
        text += mark + line.text
        if line.question is not None:
            at = start + len(mark) + line.at
            facts.append((line.question, start, len(text), at, at + line.length))
        if line.more is not None:
            question, place, length = line.more
            at = start + len(mark) + place
            facts.append((question, start, len(text), at, at + length))
    if rng.random() < 0.3:
        text += "\n"
    return Page(title, text, tuple(facts))


_TWO_HOPS = (
    ("The {A} team is led by {P}.", "{P} works in {V}.", "In which city does the leader of the {A} team work?", "city"),
    ("The {A} service is owned by {P}.", "{P} can be reached at {V}.", "How can the owner of {A} be reached?", "email"),
    ("{A} was designed by {P}.", "{P} was born in {V}.", "Where was the architect of {A} born?", "city"),
    ("{P} wrote {A}.", "{P} was born in {V}.", "When was the author of {A} born?", "date"),
    ("The {A} team sits in the {P} building.", "The {P} building is on {V}.", "What is the address of the building of the {A} team?", "street"),
    ("The manager of {A} is {P}.", "{P} has extension {V}.", "What is the extension of the manager of {A}?", "port"),
    ("{A} is stored on the {P} server.", "The {P} server is located in {V}.", "Where is the server that stores {A}?", "city"),
    ("{P} teaches {A}.", "{P} is in {V}.", "In which room is the teacher of {A}?", "room"),
)  # fmt: skip


def two_hop(rng: random.Random, extra: int) -> Example:
    """Returns a question that needs two sentences of the generated passages."""
    first, second, template, kind = rng.choice(_TWO_HOPS)
    things = rng.sample((*_TEAMS, *_SERVICE), 3)
    value = VALUES[kind](rng)
    sentences: list[tuple[str, int, int]] = []
    for number, thing in enumerate(things):
        bridge = person(rng)
        shown = value if number == 0 else VALUES[kind](rng)
        lead = second.replace("{P}", bridge)
        sentences.append((first.replace("{P}", bridge).replace("{A}", thing), 0, 0))
        sentences.append((lead.replace("{V}", shown), lead.index("{V}"), len(shown)))
    order = list(range(len(sentences)))
    if extra == 0:
        order = order[: rng.choice((2, 4))]
    rng.shuffle(order)
    text, places = "", {}
    for number in order:
        text += rng.choice((" ", " ", "\n")) if text else ""
        places[number] = len(text)
        text += sentences[number][0]
    spans = tuple((0, places[n], places[n] + len(sentences[n][0])) for n in (0, 1))
    at = places[1] + sentences[1][1]
    question = template.replace("{A}", things[0])
    return Example((("", text),), question, spans, (0, at, at + sentences[1][2]), "two_hop")
