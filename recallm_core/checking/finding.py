"""Where a quote stands in the documents: character by character, word by word, or nearly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from recallm_core.checking.aligning import Aligner, Alignment
from recallm_core.checking.changes import Change, weight
from recallm_core.checking.corpus import Corpus, Run, between_words, widen
from recallm_core.checking.places import ABSENT, ClaimedPlace, Finding, QuoteQuery, Stretch
from recallm_core.checking.words import Ints, Word, is_divided, keys, words

ALIKE = 0.6  # the part of a quote's weight that must stand in one place to be altered, not absent
# So much in one place, but for a few words, is no stitch, whatever stands elsewhere.
_CLOSE, _FEW = 0.7, 3
_COVERED = 0.9  # of a stitched quote's weight, by its pieces
_PIECE_WORDS, _PIECE_WEIGHT, _PIECES = 3, 2.0, 3
_RUNS, _PLACES, _COMMON = 8, 6, 5_000  # a run with more places says nothing of where it is from
_TELLING = 0.3  # of the heaviest run's weight; lighter ones are in too many places to vote
_LONG = 8  # words of a run that isn't common by chance
_NEAR = 8  # words between two runs of one place, beyond the quote's own
_DASHES = frozenset("-\u2212\u2013")
_OUTER = frozenset(" \t\r\n.,;:\u2026*_`'\"\u201c\u201d\u2018\u2019()[]")


class Finder:
    """Looks for quotes, and for pieces of them, in a corpus.

    Args:
        corpus: What can be quoted.
    """

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.aligner = Aligner(corpus)
        self._texts = [document.text for document in corpus.documents]

    def quote_query(self, text: str) -> QuoteQuery:
        """Returns a text ready to be looked for."""
        row = words(text)
        if not row.raw:
            return QuoteQuery(text)
        folded = keys(row.raw)
        halves = (is_divided(text, end) for end in row.ends.tolist())
        spoken = tuple(map(Word, row.raw, folded, halves))
        ids = tuple(self.corpus.ids_of(folded))
        return QuoteQuery(text, spoken, ids, int(row.starts[0]), int(row.ends[-1]))

    def find(self, quote: QuoteQuery, claimed: ClaimedPlace | None = None) -> Finding:
        """Returns the best place of a quote as one piece.

        Args:
            quote: What to look for.
            claimed: Where it is said to be from; preferred among places that are equally good.
        """
        if not quote.ids:
            return ABSENT
        places = self.order_by_claim(self.corpus.occurrences(quote.ids), claimed)
        whole = self._word_by_word(quote, places) or self._after_sign(quote, claimed)
        return whole or self.nearly(quote, claimed)

    def _after_sign(self, quote: QuoteQuery, claimed: ClaimedPlace | None) -> Finding | None:
        """The place of a quote whose first character is a sign only because it begins there.

        In ``-1`` the dash is a sign, in ``A-1``, which holds it to the character, it is none.
        """
        if len(quote.ids) < 2 or quote.words[0].raw not in _DASHES:
            return None
        number = quote.text.index(quote.words[1].raw, quote.start + 1)
        rest = QuoteQuery(quote.text, quote.words[1:], quote.ids[1:], number, quote.end)
        lead = quote.text[quote.start : number]
        places = self.order_by_claim(self.corpus.occurrences(rest.ids), claimed)
        return self._word_by_word(rest, [at for at in places if self._follows(lead, at)])

    def _follows(self, lead: str, place: int) -> bool:
        """Whether a word of the corpus stands right behind some characters."""
        start = int(self.corpus.starts[place])
        source = self._texts[self.corpus.document_at(place)]
        return source.startswith(lead, start - len(lead)) if start >= len(lead) else False

    def order_by_claim(self, places: Ints, claimed: ClaimedPlace | None) -> list[int]:
        """Returns places in the documents claimed, the nearest first, then the others."""
        listed: list[int] = places.tolist()
        if not claimed or not listed:
            return listed
        inside = self.inside(places, claimed)
        first: list[int] = places[inside].tolist()
        at = claimed.at
        if at is not None:
            first.sort(key=lambda place: abs(int(self.corpus.starts[place]) - at))
        return [*first, *places[~inside].tolist()]

    def inside(self, places: Ints, claimed: ClaimedPlace) -> NDArray[np.bool_]:
        """Tells for each place whether it is in a document claimed."""
        return np.isin(self.corpus.documents_at(places), list(claimed.documents))

    def compare_characters(
        self, quote: QuoteQuery, first: int, past: int
    ) -> tuple[bool, Stretch | None]:
        """Compares characters where the words agree.

        Returns:
            Whether they are equal, but for a comma or full stop at the end; and the stretch, with
            the punctuation that both share around it. None where it would cut a word.
        """
        source = self.corpus.documents[self.corpus.document_at(first)].text
        start, end = self.corpus.span(first, past)
        equal = source[start:end] == quote.text[quote.start : quote.end]
        lead = source[max(0, start - len(quote.before)) : start]
        head = _common_start(quote.before[::-1], lead[::-1])
        tail = _common_start(quote.after, source[end : end + len(quote.after)])
        rest = quote.before[: len(quote.before) - head] + quote.after[tail:]
        wide = _trim(source, start - head, end + tail)
        for a, b in (wide, (start, end), widen(source, start, end)):
            if between_words(source, a) and between_words(source, b):
                exact = equal and _OUTER.issuperset(rest) and (a, b) in (wide, (start, end))
                return exact, Stretch(first, past, a, b)
        return False, None

    def nearly(self, quote: QuoteQuery, claimed: ClaimedPlace | None) -> Finding:
        """Returns the place that a quote was most likely taken from, and how it differs."""
        runs = self.corpus.runs(quote.ids)
        weights = [weight(word) for word in quote.words]
        best: Alignment | None = None
        for run, place in self._anchors(runs, weights, claimed):
            alignment = self.aligner.align(quote, weights, run, place)
            if best is None or alignment.rank > best.rank:
                best = alignment
            if not best.changes:
                break
        near = self._judge_alignment(quote, best) if best else ABSENT
        if near.verdict == "drift" or _is_close(near):
            return near
        return self._stitch_runs(runs, weights) or near

    def stretch(self, first: int, past: int) -> Stretch:
        """Returns words of the corpus with the characters they are."""
        return Stretch(first, past, *self.corpus.span(first, past))

    def _word_by_word(self, quote: QuoteQuery, places: Sequence[int]) -> Finding | None:
        """The first place with the quote's very characters, else the first that reads like it."""
        tried = (self._place(quote, place) for place in self._verbatim(quote, places))
        exact = next((finding for finding in tried if finding and finding.verdict == "exact"), None)
        if exact:
            return exact
        return next((finding for place in places if (finding := self._place(quote, place))), None)

    def _verbatim(self, quote: QuoteQuery, places: Sequence[int]) -> Iterator[int]:
        """The places where the characters are the quote's from the first word to the last."""
        core = quote.text[quote.start : quote.end]
        texts = self._texts
        numbers = self.corpus.documents_at(np.array(places, dtype=np.int64)).tolist()
        holding = {number for number in set(numbers) if core in texts[number]}
        for place, number in zip(places, numbers, strict=True):
            if number in holding and texts[number].startswith(core, int(self.corpus.starts[place])):
                yield place

    def _place(self, quote: QuoteQuery, place: int) -> Finding | None:
        exact, stretch = self.compare_characters(quote, place, place + len(quote.ids))
        if stretch is None:
            return None
        return Finding("exact" if exact else "drift", (stretch,), (), 1.0)

    def _anchors(
        self, runs: list[Run], weights: list[float], claimed: ClaimedPlace | None
    ) -> Iterator[tuple[Run, int]]:
        """The likeliest places, best first, each as a run that stands there.

        Each place of each run votes, with the run's weight, for where the quote would begin.
        """
        usable = filter(None, map(_telling, runs))
        heavy = sorted(usable, key=lambda run: -_heft(run, weights))[:_RUNS]
        if not heavy or _heft(heavy[0], weights) < min(1.0, sum(weights) / 2):
            return
        threshold = _TELLING * _heft(heavy[0], weights)
        heavy = [run for run in heavy if _heft(run, weights) >= threshold]
        origins = np.concatenate([run.places - run.first for run in heavy])
        votes = np.concatenate([np.full(run.places.size, _heft(run, weights)) for run in heavy])
        owners = np.concatenate([np.full(run.places.size, n) for n, run in enumerate(heavy)])
        order = np.argsort(origins, kind="stable")
        origins, votes, owners = origins[order], votes[order], owners[order]
        reach = np.searchsorted(origins, origins + _NEAR, side="right")
        total = np.append(0.0, np.cumsum(votes))
        sums = total[reach] - total[:-1]
        if claimed:
            sums = sums + 0.01 * self.inside(origins, claimed)
        for at in np.argsort(-sums, kind="stable")[:_PLACES].tolist():
            member = at + int(np.argmax(votes[at : reach[at]]))
            run = heavy[int(owners[member])]
            yield run, int(origins[member]) + run.first

    def _judge_alignment(self, quote: QuoteQuery, alignment: Alignment) -> Finding:
        """What an alignment means."""
        if alignment.score < ALIKE:
            return Finding("absent", score=alignment.score)
        first, past, gained = self._whole_words(alignment.first, alignment.past)
        _, stretch = self.compare_characters(quote, first, past)
        if stretch is None:
            return Finding("absent", score=alignment.score)
        changes = (*alignment.changes, *gained)
        if not changes:
            return Finding("drift", (stretch,), (), 1.0)
        if len(alignment.cuts) == len(changes):
            return Finding(
                "stitched",
                self._stretches_between(stretch, alignment.cuts),
                changes,
                alignment.score,
            )
        return Finding("altered", (stretch,), changes, alignment.score)

    def _whole_words(self, first: int, past: int) -> tuple[int, int, tuple[Change, ...]]:
        """Widens a stretch that begins or ends inside a word, and says what it gained."""
        corpus = self.corpus
        document = corpus.document_at(first)
        source = corpus.documents[document].text
        low, high = int(corpus.firsts[document]), corpus.past_of(document)
        a, b = first, past
        while a > low and not between_words(source, widen(source, *corpus.span(a, b))[0]):
            a -= 1
        while b < high and not between_words(source, widen(source, *corpus.span(a, b))[1]):
            b += 1
        gained = [self.aligner.change((), *pair) for pair in ((a, first), (past, b))]
        return a, b, tuple(change for change in gained if change is not None)

    def _stretches_between(
        self, whole: Stretch, cuts: Iterable[tuple[int, int]]
    ) -> tuple[Stretch, ...]:
        """A stretch without what was left out of it."""
        pieces, first = [], whole.first
        for a, b in cuts:
            pieces.append(self.stretch(first, a))
            first = b
        return (*pieces, self.stretch(first, whole.past))

    def _stitch_runs(self, runs: list[Run], weights: list[float]) -> Finding | None:
        """The few long runs that make up the whole quote, each from where it stands first."""
        pieces = [
            run for run in runs if run.size >= _PIECE_WORDS and _heft(run, weights) >= _PIECE_WEIGHT
        ]
        covered = sum(_heft(run, weights) for run in pieces) / (sum(weights) or 1.0)
        if not 2 <= len(pieces) <= _PIECES or covered < _COVERED:
            return None
        firsts = [(int(run.places[0]), run.size) for run in pieces]
        stretches = tuple(self.stretch(first, first + size) for first, size in firsts)
        return Finding("stitched", stretches, (), covered)


def _telling(run: Run) -> Run | None:
    """A run as it tells where it is from; the same long row in many places is a text's own way."""
    if run.places.size <= _COMMON:
        return run
    return Run(run.first, run.size, run.places[:_COMMON]) if run.size >= _LONG else None


def _heft(run: Run, weights: list[float]) -> float:
    return sum(weights[run.first : run.past])


def _is_close(finding: Finding) -> bool:
    """Whether a quote stands in one place but for a word or two."""
    changed = sum(len(change.written.split()) for change in finding.changes)
    altered = finding.verdict == "altered" and finding.score >= _CLOSE and changed <= _FEW
    return altered or finding.verdict == "stitched"


def _common_start(one: str, other: str) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


def _trim(source: str, start: int, end: int) -> tuple[int, int]:
    """A range without outer white space."""
    text = source[start:end]
    start += len(text) - len(text.lstrip())
    return start, start + len(text.strip())
