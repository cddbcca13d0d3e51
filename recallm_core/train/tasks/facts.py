"""One fact, two hops, or nothing to find, over made-up pages of any length, in two splits.

Every maker takes a seeded generator, the size wanted in characters, and the split; a held-out
example shares no entity, relation, statement or two-hop question with any example for training.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence

from recallm_core.evidence.sentence_scorer import sentence_prior
from recallm_core.train.tasks import held_out
from recallm_core.train.tasks.chains import Hop, hops
from recallm_core.train.tasks.invented import VALUES, entity, person
from recallm_core.train.tasks.templates import Page, make_page
from recallm_core.train.tasks.training_example import Quote, Split, TrainingExample

Passage = tuple[str, str]
_HOPS: dict[Split, tuple[Hop, ...]] = {"train": hops(), "held-out": held_out.HOPS}
_VAGUE = re.compile(r"What is the (?:(?! of ).)*\?")
_LEADS: dict[str, tuple[str, ...]] = {
    "goal": ("I am asked: {q}\n", "The question: {q}\n", "Goal: {q}\n"),
    "find": ("I look for the passage that says it:", "The documents state:", "Here it is:"),
    "end": ("So the answer is {a}.", "That gives {a}.", "This answers it: {a}."),
    "first": ("First, who or what is meant:", "One step at a time. The first fact:"),
    "bridge": ("That leads to {p}. About {p}:", "So it is {p}. Now what is said of {p}:"),
    "absent": ("The nearest thing I find:", "The documents only say:", "What comes closest:"),
}


def lead(rng: random.Random, kind: str, **words: str) -> str:
    """Returns some own words for a step of the thinking."""
    text = rng.choice(_LEADS[kind])
    for name, word in words.items():
        text = text.replace(f"{{{name}}}", word)
    return text


def one_fact(rng: random.Random, *, size: int = 2000, split: Split = "train") -> TrainingExample:
    """Returns a question over one page among others, about ``size`` characters in all."""
    while True:
        page = make_page(rng, rng.randint(2, 10), split=split)
        clear = [fact for fact in page.facts if not _VAGUE.fullmatch(fact[0])]
        if clear:
            break
    question, a, b, start, end = rng.choice(clear)
    passages, number = place_page(rng, page, size, split)
    answer = page.text[start:end]
    thinking = (
        lead(rng, "goal", q=question),
        lead(rng, "find"),
        Quote(number, a, b),
        "\n",
        lead(rng, "end", a=answer),
    )
    return TrainingExample(
        passages, question, thinking, answer, "one_fact", Quote(number, start, end)
    )


def absent(rng: random.Random, *, size: int = 2000, split: Split = "train") -> TrainingExample:
    """Returns a question about a thing that no page names, though pages are about its kind."""
    while True:
        absent_page, page = (make_page(rng, rng.randint(2, 8), split=split) for _ in range(2))
        questions = [q for q, *_ in absent_page.facts if not _VAGUE.fullmatch(q)]
        if questions and not _shares(page, absent_page.entities):
            break
    question = rng.choice(questions)
    passages, _ = place_page(rng, page, size, split, without=absent_page.entities)
    thinking = (
        lead(rng, "goal", q=question),
        lead(rng, "absent"),
        nearest(question, passages),
        "\n",
        "That is about something else, and nothing else comes near.",
    )
    return TrainingExample(passages, question, thinking, None, "absent")


def nearest(question: str, passages: Iterable[Passage]) -> Quote:
    """Returns the sentence that is most like the question."""
    titles, texts = zip(*passages, strict=True)
    prior = sentence_prior(question, list(texts), list(titles))
    _, number, start, end = max((log, n, a, b) for n, row in enumerate(prior) for a, b, log in row)
    return Quote(number, start, end)


def two_hop(
    rng: random.Random, *, size: int = 2000, split: Split = "train", chains: int = 4
) -> TrainingExample:
    """Returns a question whose answer stands in a second sentence, found by way of a first one.

    ``chains`` pairs of sentences are said in the same words about other things, so the second
    sentence can't be told without the bridge.
    """
    topic, kind, first, second, wording, what = rng.choice(_HOPS[split])
    things = _distinct(lambda: entity(topic, rng, split), chains)
    bridges = _distinct(lambda: _bridge(kind, rng, split), chains, things)
    values = _distinct(lambda: _value(what, rng, split), chains, things + bridges)
    sentences = [
        template.replace("{A}", a).replace("{P}", p).replace("{V}", v)
        for template in (first, second)
        for a, p, v in zip(things, bridges, values, strict=True)
    ]
    sentences = [s[0].upper() + s[1:] for s in sentences]
    order = rng.sample(range(len(sentences)), len(sentences))
    passages = _spread(rng, [sentences[n] for n in order], size, split, (*things, *bridges))
    one, two = (_find(sentences[n], passages) for n in (0, chains))
    at = two.start + sentences[chains].rindex(values[0])
    question = (
        wording.replace("{A}", things[0]).replace("the the ", "the ").replace("the The ", "the ")
    )
    thinking = (
        lead(rng, "goal", q=question),
        lead(rng, "first"),
        one,
        "\n",
        lead(rng, "bridge", p=bridges[0]),
        two,
        "\n",
        lead(rng, "end", a=values[0]),
    )
    answer_at = Quote(two.passage, at, at + len(values[0]))
    return TrainingExample(passages, question, thinking, values[0], "two_hop", answer_at)


def _bridge(kind: str, rng: random.Random, split: Split) -> str:
    if split == "held-out":
        return held_out.value(kind, rng)
    return person(rng) if kind == "person" else person(rng).split()[-1]


def _value(kind: str, rng: random.Random, split: Split) -> str:
    return VALUES[kind](rng) if split == "train" else held_out.value(kind, rng)


def _distinct(make: Callable[[], str], count: int, taken: Sequence[str] = ()) -> list[str]:
    """Returns different values, none inside another or one taken: each must mean one thing."""
    values: list[str] = []
    for _ in range(1000):
        new = make()
        low = new.casefold()
        if not any(low in f.casefold() or f.casefold() in low for f in (*values, *taken)):
            values.append(new)
        if len(values) == count:
            return values
    raise ValueError(f"no {count} different values; lower chains")


def _spread(
    rng: random.Random, sentences: list[str], size: int, split: Split, without: tuple[str, ...]
) -> tuple[Passage, ...]:
    """Lays sentences out over a few passages, among other pages."""
    count = rng.randint(1, min(4, len(sentences)))
    telling: list[Passage] = []
    for number in range(count):
        text = rng.choice((" ", "\n")).join(sentences[number::count])
        telling.append((rng.choice(("", "Notes", "Register", f"Part {number + 1}")), text))
    passages = [*telling, *fillers(rng, size - sum(len(t) for _, t in telling), split, without)]
    rng.shuffle(passages)
    return tuple(passages)


def _find(sentence: str, passages: tuple[Passage, ...]) -> Quote:
    number, start = next(
        (n, t.index(sentence)) for n, (_, t) in enumerate(passages) if sentence in t
    )
    return Quote(number, start, start + len(sentence))


def place_page(
    rng: random.Random, page: Page, size: int, split: Split, *, without: tuple[str, ...] = ()
) -> tuple[tuple[Passage, ...], int]:
    """Returns the page among others that don't name its things, and its place."""
    others = fillers(rng, size - len(page.text), split, (*page.entities, *without))
    place = rng.randint(0, len(others))
    return (*others[:place], (page.title, page.text), *others[place:]), place


def fillers(rng: random.Random, size: int, split: Split, without: tuple[str, ...]) -> list[Passage]:
    """Returns made-up pages of about ``size`` characters together, without naming some things."""
    pages: list[Passage] = []
    while size > 200:
        page = make_page(rng, rng.randint(3, 12), split=split)
        if not page.text.strip() or _shares(page, without):
            continue
        pages.append((page.title, page.text))
        size -= len(page.text)
    return pages


def _shares(page: Page, names: tuple[str, ...]) -> bool:
    text = f"{page.title}\n{page.text}".casefold()
    return any(_core(name) in text for name in names)


def _core(name: str) -> str:
    low = name.casefold()
    return low.removeprefix("the ")
