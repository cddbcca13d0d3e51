# ruff: noqa: E501, SIM905 (tables of words and patterns)
"""Made-up documents: pages of facts about invented things, and questions about them."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from recallm_core.train.tasks.invented import MONTHS, SERVICES, TEAMS, VALUES, entity, person
from recallm_core.train.tasks.traces import Example
from recallm_core.train.tasks.training_example import Split

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
    sentence = _fill(rng.choice(relation.statements), entity, rng)
    sentence = sentence[0].upper() + sentence[1:]
    at = sentence.index("{V}")
    question = _question(relation, entity, rng)
    value = value[0].upper() + value[1:] if at == 0 else value
    return _Line(sentence.replace("{V}", value), question, at, len(value))


def _fill(sentence: str, entity: str, rng: random.Random) -> str:
    """Fills everything but the value."""
    for mark, kind in _MARKS:
        sentence = sentence.replace(mark, VALUES[kind](rng))
    sentence = sentence.replace("{M}", rng.choice(MONTHS))
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
    ahead, middle, rest = (_fill(part, entity, rng) for part in parts)
    ahead = ahead[:1].upper() + ahead[1:]
    one, two = VALUES[first.kind](rng), VALUES[second.kind](rng)
    questions = [_question(relation, entity, rng) for relation in (first, second)]
    at = len(ahead) + len(one) + len(middle)
    text = ahead + one + middle + two + rest
    return _Line(text, questions[0], len(ahead), len(one), (questions[1], at, len(two)))


def _say(relation: Relation, entity: str, kinds: list[Relation], rng: random.Random) -> _Line:
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


def _key_value(relation: Relation, entity: str, rng: random.Random) -> _Line:
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
            rows.append(_key_value(relation, entity, rng))
        else:
            rows.append(_say(relation, entity, kinds, rng))
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
    for thing in entities:
        values = [VALUES[c.kind](rng) for c in columns]
        row = f"| {thing} |"
        column = rng.randrange(len(columns))
        line = _Line("", _question(columns[column], thing, rng))
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
    things = rng.sample((*TEAMS, *SERVICES), 3)
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
