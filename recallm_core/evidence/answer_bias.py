"""Where an answer's quote is likely to start and end, by the reader: inside what was recalled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recallm_core.evidence.answer_edges import Edges, clean_edges
from recallm_core.evidence.protocol import Places, Range
from recallm_core.evidence.question_forms import asks_yes_or_no
from recallm_core.evidence.reader import Reading
from recallm_core.evidence.sentence_bias import WITHIN_EVIDENCE, ends_amid, starts_amid
from recallm_core.tokenization.boundary_tables import Run

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SPREAD = 0.1  # how much less a later end counts, per token
LONGEST = 32  # tokens of an answer that the reader looks for
MOST_ODDS = 10.0
_NEVER = -30.0


@dataclass(frozen=True, slots=True, eq=False)
class AnswerTilt:
    """What is preferred for the quote that is the answer; runs concatenated.

    Attributes:
        starts: A log score of starting, per run position.
        ends: Log odds of ending.
    """

    starts: Floats
    ends: Floats


def answer_tilt(
    question: str, places: Places, evidence: Sequence[Range], readings: Sequence[Reading]
) -> AnswerTilt:
    """Returns where in the last evidence the answer probably lies.

    Starts outside of the evidence count little. Edges are clean (``answer_edges``): what the reader
    thinks of an edge amid an amount, counts for the nearest clean one that takes it in. To a
    question for yes or no, a word of a sentence says nothing, and the evidence is the answer.

    Args:
        question: What is asked.
        places: Where spans may stand.
        evidence: What was recalled, in order; at least one.
        readings: What the reader says, told all but the last of the evidence.
    """
    starts, ends = [np.empty(0)], [np.empty(0)]
    at = 0
    for run in places.runs:
        stop = at + len(run.starts)
        text = places.passages[run.passage].text
        piece = _Piece(run, text, evidence[-1])
        tilt, odds = _outside(run, evidence), np.zeros(len(run.starts))
        begins = piece.among(places.can_start[at:stop])
        stops = piece.among(places.can_end[at:stop])
        if begins.size and stops.size and asks_yes_or_no(question):
            odds[stops] = -MOST_ODDS
            tilt[begins[0]], odds[stops[-1]] = 0.0, MOST_ODDS
        elif begins.size and stops.size:
            reading = _reading_of(readings, evidence[-1])
            _tilt_within(tilt, odds, piece.clean(question, begins, stops), reading)
        tilt[starts_amid(text, run)] += WITHIN_EVIDENCE
        odds[ends_amid(text, run)] = -MOST_ODDS
        starts.append(tilt)
        ends.append(odds)
        at = stop
    return AnswerTilt(np.concatenate(starts), np.concatenate(ends))


def _outside(run: Run, evidence: Sequence[Range]) -> Floats:
    """The tilt where the reader has no say: outside of the evidence less than inside."""
    tilt = np.full(len(run.starts), WITHIN_EVIDENCE)
    for passage, start, end in evidence:
        if passage == run.passage:
            tilt[(run.starts >= start - 1) & (run.ends <= end + 1)] = WITHIN_EVIDENCE / 2
    return tilt


@dataclass(frozen=True, slots=True, eq=False)
class _Choice:
    """The tokens of the evidence that an answer may start and end with.

    Attributes:
        run: Their run.
        evidence: The range of the passage.
        begins: Tokens with a clean start.
        stops: Tokens with a clean end.
        all_stops: Tokens with any end.
        starts_in, ends_in: The pair of brackets that each of the first two lies in, or -1.
        first, last: Where an answer starts that seems to start at a position of the evidence, and
            where it ends, without marks that don't belong to it.
    """

    run: Run
    evidence: Range
    begins: Ints
    stops: Ints
    all_stops: Ints
    starts_in: Ints
    ends_in: Ints
    first: Ints
    last: Ints


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """The last evidence, as far as it lies in one run."""

    run: Run
    text: str
    evidence: Range

    def among(self, legal: NDArray[np.bool_]) -> Ints:
        """Returns the tokens of the evidence among the legal ones."""
        passage, low, high = self.evidence
        if passage != self.run.passage:
            return np.empty(0, dtype=np.int64)
        inside = (self.run.ends > low) & (self.run.starts < high)
        return np.flatnonzero(inside & legal)

    def clean(self, question: str, begins: Ints, stops: Ints) -> _Choice:
        """Returns the tokens with clean edges, all of them where none is."""
        _, low, high = self.evidence
        edges = clean_edges(question, self.text[low:high])
        firsts, whole = self._firsts(begins), self._lasts(stops)
        lasts = edges.last[whole]  # a mark may be part of a token, and then it can't be left off
        last_is_clean = edges.may_end[lasts] & ((lasts == whole) | ~np.isin(lasts, whole))
        first = _past_open_pairs(edges, whole[last_is_clean])
        first_is_clean = edges.may_start[firsts] & (first[firsts] == firsts)
        if not first_is_clean.any() or not last_is_clean.any():
            first_is_clean[:], last_is_clean[:] = True, True
        return _Choice(
            self.run,
            self.evidence,
            begins[first_is_clean],
            stops[last_is_clean],
            stops,
            edges.nested[firsts[first_is_clean]],
            edges.nested[lasts[last_is_clean]],
            first,
            edges.last,
        )

    def _firsts(self, tokens: Ints) -> Ints:
        """Where in the evidence the first visible character of each token stands."""
        pieces = [self.text[self.run.starts[n] : self.run.ends[n]] for n in tokens]
        blank = np.array([len(p) - len(p.lstrip()) for p in pieces], dtype=np.int64)
        return self._in_evidence(self.run.starts[tokens] + blank)

    def _lasts(self, tokens: Ints) -> Ints:
        """Where in the evidence the last visible character of each token ends."""
        pieces = [self.text[self.run.starts[n] : self.run.ends[n]] for n in tokens]
        blank = np.array([len(p) - len(p.rstrip()) for p in pieces], dtype=np.int64)
        return self._in_evidence(self.run.ends[tokens] - blank)

    def _in_evidence(self, places: Ints) -> Ints:
        _, low, high = self.evidence
        return np.clip(places, low, high) - low


def _past_open_pairs(edges: Edges, ends: Ints) -> Ints:
    """Where answers start: behind marks that aren't theirs, or whose pair no end closes."""
    first = edges.first.copy()
    for opening, closing in edges.pairs.items():
        if closing + 1 not in ends:
            first[opening] = first[opening + 1]
    return first


def _reading_of(readings: Sequence[Reading], evidence: Range) -> Reading | None:
    """The reading of the window that holds most of a range."""
    passage, low, high = evidence
    best, best_length = None, 0
    for reading in readings:
        window = reading.window
        if window.passage == passage:
            length = min(high, int(window.ends[-1])) - max(low, int(window.starts[0]))
            if length > best_length:
                best, best_length = reading, length
    return best


def _tilt_within(tilt: Floats, odds: Floats, choice: _Choice, reading: Reading | None) -> None:
    """Writes the reader's starts, and the odds of its ends, of one piece of evidence."""
    if reading is None:
        return
    window, (_, low, high) = reading.window, choice.evidence
    within = (window.starts >= low) & (window.ends <= high)
    if not within.any():
        return
    begin, end = reading.start[within], reading.end[within]
    begin = begin + _following(end, SPREAD)
    begin = begin - np.logaddexp.reduce(begin)
    begins, starts_in = choice.begins, choice.starts_in
    seen = low + choice.first[window.starts[within] - low]
    at = np.searchsorted(choice.run.starts[begins], seen, side="right") - 1
    mass = np.full(len(begins), -np.inf)
    np.logaddexp.at(mass, np.maximum(at, 0), begin)
    alike = starts_in == starts_in[mass.argmax()]
    tilt[begins[alike]] = np.maximum(mass[alike], WITHIN_EVIDENCE / 2)
    stops = choice.stops[choice.ends_in == starts_in[alike][0]]
    odds[choice.all_stops] = -MOST_ODDS
    if not stops.size:
        return
    seen = low + choice.last[window.ends[within] - low]
    at = np.searchsorted(choice.run.ends[stops], seen, side="left")
    mass = np.full(len(stops), _NEVER)
    np.logaddexp.at(mass, np.minimum(at, len(stops) - 1), end - end.max())
    later = np.append(_following(mass, SPREAD)[1:] - SPREAD, _NEVER)
    odds[stops] = np.clip(mass - later, -MOST_ODDS, MOST_ODDS)


def _following(scores: Floats, spread: float) -> Floats:
    """For each place, the log of the sum over it and the next ones, later ones counting less."""
    out = np.empty(len(scores))
    steps = spread * np.arange(LONGEST)
    for n in range(len(scores)):
        ahead = scores[n : n + LONGEST]
        out[n] = np.logaddexp.reduce(ahead - steps[: len(ahead)])
    return out
