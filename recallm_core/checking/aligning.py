"""A quote laid beside a stretch of a document, outward from words that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from recallm_core.checking.changes import Change, change, same_letters
from recallm_core.checking.corpus import Corpus, Run
from recallm_core.checking.places import QuoteQuery
from recallm_core.checking.words import Word, is_divided

_MARGIN = 8  # words that a document may have beyond the quote's, on either side
_STITCH = 4  # words left out without a mark that make two places of one
_TAIL, _SPLIT = 8, 3  # words at an end that may only be divided otherwise, and by how many
Group = tuple[int, int, int, int]  # [i, j) of the quote's words for [a, b) of the document's


@dataclass(frozen=True, slots=True)
class Alignment:
    """How a quote and words ``[first, past)`` of the corpus differ.

    Attributes:
        first: Where the quote's first word stands, or would.
        past: One past its last.
        changes: What differs in more than writing.
        score: The part of the quote's weight that doesn't, 0 to 1.
        cuts: Words of the document, several at a time, that the quote leaves out silently.
    """

    first: int
    past: int
    changes: tuple[Change, ...]
    score: float
    cuts: tuple[tuple[int, int], ...]

    @property
    def rank(self) -> tuple[bool, float, int]:
        """The better, the higher."""
        return not self.changes, self.score, self.first - self.past


@dataclass(frozen=True, slots=True)
class _Way:
    """One of the two directions from the shared words.

    Attributes:
        begin: Boundary of the quote's words where it starts.
        place: The boundary of the corpus's words beside it.
        step: 1 onward, -1 back.
    """

    begin: int
    place: int
    step: int

    def ours(self, i: int, j: int) -> tuple[int, int]:
        """Words of the quote, counted along the way, by their own numbers."""
        return _corpus_range(self.begin, self.step, i, j)

    def theirs(self, a: int, b: int) -> tuple[int, int]:
        """Words of the corpus, counted along the way, by their own numbers."""
        return _corpus_range(self.place, self.step, a, b)


class Aligner:
    """Lays quotes beside stretches of a corpus.

    Args:
        corpus: What can be quoted.
    """

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus

    def align(self, quote: QuoteQuery, weights: Sequence[float], run: Run, place: int) -> Alignment:
        """Returns how the quote reads in a place.

        Args:
            quote: The quote.
            weights: How much each of its words counts.
            run: Words that the place and the quote share.
            place: Where they begin in the corpus.
        """
        document = self._corpus.document_at(place)
        low, high = int(self._corpus.firsts[document]), self._corpus.past_of(document)
        onward = _Way(run.past, place + run.size, 1)
        back = _Way(run.first, place, -1)
        after, past = self._go(quote, onward, len(quote.ids) - run.past, high)
        before, first = self._go(quote, back, run.first, low)
        return self._score_groups(quote, weights, [*reversed(before), *after], first, past)

    def change(self, ours: Sequence[Word], first: int, past: int) -> Change | None:
        """Returns how words of the quote differ from words ``[first, past)`` of the corpus."""
        return change(ours, self.words(first, past))

    def words(self, first: int, past: int) -> list[Word]:
        """Returns words of the corpus as they are written."""
        if first >= past:
            return []
        corpus = self._corpus
        source = corpus.documents[corpus.document_at(first)].text
        spans = ((int(corpus.starts[at]), int(corpus.ends[at])) for at in range(first, past))
        keys = map(corpus.key_at, range(first, past))
        return [
            Word(source[a:b], key, is_divided(source, b))
            for (a, b), key in zip(spans, keys, strict=True)
        ]

    def _score_groups(
        self,
        quote: QuoteQuery,
        weights: Sequence[float],
        groups: Sequence[Group],
        first: int,
        past: int,
    ) -> Alignment:
        lost, changes, cuts = 0.0, [], []
        for i, j, a, b in groups:
            differs = self.change(quote.words[i:j], a, b)
            if differs is None:
                continue
            lost += sum(weights[i:j])
            changes.append(differs)
            if b - a >= j - i + _STITCH:
                cuts.append((a, b))
        score = 1.0 - lost / (sum(weights) or 1.0)
        return Alignment(first, past, tuple(changes), score, tuple(cuts))

    def _go(self, quote: QuoteQuery, way: _Way, size: int, limit: int) -> tuple[list[Group], int]:
        """Goes one way to the quote's end.

        Args:
            quote: The quote.
            way: Where to go.
            size: How many of its words lie there.
            limit: The document's boundary there.

        Returns:
            What differs, and the boundary of the corpus's words that the quote's end is at.
        """
        reach = min(abs(limit - way.place), size + max(_MARGIN, size // 2))
        ours = list(quote.ids[slice(*way.ours(0, size))])[:: way.step]
        theirs = self._corpus.ids[slice(*way.theirs(0, reach))].tolist()[:: way.step]
        groups, done, seen = _compare_words(ours, theirs)
        if done < size:
            rest = quote.words[slice(*way.ours(done, size))]
            start, seen = seen, seen + self._counterpart(rest, way, seen, reach)
            groups.append((done, size, start, seen))
        placed = [(*way.ours(i, j), *way.theirs(a, b)) for i, j, a, b in groups]
        return placed, way.place + way.step * seen

    def _counterpart(self, rest: Sequence[Word], way: _Way, seen: int, reach: int) -> int:
        """How many of the document's words the quote's last words stand for."""
        longest, size = max(0, reach - seen), len(rest)
        shortest = max(0, size - _SPLIT) if size <= _TAIL else longest + 1
        counts = range(shortest, min(longest, size + _SPLIT) + 1)
        places = {count: way.theirs(seen, seen + count) for count in counts}
        same = (n for n, at in places.items() if same_letters(rest, self.words(*at)))
        alike = (n for n, at in places.items() if self.change(rest, *at) is None)
        return next(same, next(alike, min(longest, size)))


def _corpus_range(origin: int, step: int, i: int, j: int) -> tuple[int, int]:
    return (origin + i, origin + j) if step > 0 else (origin - j, origin - i)


def _compare_words(ours: list[int], theirs: list[int]) -> tuple[list[Group], int, int]:
    """Where two rows of words part, and how far they go together in both.

    They go together as long as what they share outweighs what parts them.
    """
    groups: list[Group] = []
    settled = done = seen = score = best = 0
    for step in Levenshtein.opcodes(ours, theirs):
        i, j, a, b = step.src_start, step.src_end, step.dest_start, step.dest_end
        if step.tag != "equal":
            score -= max(j - i, b - a)
            _add(groups, (i, j, a, b), settled)
            continue
        score += j - i
        if score >= best:
            best, done, seen, settled = score, j, b, len(groups)
    return groups[:settled], done, seen


def _add(groups: list[Group], group: Group, settled: int) -> None:
    """Adds what differs, joined to what differs right before it."""
    if len(groups) > settled and groups[-1][1] == group[0] and groups[-1][3] == group[2]:
        first = groups.pop()
        group = (first[0], group[1], first[2], group[3])
    groups.append(group)
