"""Evidence for words that no quote supports: what the passages hold of an answer's sentences.

Plain words, no model. For each sentence of the answer, in this order:

1. The sentence as it stands, four words or more, if a passage holds it at word boundaries.
2. The same folded (``text.folding``): across case, line breaks, ligatures and typography.
3. The sentence of the passages, or two neighbouring ones, that shares most of what matters: content
   words weighted by how rare they are in the passages. The question's words count as well, for a
   little; so "80" alone finds the sentence that speaks of what was asked.

What was recalled for the answer goes first: a sentence that stands in it, as it is or folded, is
cited there, however short it is, and of sentences that share equally much one that was recalled.

What shares words isn't evidence yet. It has to hold a word that the answer adds to the question,
two of the words that matter if the answer adds as many (one alone is there by chance), every number
of the answer's sentence, and every name in it that neither the question nor the passage's title or
the sentence before holds; and one mustn't deny what the other says. Nothing is cited below
``THRESHOLD``, which ``benchmarks/matching.py`` measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from recallm_core.answers.answer import Citation
from recallm_core.answers.attribution import cite
from recallm_core.answers.hops import names
from recallm_core.documents.document import Document, Location, Passage
from recallm_core.text.boundaries import amid_phrases, word_boundaries
from recallm_core.text.folding import FoldedText, fold
from recallm_core.text.lexical import BM25, sentences, terms
from recallm_core.text.places import find_all

THRESHOLD = 0.5
QUESTION_WEIGHT = 0.2
TITLE_WEIGHT = 0.5  # a word that only the passage's title holds
_SECOND = 0.15  # what a neighbouring sentence has to add to be cited with one
_CANDIDATES = 12
_LEAST = 2  # of the content words of the answer and the question, where the answer adds as many
_RUN = 4  # words; fewer stand in too many places
_WINDOW = 64  # characters around a place in which its word boundaries are told

_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
_NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate(
        """
        zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
        fifteen sixteen seventeen eighteen nineteen twenty
        """.split()  # noqa: SIM905
    )
}
_UNSPACED_NEGATIONS = re.compile(
    r"\u6ca1\u6709?|\u6c92\u6709?|[\u4e0d\u672a\u65e0\u7121](?![\u4ec5\u50c5\u8bba\u8ad6\u4e45\u540c\u65ad\u65b7\u5c11\u6599])|\u5e76\u975e|\u7981\u6b62"
    r"|\u306a(?:\u3044|\u304b\u3063\u305f|\u3044\u3067)|\u307e\u305b\u3093|\u0e44\u0e21\u0e48|\u1798\u17b7\u1793"
)
_LETTERS = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_NEGATIONS = frozenset(
    """
    not no never neither nor none nobody nothing without cannot
    nicht kein keine keinen keiner keinem keines nie niemals nunca jamais jam\u00e1s n\u00e3o
    """.split()  # noqa: SIM905
)

Range = tuple[int, int]
Spot = tuple[int, int, int]
"""The number of a passage, and a range of it."""


@dataclass(frozen=True, slots=True)
class _Target:
    """What evidence for a sentence has to hold."""

    weights: Mapping[str, float]  # of its content words and the question's
    added: frozenset[str]  # content words that the question doesn't hold
    names: frozenset[str]
    numbers: frozenset[str]
    denies: bool


@dataclass(frozen=True, slots=True)
class _Sentence:
    """A sentence of a passage."""

    passage: int
    start: int
    end: int
    words: frozenset[str]

    @property
    def spot(self) -> Spot:
        return self.passage, self.start, self.end


class Matcher:
    """Finds what passages hold of the sentences of answers.

    Args:
        passages: What the model was given.
        documents: Their texts by id.
        question: What was asked.
        threshold: How much of what matters evidence has to share, 0 to 1.
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        documents: Mapping[str, Document],
        *,
        question: str = "",
        threshold: float = THRESHOLD,
    ) -> None:
        self._passages = passages
        self._documents = documents
        self._asked = frozenset(terms(question))
        self._threshold = threshold

    def match(
        self, answer: str, *, covered: Iterable[Range] = (), recalled: Sequence[Spot] = ()
    ) -> tuple[Citation, ...]:
        """Returns citations, ``basis="matched"``, of an answer's sentences; at most one for each.

        Args:
            answer: Any text.
            covered: Ranges that are cited already; sentences that overlap them are left out.
            recalled: What was recalled for the answer; of several that hold a sentence, the first.

        Raises:
            CitationError: A passage isn't the slice of its document that it claims to be.
        """
        known = list(covered)
        citations = []
        for start, end in sentences(answer):
            if any(start < b and a < end for a, b in known):
                continue
            place = self._place_of(answer[start:end], recalled)
            if place is not None:
                citations.append(self._cite(*place, supports=(start, end)))
        return tuple(citations)

    def _place_of(self, sentence: str, recalled: Sequence[Spot]) -> Spot | None:
        inside = self._recalled_run(sentence, recalled)
        return inside or self._run(sentence) or self._likest(sentence, recalled)

    def _cite(self, number: int, start: int, end: int, *, supports: Range) -> Citation:
        passage = self._passages[number]
        return cite(
            Location(passage.document_id, passage.start + start, passage.start + end),
            number,
            self._passages,
            self._documents,
            text=passage.text[start:end],
            supports=supports,
            basis="matched",
        )

    # runs

    def _recalled_run(self, sentence: str, recalled: Sequence[Spot]) -> Spot | None:
        """Where what was recalled holds a sentence as it stands, else folded."""
        core = _core(sentence)
        if not recalled or not terms(core):
            return None
        for find in (self._exact, self._alike):
            inside = [place for place in find(core) if _rank(place, recalled) < len(recalled)]
            whole_words = [place for place in inside if self._whole_words(*place)]
            if whole_words:
                return min(whole_words, key=lambda place: _rank(place, recalled))
        return None

    def _run(self, sentence: str) -> Spot | None:
        """Where the passages hold a sentence as it stands, else folded; the likeliest place."""
        core = _core(sentence)
        if _count_words(core) < _RUN or not terms(core):
            return None
        for places in (self._exact(core), self._alike(core)):
            whole_words = [place for place in places if self._whole_words(*place)]
            if whole_words:
                return max(whole_words, key=self._nearness)
        return None

    def _exact(self, core: str) -> Iterator[Spot]:
        for number, passage in enumerate(self._passages):
            for at in find_all(core, passage.text):
                yield number, at, at + len(core)

    def _alike(self, core: str) -> Iterator[Spot]:
        for number, folded in enumerate(self._folded_passages):
            for start, end in folded.find(core):
                yield number, start, end

    def _whole_words(self, number: int, start: int, end: int) -> bool:
        text = self._passages[number].text
        low, high = max(0, start - _WINDOW), min(len(text), end + _WINDOW)
        edges = word_boundaries(text[low:high]) & ~amid_phrases(text[low:high])
        return bool(edges[start - low] and edges[end - low])

    def _nearness(self, place: Spot) -> float:
        """How well what stands around a place fits the question."""
        number, start, end = place
        context = self._passages[number].text[max(0, start - 300) : end + 300]
        words = self._titles[number].union(terms(context))
        return sum(self._index.idf(word) for word in self._asked & words)

    # sentences

    def _likest(self, sentence: str, recalled: Sequence[Spot]) -> Spot | None:
        """The sentence or two of a passage that share most with one, if that is enough."""
        target = self._target_of(sentence)
        whole = sum(target.weights.values())
        if not target.added or not self._sentences:
            return None
        best, place = self._threshold, None
        for row in self._nearest(target, recalled):
            alone = self._share((row,), target) / whole
            for rows in ((row,), (row, row + 1), (row - 1, row)):
                score = alone if len(rows) == 1 else self._together(rows, target, alone, whole)
                if score >= best and score > 0 and self._agrees(rows, target):
                    best = np.nextafter(score, 2)  # of equals, the first
                    first, last = self._sentences[rows[0]], self._sentences[rows[-1]]
                    place = (first.passage, first.start, last.end)
        return place

    def _target_of(self, sentence: str) -> _Target:
        own_words = frozenset(terms(sentence))
        weights = {word: self._index.idf(word) for word in own_words - _spelled_numbers()}
        for word in self._asked - own_words:
            weights[word] = QUESTION_WEIGHT * self._index.idf(word)
        return _Target(
            weights,
            own_words - self._asked,
            names(sentence) - self._asked,
            _numbers(sentence),
            denies(sentence),
        )

    def _nearest(self, target: _Target, recalled: Sequence[Spot]) -> list[int]:
        """The sentences that share most, the best first; of equals, those that were recalled."""
        scores = np.zeros(len(self._sentences))
        for word, weight in target.weights.items():
            scores[self._rows.get(word, [])] += weight
        ranks = np.array([_rank(sentence.spot, recalled) for sentence in self._sentences])
        best = np.lexsort((ranks, -scores))[:_CANDIDATES]
        return [int(row) for row in best if scores[row] > 0]

    def _together(
        self, rows: tuple[int, int], target: _Target, alone: float, whole: float
    ) -> float:
        """What two neighbours share, if the second adds enough; less than nothing otherwise."""
        one, other = rows
        if one < 0 or other >= len(self._sentences):
            return -1
        if self._sentences[one].passage != self._sentences[other].passage:
            return -1
        score = self._share(rows, target) / whole
        return score - _SECOND if score >= alone + _SECOND else -1

    def _share(self, rows: Sequence[int], target: _Target) -> float:
        words = frozenset[str]().union(*(self._sentences[row].words for row in rows))
        titles = self._titles[self._sentences[rows[0]].passage] - words
        in_text = sum(weight for word, weight in target.weights.items() if word in words)
        in_title = sum(weight for word, weight in target.weights.items() if word in titles)
        return in_text + TITLE_WEIGHT * in_title

    def _agrees(self, rows: Sequence[int], target: _Target) -> bool:
        """Whether sentences hold the numbers and names of another, and deny as much."""
        first, last = self._sentences[rows[0]], self._sentences[rows[-1]]
        text = self._passages[first.passage].text[first.start : last.end]
        words = first.words | last.words
        if not target.added & words or not target.numbers <= _numbers(text):
            return False
        titles = self._titles[first.passage]
        telling = target.weights.keys()
        if len(telling & (words | titles)) < min(_LEAST, len(telling & target.added)):
            return False
        nearby = words | titles | self._before(rows[0])
        return target.names <= nearby and target.denies == denies(text)

    def _before(self, row: int) -> frozenset[str]:
        """The words of the sentence before, where names are that "it" and "she" stand for."""
        same = row > 0 and self._sentences[row - 1].passage == self._sentences[row].passage
        return self._sentences[row - 1].words if same else frozenset()

    # the passages, taken apart when they are first needed

    @cached_property
    def _sentences(self) -> list[_Sentence]:
        return [
            _Sentence(number, start, end, frozenset(terms(passage.text[start:end])))
            for number, passage in enumerate(self._passages)
            for start, end in sentences(passage.text)
        ]

    @cached_property
    def _rows(self) -> dict[str, list[int]]:
        rows: dict[str, list[int]] = {}
        for row, sentence in enumerate(self._sentences):
            for word in sentence.words:
                rows.setdefault(word, []).append(row)
        return rows

    @cached_property
    def _index(self) -> BM25:
        return BM25([sentence.words for sentence in self._sentences])

    @cached_property
    def _titles(self) -> list[frozenset[str]]:
        return [frozenset(terms(passage.title or "")) for passage in self._passages]

    @cached_property
    def _folded_passages(self) -> list[FoldedText]:
        return [fold(passage.text) for passage in self._passages]


@cache
def _spelled_numbers() -> frozenset[str]:
    """The terms of numbers in words: they agree by value, and "14" holds "fourteen"."""
    return frozenset(terms(" ".join(_NUMBER_WORDS)))


def _within(spot: Spot, other: Spot) -> bool:
    return spot[0] == other[0] and other[1] <= spot[1] and spot[2] <= other[2]


def _rank(spot: Spot, recalled: Sequence[Spot]) -> int:
    """The number of what was recalled that holds a place; one more than any where nothing does."""
    holding = (number for number, other in enumerate(recalled) if _within(spot, other))
    return next(holding, len(recalled))


def _count_words(text: str) -> int:
    """How many words a text has; where nothing divides them, two characters count as one."""
    return sum(1 + int(amid_phrases(word).sum()) // 2 for word in text.split())


def _core(sentence: str) -> str:
    """A sentence without what stands around its words."""
    inside = [n for n, character in enumerate(sentence) if character.isalnum()]
    return sentence[inside[0] : inside[-1] + 1] if inside else ""


def _numbers(text: str) -> frozenset[str]:
    """The numbers in digits or words; "one" is as often no number, so it is told apart by none."""
    digits = {match.group().replace(",", "") for match in _NUMBER.finditer(text)}
    words = (_NUMBER_WORDS.get(word) for word in _LETTERS.findall(text.casefold()))
    return frozenset(digits.union(word for word in words if word and word != "1") - {"1"})


def denies(text: str) -> bool:
    """Returns whether a text says no to something."""
    if any(
        word in _NEGATIONS or word.endswith(("n't", "n\u2019t"))
        for word in _LETTERS.findall(text.casefold())
    ):
        return True
    return not text.isascii() and _UNSPACED_NEGATIONS.search(text) is not None
