"""Rows that the evidence reader learns from: a question beside one window, and what is right."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tokenizers import Tokenizer

from recallm_core.evidence.reader_windows import RowMaker, Window, cut
from recallm_core.text.lexical import BM25, sentences, terms
from recallm_core.train.tasks.datasets import Fact, Pool
from recallm_core.train.tasks.reworded import Thesaurus, names_in, rename, shorten
from recallm_core.train.tasks.tasks import SIZES, Mixture
from recallm_core.train.tasks.traces import Example

TASKS = {
    "page": 0.17,
    "cloze": 0.06,
    "in_place": 0.16,
    "clauses": 0.12,
    "missing": 0.07,
    "absent": 0.06,
    "lookup": 0.06,
    "two_hop": 0.03,
    "chains": 0.17,
    "hops": 0.05,
    "sides": 0.03,
    "wholes": 0.02,
}
REAL = 0.72  # share of real questions; the rest comes from TASKS
SEARCHED = 0.5  # share of these that are drawn from those typed as into a search box alone
MISSING = 0.16  # share of real questions that their passage doesn't answer
RENAMED = 0.3  # share of these that were answerable until a name in them was changed
REWORDED = 0.3  # share of all questions, but for look-ups, that are asked in other words
SHORTENED = 0.15  # share of real questions that lack small words
SWAPPED = 0.2  # share of the others whose answer another one of its shape took the place of
TOLD = 0.12  # share of single facts that are asked again after their evidence was recalled
AMID = 0.2  # share of real passages that are read as a part of a longer page
ELSEWHERE = 0.2  # how often another window of a long passage is read, too
NEAR = (
    0.5,
    0.4,
    0.1,
)  # how often none, one and two other passages are read, too
SIZE_WEIGHTS = {"short": 0.35, "paragraph": 0.45, "several": 0.2}
BATCH_TOKENS = 3072
POOL_ROWS = 320
LONGEST_ROW = 400
_CHARACTERS = 6000  # of a passage that are cut into windows


@dataclass(frozen=True, slots=True)
class Row:
    """One window beside its question, and what is right about it.

    Attributes:
        ids: What the encoder reads.
        kinds: Its token types.
        heads: First token of each sentence.
        start: The answer's first token; 0, the row's first, where it isn't here; -1: not asked.
        end: Its last token, likewise.
        evidence: Which of ``heads`` holds the evidence; -1 where none does.
    """

    ids: list[int]
    kinds: list[int]
    heads: tuple[int, ...]
    start: int
    end: int
    evidence: int


class RowSource:
    """Draws rows: real questions among hard distractors, and what the generators make.

    Args:
        pool: What was read from the data folder; None for generated tasks alone.
        tokenizer: The reader's.
    """

    def __init__(self, pool: Pool | None, tokenizer: Tokenizer) -> None:
        self._pool = pool
        self._maker = RowMaker(tokenizer)
        self._tokenizer = tokenizer
        self._mixture = Mixture(pool, TASKS)
        self._near = None if pool is None else NearPassages(pool)
        facts = () if pool is None else pool.facts
        self._searched = [fact for fact in facts if fact.is_searched] or facts
        self._names = names_in(f.text for f in facts)
        self._thesaurus = Thesaurus(() if pool is None else (text for _, text in pool.passages))

    def draw(self, rng: random.Random) -> Iterator[Row]:
        """Yields the rows of one question."""
        if self._pool is None or rng.random() > REAL:
            size = rng.choices(list(SIZE_WEIGHTS), list(SIZE_WEIGHTS.values()))[0]
            example = self._mixture.draw(rng, SIZES[size])
            if example.task != "lookup":
                example = replace(example, question=self._reword(example.question, rng))
            yield from self.of_example(example, rng)
        elif rng.random() < MISSING:
            yield from self._missing(self._pool, rng)
        else:
            is_searched = rng.random() < SEARCHED
            fact = rng.choice(self._searched if is_searched else self._pool.facts)
            if rng.random() < SWAPPED:
                fact = self._mixture.swap_answer(fact, rng)
            yield from self.of_fact(fact, rng, self._ask(fact.question, rng))

    def _missing(self, pool: Pool, rng: random.Random) -> Iterator[Row]:
        """Yields the rows of a question that its passage doesn't answer."""
        if rng.random() < RENAMED:
            fact = rng.choice(pool.facts)
            other = rename(fact, self._names, rng)
            if other is not None:
                other = replace(other, question=self._ask(other.question, rng))
                windows = self._windows(fact.text, 0)
                near = [w for w in windows if _holds(w, fact.start, fact.start + len(fact.answer))]
                yield from self._rows(near[:1], [fact.title], other)
                return
        fact = rng.choice(pool.missing)
        yield from self.of_fact(fact, rng, self._ask(fact.question, rng))

    def _reword(self, question: str, rng: random.Random) -> str:
        is_kept = rng.random() > REWORDED
        return question if is_kept else self._thesaurus.reword(question, rng)

    def _ask(self, question: str, rng: random.Random) -> str:
        """A real question, at times in other words or in fewer."""
        question = self._reword(question, rng)
        return shorten(question, rng) if rng.random() < SHORTENED else question

    def of_fact(self, fact: Fact, rng: random.Random, question: str | None = None) -> Iterator[Row]:
        """Yields the window with the answer, and at times one of its passage, and of others.

        Args:
            fact: The question and its passage.
            rng: The choices follow from it.
            question: The question in other words; None: as it is.
        """
        near = self._near_ones(fact, rng)
        asked = fact if question is None else replace(fact, question=question)
        if near and rng.random() < AMID:
            asked = amid(asked, [text for _, text in near], rng)
        windows = self._windows(asked.text, 0)
        title = asked.title if rng.random() < 0.85 else None
        stop = asked.start + len(asked.answer)
        good = [w for w in windows if _holds(w, asked.start, stop)]
        picked = good[:1] if asked.start >= 0 else [rng.choice(windows)] if windows else []
        others = [w for w in windows if not _shows(w, asked)]
        if asked.start >= 0 and others and rng.random() < ELSEWHERE:
            picked.append(rng.choice(others))
        recalled = [_evidence(asked)] if asked.start >= 0 and rng.random() < TOLD else []
        yield from self._rows(picked, [title], asked, recalled)
        for name, text in near[: rng.choices((0, 1, 2), NEAR)[0]]:
            other = Fact(name, text, asked.question, "", -1)
            other_windows = self._windows(text, 0)
            if other_windows:
                yield from self._rows([rng.choice(other_windows)], [name], other)

    def _near_ones(self, fact: Fact, rng: random.Random) -> list[tuple[str, str]]:
        """Some passages that share words with a question and don't hold its answer, shuffled."""
        if self._near is None:
            return []
        low = fact.answer.casefold()
        near = [p for p in self._near.of(fact) if not low or low not in p[1].casefold()]
        rng.shuffle(near)
        return near

    def of_example(self, example: Example, rng: random.Random) -> Iterator[Row]:
        """Yields each hop's window with the evidence, and one without."""
        windows = [
            w for n, (_, text) in enumerate(example.passages) for w in self._windows(text, n)
        ]
        titles = [title for title, _ in example.passages]
        recalled: list[str] = []
        hops: Sequence[tuple[int, int, int] | None] = example.evidence or (None,)
        if example.answer is None:
            hops = (None,)
        elif len(hops) == 1 and rng.random() < TOLD:
            recalled.append(_quote_of(example, example.evidence[0]))
        for number, hop in enumerate(hops):
            is_last = number == len(hops) - 1
            yield from self._hop(example, windows, titles, hop, recalled, is_last, rng)
            if hop is not None:
                recalled.append(_quote_of(example, hop))

    def _hop(
        self,
        example: Example,
        windows: list[Window],
        titles: list[str],
        hop: tuple[int, int, int] | None,
        recalled: list[str],
        is_last: bool,
        rng: random.Random,
    ) -> Iterator[Row]:
        good = [
            w
            for w in windows
            if hop is not None and w.passage == hop[0] and _holds(w, hop[1], hop[2])
        ]
        others = [w for w in windows if w not in good]
        picked = good[:1]
        often = 0.4 if len(example.evidence) < 2 else 0.8
        if others and (not picked or rng.random() < often):
            picked.append(rng.choice(others))
        encoded = self._maker.rows(example.question, picked, titles, recalled)
        for n, window in enumerate(picked):
            begin = encoded.begins[n]
            is_good = n == 0 and bool(good)
            start = end = 0
            if is_good and is_last and example.answer is not None:
                start, end = _token_range(window, *example.answer[1:])
                start, end = start + begin, end + begin
            elif is_good:
                start = end = -1
            evidence = _sentence(window, hop[1]) if is_good and hop is not None else -1
            heads = tuple(h + begin for h in window.heads)
            yield Row(encoded.ids[n], encoded.kinds[n], heads, start, end, evidence)

    def _windows(self, text: str, passage: int) -> list[Window]:
        return cut(text[:_CHARACTERS], passage, self._tokenizer)

    def _rows(
        self,
        windows: list[Window],
        titles: list[str | None],
        fact: Fact,
        recalled: Sequence[str] = (),
    ) -> Iterator[Row]:
        encoded = self._maker.rows(fact.question, windows, titles, recalled)
        for n, window in enumerate(windows):
            begin, start, end, evidence = encoded.begins[n], 0, 0, -1
            stop = fact.start + len(fact.answer)
            if fact.start >= 0 and _holds(window, fact.start, stop):
                start, end = _token_range(window, fact.start, stop)
                start, end = start + begin, end + begin
                evidence = _sentence(window, fact.start)
            heads = tuple(h + begin for h in window.heads)
            yield Row(encoded.ids[n], encoded.kinds[n], heads, start, end, evidence)


def _quote_of(example: Example, span: tuple[int, int, int]) -> str:
    return example.passages[span[0]][1][span[1] : span[2]]


def _evidence(fact: Fact) -> str:
    """The sentence that a fact's answer begins in."""
    units = sentences(fact.text)
    return next((fact.text[a:b] for a, b in units if a <= fact.start < b), fact.answer)


def _holds(window: Window, start: int, end: int) -> bool:
    return start >= 0 and bool(window.starts[0] <= start and end <= window.ends[-1])


def _shows(window: Window, fact: Fact) -> bool:
    """Whether a window holds some of a fact's answer, or the same words elsewhere."""
    low, high = int(window.starts[0]), int(window.ends[-1])
    is_near = low < fact.start + len(fact.answer) and fact.start < high
    return is_near or fact.answer.casefold() in fact.text[low:high].casefold()


def _token_range(window: Window, start: int, end: int) -> tuple[int, int]:
    first = int(np.searchsorted(window.ends, start, side="right"))
    last = int(np.searchsorted(window.starts, end, side="left")) - 1
    return first, max(first, last)


def _sentence(window: Window, start: int) -> int:
    token = int(np.searchsorted(window.ends, start, side="right"))
    return max(0, int(np.searchsorted(window.heads, token, side="right")) - 1)


def amid(fact: Fact, texts: Sequence[str], rng: random.Random) -> Fact:
    """Returns a fact whose passage stands in a longer page: other passages before and after it.

    Args:
        fact: The question and its passage.
        texts: What the others are taken from; none holds the answer.
        rng: The choices follow from it.
    """
    pieces = [_piece(text, rng) for text in texts[:2]]
    place = rng.randint(0, len(pieces))
    between = rng.choice(("\n\n", "\n\n", "\n", " "))
    before = "".join(piece + between for piece in pieces[:place])
    after = "".join(between + piece for piece in pieces[place:])
    start = fact.start + len(before) if fact.start >= 0 else -1
    return replace(fact, text=before + fact.text + after, start=start)


def _piece(text: str, rng: random.Random) -> str:
    """A few sentences of a passage, from anywhere in it."""
    units = sentences(text[:_CHARACTERS])
    if not units:
        return ""
    first = rng.randrange(len(units))
    last = min(first + rng.randint(0, 4), len(units) - 1)
    return text[units[first][0] : units[last][1]]


class NearPassages:
    """For each real question, passages of others that share its words and don't answer it.

    A passage that another fact asks the question about, or that holds an answer of one, does answer
    it: a fact whose answer was swapped has its first passage nearest of all.

    Args:
        pool: Its passages, and those of its facts, are the others.
        count: How many are kept of a question, at most.
    """

    def __init__(self, pool: Pool, count: int = 8) -> None:
        facts = (*pool.facts, *pool.missing)
        self._passages = list(dict.fromkeys((*pool.passages, *((f.title, f.text) for f in facts))))
        self._index = BM25([terms(f"{title} {text[:1200]}") for title, text in self._passages])
        self._count = count
        self._asked: dict[str, list[Fact]] = {}
        for fact in facts:
            self._asked.setdefault(fact.question, []).append(fact)
        self._numbers: dict[str, tuple[int, ...]] = {}

    def of(self, fact: Fact) -> list[tuple[str, str]]:
        """Returns title and text of each passage near a question, without those that answer it."""
        if fact.question not in self._numbers:
            self._numbers[fact.question] = tuple(self._find(fact.question))
        return [self._passages[n] for n in self._numbers[fact.question]]

    def _find(self, question: str) -> list[int]:
        asked = self._asked.get(question)
        if asked is None:
            return []
        scores = self._index.scores(terms(question))
        best = np.argpartition(-scores, min(2 * self._count, len(scores) - 1))[: 2 * self._count]
        ranked = best[np.argsort(-scores[best])]
        others = [int(n) for n in ranked if not _answers(self._passages[n][1], asked)]
        return others[: self._count]


def _answers(text: str, asked: Sequence[Fact]) -> bool:
    """Whether a passage is one of a question's own, or holds an answer to it."""
    low = text.casefold()
    return any(
        text == fact.text or (fact.answer and fact.answer.casefold() in low) for fact in asked
    )


def batches(source: RowSource, rng: random.Random) -> list[list[Row]]:
    """Returns some batches of rows of like length."""
    rows: list[Row] = []
    while len(rows) < POOL_ROWS:
        rows.extend(row for row in source.draw(rng) if len(row.ids) <= LONGEST_ROW)
    rows.sort(key=lambda row: len(row.ids))
    groups: list[list[Row]] = [[]]
    for row in rows:
        if len(row.ids) * (len(groups[-1]) + 1) > BATCH_TOKENS and groups[-1]:
            groups.append([])
        groups[-1].append(row)
    rng.shuffle(groups)
    return groups
