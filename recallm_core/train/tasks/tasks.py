"""The mixture that a mini learns from: every step's examples follow from the seed alone."""

from __future__ import annotations

import random
import re
import string
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from recallm_core.evidence.sentence_scorer import sentence_prior
from recallm_core.text.lexical import sentences
from recallm_core.train.tasks import facts
from recallm_core.train.tasks.clauses import make_clause
from recallm_core.train.tasks.cloze import Cloze, ask_in_place, make_cloze
from recallm_core.train.tasks.datasets import Fact, Pool
from recallm_core.train.tasks.sides import sides, wholes
from recallm_core.train.tasks.templates import make_page, two_hop
from recallm_core.train.tasks.traces import Example

Passage = tuple[str, str]
_TITLES = ("", "", "", "README", "notes.md", "Document", "page 2", "report.txt", "Untitled")


@dataclass(frozen=True, slots=True)
class Size:
    """How large the examples of one step are.

    Attributes:
        name: ``tiny``, ``short``, ``paragraph``, ``several`` or ``long``.
        sentences: About how many sentences surround the evidence.
        passages: Most passages of an example.
    """

    name: str
    sentences: int
    passages: int


SIZES = {
    "tiny": Size("tiny", 1, 1),
    "short": Size("short", 3, 2),
    "paragraph": Size("paragraph", 8, 2),
    "several": Size("several", 12, 5),
    "long": Size("long", 30, 12),
}


class Mixture:
    """Draws examples: real questions, made-up pages, clozes, look-ups and two hops.

    Args:
        pool: What was read from the data folder; None for generated tasks alone.
        weights: Share of each task by name: fact, page, cloze, in_place, clauses, missing, absent,
            lookup, two_hop, chains, hops, sides, wholes.
    """

    def __init__(self, pool: Pool | None, weights: dict[str, float]) -> None:
        self.pool = pool
        makers: dict[str, Callable[[random.Random, Size], Example | None]] = {
            "fact": self.fact,
            "page": self.page,
            "cloze": lambda rng, size: self.cloze(rng, size, make_cloze),
            "in_place": lambda rng, size: self.cloze(rng, size, ask_in_place),
            "clauses": lambda rng, size: self.cloze(rng, size, make_clause),
            "missing": self.missing,
            "absent": absent,
            "lookup": lookup,
            "two_hop": lambda rng, size: two_hop(rng, size.sentences > 1),
            "chains": chains,
            "hops": self.hops,
            "sides": lambda rng, size: sides(rng, size.sentences),
            "wholes": lambda rng, size: wholes(rng, size.sentences),
        }
        unknown = sorted(set(weights) - set(makers))
        if unknown:
            raise ValueError(f"unknown tasks {unknown}; known are {sorted(makers)}")
        needs_pool = {"fact", "cloze", "in_place", "clauses", "hops"}
        usable = {k: v for k, v in weights.items() if pool is not None or k not in needs_pool}
        self._names = sorted(usable)
        self._weights = [usable[name] for name in self._names]
        self._makers = makers

    def draw(self, rng: random.Random, size: Size) -> Example:
        """Returns one example of about the given size."""
        while True:
            name = rng.choices(self._names, self._weights)[0]
            example = self._makers[name](rng, size)
            if example is not None:
                return example

    def fact(self, rng: random.Random, size: Size) -> Example | None:
        """Returns a real question over a part of its passage, at times with its answer swapped."""
        assert self.pool is not None
        fact = rng.choice(self.pool.facts)
        if rng.random() < 0.25:
            fact = self.swap_answer(fact, rng)
        return self.lay_out(fact, rng, size)

    def lay_out(self, fact: Fact, rng: random.Random, size: Size) -> Example | None:
        """Lays a fact out in a window of its passage, among distractors."""
        units = sentences(fact.text)
        end = fact.start + len(fact.answer)
        holding = [i for i, (a, b) in enumerate(units) if a <= fact.start and end <= b]
        if not holding:
            return None
        keep = size.sentences if size.name in ("tiny", "short") else len(units)
        low = max(0, holding[0] - rng.randint(0, max(0, keep - 1)))
        window = units[low : low + max(keep, holding[0] - low + 1)]
        text, spans = _relaid(fact.text, window, rng)
        a, b = spans[holding[0] - low]
        at = a + fact.start - units[holding[0]][0]
        passages = [(fact.title if rng.random() < 0.7 else rng.choice(_TITLES), text)]
        index = self._distract(passages, rng, size, fact.answer)
        return Example(
            tuple(passages),
            fact.question,
            ((index, a, b),),
            (index, at, at + len(fact.answer)),
            "fact",
        )

    def swap_answer(self, fact: Fact, rng: random.Random) -> Fact:
        """Puts another answer of the same shape in place of the answer, everywhere."""
        assert self.pool is not None
        shape = answer_shape(fact.answer)
        for _ in range(20):
            other = rng.choice(self.pool.facts).answer
            if answer_shape(other) == shape and other not in fact.text:
                before = fact.text[: fact.start].replace(fact.answer, other)
                after = fact.text[fact.start :].replace(fact.answer, other)
                return Fact(fact.title, before + after, fact.question, other, len(before))
        return fact

    def _distract(
        self, passages: list[Passage], rng: random.Random, size: Size, answer: str
    ) -> int:
        """Adds passages without the answer around the first one; returns its new place."""
        count = rng.randint(0, size.passages - 1)
        if size.name == "short" and rng.random() < 0.6:
            count = 0
        others: list[Passage] = []
        while len(others) < count:
            title, text = self.plain(rng)
            if answer not in text:
                cut = sentences(text)[: max(2, size.sentences // 2)]
                others.append((title, text[cut[0][0] : cut[-1][1]] if cut else text))
        place = rng.randint(0, len(others))
        passages[:] = [*others[:place], passages[0], *others[place:]]
        return place

    def plain(self, rng: random.Random) -> Passage:
        """Returns some passage, real or made up."""
        if self.pool is not None and rng.random() < 0.7:
            title, text = rng.choice(self.pool.passages)
            return (title if rng.random() < 0.8 else "", text[:3000])
        page = make_page(rng, rng.randint(2, 6))
        return page.title, page.text

    def page(self, rng: random.Random, size: Size) -> Example | None:
        """Returns a question over a generated page."""
        lines = {"tiny": 1, "short": rng.randint(2, 4)}.get(size.name, rng.randint(3, 10))
        page = make_page(rng, lines)
        if not page.facts:
            return None
        question, a, b, start, end = rng.choice(page.facts)
        passages = [(page.title, page.text)]
        index = self._distract(passages, rng, size, page.text[start:end])
        return Example(tuple(passages), question, ((index, a, b),), (index, start, end), "page")

    def cloze(
        self,
        rng: random.Random,
        size: Size,
        ask: Callable[[str, random.Random], Cloze | None],
    ) -> Example | None:
        """Returns a rough question made from a sentence of a plain passage."""
        assert self.pool is not None
        title, text = rng.choice(self.pool.passages)
        units = sentences(text[:2500])
        if not units:
            return None
        number = rng.randrange(len(units))
        question = ask(text[units[number][0] : units[number][1]], rng)
        if question is None:
            return None
        start = units[number][0] + question.start
        fact = Fact(
            title,
            text[:2500],
            question.question,
            text[start : start + question.end - question.start],
            start,
        )
        example = self.lay_out(fact, rng, size)
        if example is None:
            return None
        return Example(
            example.passages, example.question, example.evidence, example.answer, "cloze"
        )

    def missing(self, rng: random.Random, size: Size) -> Example | None:
        """Returns a question that its passages don't answer; the likeliest sentence is recalled."""
        kind = rng.random()
        if self.pool is not None and kind < 0.12:
            fact = rng.choice(self.pool.missing)
            units = sentences(fact.text)
            keep = size.sentences if size.name in ("tiny", "short") else len(units)
            best = _likeliest(fact.question, [fact.text])
            low = max(0, units.index(best[1:]) - rng.randint(0, max(0, keep - 1)))
            text, _ = _relaid(fact.text, units[low : low + keep], rng)
            passages, question = [(fact.title, text)], fact.question
        elif kind < 0.5:  # a question about something else altogether
            source = self.page if self.pool is None or rng.random() < 0.6 else self.fact
            example, other = source(rng, size), source(rng, size)
            if example is None or other is None or example.question == other.question:
                return None
            passages, question = list(other.passages), example.question
        else:
            source = self.page if self.pool is None or rng.random() < 0.75 else self.fact
            example = source(rng, size)
            if example is None or len(example.evidence) != 1:
                return None
            passages, question = _without_evidence(example), example.question
        if not any(text.strip() for _, text in passages):
            return None
        best = _likeliest(question, [text for _, text in passages], [t for t, _ in passages])
        return Example(tuple(passages), question, (best,), None, "missing")

    def hops(self, rng: random.Random, size: Size) -> Example | None:
        """Returns a real question over two sentences, with as many distractors as fit."""
        assert self.pool is not None
        hop = rng.choice(self.pool.hops)
        gold = sorted({p for p, _, _ in hop.evidence})
        others = [i for i in range(len(hop.passages)) if i not in gold]
        order = gold + rng.sample(others, min(len(others), size.passages - 1))
        rng.shuffle(order)
        moved = {old: new for new, old in enumerate(order)}
        return Example(
            tuple(hop.passages[i] for i in order),
            hop.question,
            tuple((moved[p], a, b) for p, a, b in hop.evidence),
            (moved[hop.answer[0]], hop.answer[1], hop.answer[2]),
            "hops",
        )


def answer_shape(answer: str) -> str:
    """Returns the kind of an answer: digits as 9, words as A or a, so that 1867 is like 1954."""
    shape = re.sub(r"\d+", "9", answer)
    shape = re.sub(r"[^\W\d_]+", lambda m: "A" if m.group()[0].isupper() else "a", shape)
    return re.sub(r"a(?: a)+", "a", shape)


def _relaid(
    text: str, window: list[tuple[int, int]], rng: random.Random
) -> tuple[str, list[tuple[int, int]]]:
    """Returns the text of some sentences, at times one a line or in a list, and their new spans."""
    style = rng.random()
    if style < 0.6 or len(window) == 1:
        low, high = window[0][0], window[-1][1]
        return text[low:high], [(a - low, b - low) for a, b in window]
    between = "\n" if style < 0.85 else "\n\n"
    out, spans = "", []
    if rng.random() < 0.3:
        out = rng.choice(("# Notes\n\n", "## Overview\n", "Summary:\n"))
    for number, (a, b) in enumerate(window):
        out += between if number else ""
        spans.append((len(out), len(out) + b - a))
        out += text[a:b]
    return out, spans


def _likeliest(
    question: str, texts: list[str], titles: list[str] | None = None
) -> tuple[int, int, int]:
    prior = sentence_prior(question, texts, titles)
    best = max((log, -n, -a, b) for n, row in enumerate(prior) for a, b, log in row)
    return (-best[1], -best[2], best[3])


def _without_evidence(example: Example) -> list[Passage]:
    """Returns the passages with the evidence cut out."""
    passage, start, end = example.evidence[0]
    passages = list(example.passages)
    title, text = passages[passage]
    passages[passage] = (title, (text[:start].rstrip() + "\n" + text[end:].lstrip()).strip())
    return passages


_CHARACTERS = {"tiny": 60, "short": 250, "paragraph": 700, "several": 1600, "long": 4000}


def chains(rng: random.Random, size: Size) -> Example:
    """Returns a question over two sentences, among others that say the same of other things."""
    count = rng.randint(2, 3 if size.name in ("tiny", "short") else 5)
    return facts.two_hop(rng, size=_CHARACTERS[size.name], chains=count).example()


def absent(rng: random.Random, size: Size) -> Example:
    """Returns a question about a thing that no page names, though pages are about its kind."""
    return facts.absent(rng, size=_CHARACTERS[size.name]).example()


def lookup(rng: random.Random, size: Size) -> Example:
    """Returns a key to look up among keys and values, as lines, JSON or CSV."""
    top = {"tiny": 2, "short": 5, "paragraph": 12, "several": 24, "long": 40}[size.name]
    pairs = {_code(rng): _code(rng) for _ in range(rng.randint(1, top))}
    key = rng.choice(sorted(pairs))
    shape = rng.choice(("{}: {}", '"{}": "{}",', "{},{}", "{} = {}", "{}\t{}"))
    text, evidence, answer = "", (0, 0, 0), (0, 0, 0)
    for name, value in pairs.items():
        line = shape.format(name, value)
        at = line.rindex(value)
        if name == key:
            evidence = (0, len(text), len(text) + len(line))
            answer = (0, len(text) + at, len(text) + at + len(value))
        text += line + "\n"
    question = rng.choice(
        ("What is the value of {}?", "{}", "Look up {}.", "Which value belongs to {}?")
    )
    return Example((("", text),), question.format(key), (evidence,), answer, "lookup")


def _code(rng: random.Random) -> str:
    style = rng.random()
    if style < 0.35:
        return str(uuid.UUID(int=rng.getrandbits(128)))
    if style < 0.5:
        return (
            "".join(rng.choices("0123456789abcdef", k=8))
            + "-"
            + "".join(rng.choices("0123456789abcdef", k=4))
        )
    if style < 0.7:
        return "".join(rng.choices(string.ascii_lowercase, k=rng.randint(3, 8)))
    return str(rng.randint(10, 99999))
