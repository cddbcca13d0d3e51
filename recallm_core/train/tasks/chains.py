"""Two-hop questions for training, put together: what leads to something, and what is said of it.

Each kind of bridge has sentences that lead to it and sentences about it, every one of the first
with every one of the second; so a model learns the step, and not a list of questions.
"""

from __future__ import annotations

from functools import cache

Hop = tuple[str, str, str, str, str, str]
"""(topic of {A}, kind of {P}, first sentence, second sentence, question, kind of {V})."""

_LEADING: dict[str, tuple[tuple[str, str, str], ...]] = {
    "person": (
        ("team", "The {A} team is led by {P}.", "the leader of the {A} team"),
        ("team", "{P} speaks for the {A} team.", "the one who speaks for the {A} team"),
        ("service", "The {A} service is owned by {P}.", "the owner of {A}"),
        (
            "service",
            "At night {P} looks after the {A} service.",
            "the person who looks after the {A} service at night",
        ),
        ("place", "{A} was designed by {P}.", "the architect of {A}"),
        (
            "place",
            "The key to {A} hangs in the kitchen of {P}.",
            "the person in whose kitchen the key to {A} hangs",
        ),
        ("film", "{P} directed {A}.", "the director of {A}"),
        ("film", "The music for {A} is by {P}.", "the composer of the music for {A}"),
        ("library", "The manager of {A} is {P}.", "the manager of {A}"),
        ("school", "{P} is the head of {A}.", "the head of {A}"),
        ("school", "Chemistry at {A} is taught by {P}.", "the chemistry teacher of {A}"),
        ("club", "{A} is trained by {P}.", "the coach of {A}"),
        ("club", "{P} scored the only goal for {A}.", "the scorer of the only goal for {A}"),
        ("song", "{A} was first sung by {P}.", "the first singer of {A}"),
        ("song", "{P} wrote the words of {A}.", "the one who wrote the words of {A}"),
        ("company", "{A} was founded by {P}.", "the founder of {A}"),
        (
            "device",
            "The patent for the {A} is held by {P}.",
            "the holder of the patent for the {A}",
        ),
        ("river", "{P} was the first to swim across {A}.", "the first swimmer across {A}"),
        ("ferry", "The ferry to {A} is steered by {P}.", "the captain of the ferry to {A}"),
        ("law", "{A} was put forward by {P}.", "the politician who put {A} forward"),
        ("recipe", "{P} came up with the {A}.", "the cook who came up with the {A}"),
        ("event", "Tickets for {A} are sold by {P}.", "the one who sells tickets for {A}"),
    ),
    "building": (
        ("team", "The {A} team sits in the {P} building.", "the building of the {A} team"),
        ("event", "{A} takes place in the {P} building.", "the building in which {A} takes place"),
        ("school", "{A} moved into the {P} building.", "the building that {A} moved into"),
        ("company", "{A} rents the whole {P} building.", "the building that {A} rents"),
    ),
    "server": (
        ("setting", "{A} is stored on the {P} server.", "the server that stores {A}"),
        ("service", "The {A} service runs on the {P} server.", "the server that {A} runs on"),
        (
            "team",
            "Backups of the {A} team go to the {P} server.",
            "the server for backups of the {A} team",
        ),
    ),
    "village": (
        ("river", "{A} flows past the village of {P}.", "the village on {A}"),
        ("place", "{A} stands near the village of {P}.", "the village near {A}"),
        ("train", "{A} stops in the village of {P}.", "the village in which {A} stops"),
    ),
    "supplier": (
        ("company", "{A} buys its parts from {P} and Partners.", "the supplier of {A}"),
        ("device", "The {A} is made by {P} and Partners.", "the maker of the {A}"),
        ("medicine", "{A} is sold by {P} and Partners.", "the firm that sells {A}"),
        ("library", "{A} was painted by {P} and Partners.", "the firm that painted {A}"),
    ),
}
_FOLLOWING: dict[str, tuple[tuple[str, str, str], ...]] = {
    "person": (
        ("{P} works in {V}.", "In which city does {N} work?", "city"),
        ("{P} can be reached at {V}.", "How can {N} be reached?", "email"),
        ("{P} was born in {V}.", "Where was {N} born?", "city"),
        ("{P} was born in {V}.", "In which year was {N} born?", "year"),
        ("{P} has extension {V}.", "What is the extension of {N}?", "port"),
        ("{P} is in {V}.", "In which room is {N}?", "room"),
        ("{P} used to be {V}.", "What did {N} use to be?", "job"),
        ("{P} is married to {V}.", "Whom is {N} married to?", "person"),
        ("{V} is the assistant of {P}.", "Who is the assistant of {N}?", "person"),
        ("{P} lives at {V}.", "What is the address of {N}?", "street"),
        ("The birthday of {P} is on {V}.", "When is the birthday of {N}?", "dayofmonth"),
        ("The favourite colour of {P} is {V}.", "What is the favourite colour of {N}?", "colour"),
        ("For a day of work {P} is paid {V}.", "How much is {N} paid for a day?", "money"),
        ("{P} is away every {V}.", "On which day is {N} away?", "weekday"),
        ("{P} has published {V}.", "What has {N} published?", "work"),
        ("{P} reports to {V}.", "To whom does {N} report?", "role"),
        ("{P} has been here for {V}.", "How long has {N} been here?", "duration"),
        ("{P} is a partner of {V}.", "Of which company is {N} a partner?", "company"),
        ("The badge of {P} says {V}.", "What does the badge of {N} say?", "code"),
        ("In spring {P} can be found at {V}.", "Where can {N} be found in spring?", "place"),
    ),
    "building": (
        ("The {P} building is on {V}.", "What is the address of {N}?", "street"),
        ("The {P} building has {V} floors.", "How many floors has {N}?", "count"),
        ("The {P} building closes at {V}.", "When does {N} close?", "time"),
        ("The {P} building was finished in {V}.", "When was {N} finished?", "year"),
        ("The caretaker of the {P} building is {V}.", "Who is the caretaker of {N}?", "person"),
        ("The {P} building belongs to {V}.", "To whom does {N} belong?", "company"),
    ),
    "server": (
        ("The {P} server is located in {V}.", "Where is {N}?", "city"),
        ("The {P} server runs {V}.", "Which database runs on {N}?", "database"),
        ("The {P} server listens on port {V}.", "On which port does {N} listen?", "port"),
        ("The {P} server is restarted on {V}.", "When is {N} restarted?", "weekday time"),
        ("{V} pays for the {P} server.", "Who pays for {N}?", "person"),
    ),
    "village": (
        ("The village of {P} has a fair on {V}.", "On which day is the fair of {N}?", "dayofmonth"),
        ("{V} people live in the village of {P}.", "How many people live in {N}?", "bignumber"),
        ("The mayor of the village of {P} is {V}.", "Who is the mayor of {N}?", "person"),
        ("The village of {P} is {V} from the sea.", "How far from the sea is {N}?", "distance"),
    ),
    "supplier": (
        ("{P} and Partners has {V} employees.", "How many employees has {N}?", "bignumber"),
        ("The office of {P} and Partners is in {V}.", "Where is the office of {N}?", "city"),
        ("{P} and Partners was founded in {V}.", "When was {N} founded?", "year"),
        ("{P} and Partners is run by {V}.", "Who runs {N}?", "person"),
        ("Last year {P} and Partners earned {V}.", "How much did {N} earn last year?", "bigmoney"),
    ),
}  # fmt: skip


@cache
def hops() -> tuple[Hop, ...]:
    """Returns every two-hop question for training."""
    return tuple(
        (topic, kind, first, second, question.replace("{N}", named), value)
        for kind, leading in _LEADING.items()
        for topic, first, named in leading
        for second, question, value in _FOLLOWING[kind]
    )
