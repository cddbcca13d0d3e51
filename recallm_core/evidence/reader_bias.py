"""The scorer ``reader``: where quotes start and end, by the evidence reader's scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from recallm_core.decoding.constraint import ClosedSpan, Section, SpanBias
from recallm_core.decoding.evidence_policy import MOST_EVIDENCE
from recallm_core.documents.document import Passage
from recallm_core.evidence.answer_bias import MOST_ODDS, answer_tilt
from recallm_core.evidence.answer_confidence import Signals, answer_signals, read_confidence
from recallm_core.evidence.letter_scores import LetterScores
from recallm_core.evidence.likely_answers import likely_answers
from recallm_core.evidence.memo import Memo
from recallm_core.evidence.protocol import (
    Floats32,
    LikelyAnswer,
    Places,
    Range,
    Recall,
    Scorer,
)
from recallm_core.evidence.reader import EvidenceReader, Reading, default_reader
from recallm_core.evidence.reader_languages import LanguageGate
from recallm_core.evidence.sentence_bias import (
    SentenceEvidence,
    sentence_scorer,
)
from recallm_core.evidence.sentence_scorer import TEMPERATURE, SentenceScorer, log_softmax
from recallm_core.tokenization.boundary_tables import Run

Floats = NDArray[np.float64]

READ_WINDOWS = 12  # beside one question: about 2,000 tokens, the likeliest by words and meaning
READ_AGAIN = 6  # once something was recalled, beside the window that the first reading preferred
WORDS_WEIGHT = 0.25  # log odds for a point of BM25
STRENGTH = 4.0  # how much more the reader is heard than calibrated log odds say; see below
WHOLE = 8.0  # how much a quote while thinking prefers to close at the end of a sentence
DOUBT = 2.0  # temperature of the sentences' shares; see ``SentenceMap.count_needed``
HOP = 1.0  # how much better an answer outside of what was recalled has to be for another recall
_REMEMBERED = 16  # questions, and steps of outputs, over one pack
# HOP was read off questions that no training saw: 3 of 276 over one sentence lie above 1, none of
# them above 3; of 45 over two (MuSiQue), 27 lie above 1, and 20 above 4. WORDS_WEIGHT and STRENGTH
# were chosen on facts held out of the training data, each among two passages that share words with
# the question (recall of sentences, F1 of recallm-mini).


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """The scores of all sentences by words and meaning, and what was read for them.

    The numbers are those of windows; ``unread`` are the likely ones that can't be read.
    """

    totals: Floats
    numbers: list[int]
    readings: list[Reading]
    unread: list[int]


class ReaderScorer:
    """Scores sentences by their words, their meaning and the reader's opinion.

    Where the reader doesn't know the language of the question or of a window, it has no opinion;
    where it could read none of the likeliest windows, the letters of the words count beside them.

    Args:
        scorer: The sentences of the passages, and their scores by words and meaning.
        reader: The reader.
        texts: The passages.
        titles: Their titles.
    """

    def __init__(
        self,
        scorer: SentenceScorer,
        reader: EvidenceReader,
        texts: Sequence[str],
        titles: Sequence[str | None],
    ) -> None:
        self._scorer = scorer
        self._reader = reader
        self._all_texts = texts
        self._titles = list(titles)
        self._gate = LanguageGate(reader.tokenizer)
        self._windows = reader.windows(texts)
        self._texts = [texts[w.passage][w.starts[0] : w.ends[-1]] for w in self._windows]
        self._readable: dict[int, bool] = {}
        self.spans, self.begins = scorer.spans, scorer.begins
        self.weights = read_confidence(reader.folder)
        self._rows = [
            self.begins[w.passage][0] + w.first + np.arange(len(w.heads)) for w in self._windows
        ]
        self._reads: Memo[tuple[str, tuple[str, ...]], _Read] = Memo(_REMEMBERED)

    def scores(
        self, question: str, recalled: Sequence[str] = (), *, temperature: float = TEMPERATURE
    ) -> Floats:
        """Returns a log probability for each sentence of all texts; see ``SentenceScorer``."""
        read = self._read(question, recalled)
        totals = read.totals
        if len(totals) and not read.readings:
            return np.asarray(log_softmax(totals / temperature))
        if len(totals):
            totals = WORDS_WEIGHT * totals + self._opinions(read)
        return np.asarray(log_softmax(STRENGTH * totals / temperature))

    def shares(self, question: str) -> Floats:
        """Returns the probability of each sentence to be the evidence; they sum to 1."""
        read = self._read(question, ())
        totals = read.totals
        if len(totals):
            totals = WORDS_WEIGHT * totals + self._opinions(read)
        return np.asarray(np.exp(log_softmax(totals / DOUBT)))

    def _opinions(self, read: _Read) -> Floats:
        """The reader's score of each sentence; those not read get the lowest of those read.

        Those that it can't read are even: nothing is known of them.
        """
        scores = np.full(len(read.totals), -np.inf)
        for number, reading in zip(read.numbers, read.readings, strict=True):
            rows = self._rows[number]
            scores[rows] = np.maximum(scores[rows], reading.evidence)
        known = np.isfinite(scores)
        scores[~known] = scores[known].min() if known.any() else 0.0
        for number in read.unread:
            rows = self._rows[number]
            scores[rows] = np.where(known[rows], scores[rows], 0.0)
        return scores

    def knows(self, question: str, recalled: Sequence[str] = ()) -> bool:
        """Returns whether the reader could read the question and all that it was to read for it."""
        return self._gate.reads(question) and not self._read(question, recalled).unread

    def _knows_window(self, number: int) -> bool:
        """Whether the reader knows the language of a window."""
        if number not in self._readable:
            self._readable[number] = self._gate.reads(self._texts[number])
        return self._readable[number]

    def readings(self, question: str, recalled: Sequence[str] = ()) -> list[Reading]:
        """Returns what the reader says of the windows that most likely hold the evidence."""
        return self._read(question, recalled).readings

    def _read(self, question: str, recalled: Sequence[str]) -> _Read:
        """What was read for a question, once."""
        key = (question, tuple(recalled))
        return self._reads.get(key, lambda: self._reading(*key))

    def _reading(self, question: str, recalled: tuple[str, ...]) -> _Read:
        totals = self._scorer.totals(question, recalled)
        if recalled:
            likeliest = self._to_read_again(question, totals)
        else:
            likeliest = self._likeliest(totals, READ_WINDOWS)
        readable = self._gate.reads(question)
        numbers = [n for n in likeliest if readable and self._knows_window(n)]
        windows = [self._windows[n] for n in numbers]
        readings = self._reader.read(question, windows, self._titles, recalled)
        if not readings:
            totals = self._letters.totals(question, totals)
        return _Read(totals, numbers, readings, sorted({*likeliest} - {*numbers}))

    @cached_property
    def _letters(self) -> LetterScores:
        """The letters of all sentences; made when they are first needed."""
        pairs = zip(self._all_texts, self.spans, strict=True)
        return LetterScores([[text[a:b] for a, b in spans] for text, spans in pairs])

    def _to_read_again(self, question: str, totals: Floats) -> list[int]:
        """The windows to read once something was recalled, which the first reading found."""
        likeliest = self._likeliest(totals, READ_AGAIN)
        first = self._read(question, ())
        if not first.readings:
            return likeliest
        preferred = int(np.argmax([reading.evidence.max() for reading in first.readings]))
        return sorted({*likeliest, first.numbers[preferred]})

    def _likeliest(self, totals: Floats, count: int) -> list[int]:
        """The numbers of the windows that most likely hold the evidence, ascending."""
        if len(self._windows) <= count:
            return list(range(len(self._windows)))
        best = np.array([totals[rows].max() for rows in self._rows])
        return sorted(np.argsort(-best, kind="stable")[:count].tolist())


class ReaderEvidence:
    """The evidence by the reader; see ``protocol.Evidence``.

    While thinking, quotes start at the sentence that the reader, with the words, thinks is the
    evidence, and end where a sentence ends. In the answer they start and end inside the recalled
    evidence where the reader thinks the answer does, and at the edges of phrases where a script has
    no spaces. The fit is the probability that what was read
    holds an answer, given what was recalled before the last quote.

    Args:
        scorer: What was read of the passages.
        question: What is asked.
        places: Where spans may stand.
        max_quotes: As ``protocol.Scorer`` says.
    """

    def __init__(
        self, scorer: ReaderScorer, question: str, places: Places, max_quotes: int | None
    ) -> None:
        self._scorer = scorer
        self._question = question
        self._places = places
        self._owes_quotes = max_quotes is not None
        self._sentences = SentenceEvidence(scorer, question, places, max_quotes)
        self._ends = np.concatenate(
            [np.empty(0), *(_sentence_ends(scorer.spans[run.passage], run) for run in places.runs)]
        )

    @property
    def start_scores(self) -> Floats32:
        """See ``protocol.Evidence``."""
        return self._sentences.start_scores

    @property
    def due(self) -> int:
        """See ``protocol.Evidence``."""
        return self._sentences.due

    def bias(self, section: Section, spans: tuple[ClosedSpan, ...]) -> SpanBias:
        """Returns log scores of starts and log odds of ends; see ``protocol.Evidence``."""
        evidence = self._places.locate_spans(spans)
        if section == "answer" and evidence and not self._owes_quotes:
            return self._answer_bias(evidence)
        another, starts = 0.0, self._sentences.starts(section, spans)
        if not self._owes_quotes or len(evidence) >= self.due:
            repeats = bool(evidence) and self._repeats(starts, evidence)
            another = STRENGTH * (-MOST_ODDS if repeats else self._another(evidence))
        return SpanBias(starts, STRENGTH * self._ends, another)

    def _repeats(self, starts: Floats, evidence: Sequence[Range]) -> bool:
        """Whether the likeliest quote was recalled before: then there is none to add."""
        if not self._places.can_start.any():
            return False
        at = int(np.where(self._places.can_start, starts, -np.inf).argmax())
        for run, tokens in enumerate(self._places.runs):
            if at < len(tokens.starts):
                passage, start, _ = self._places.locate(run, at, 1)
                return any(p == passage and a <= start < b for p, a, b in evidence)
            at -= len(tokens.starts)
        return False

    def likely_answers(self) -> tuple[LikelyAnswer, ...]:
        """Returns the likely answers in the sentences that probably are quoted.

        Those are the ones that are due, or as many as would be. See ``protocol.AnswerFinder``.
        """
        if not self._scorer.knows(self._question):
            return ()
        count = self.due if self._owes_quotes else self._sentences.count_needed(MOST_EVIDENCE)
        ranked = np.argsort(-self._scorer.shares(self._question), kind="stable")[:count]
        spans = [(p, a, b) for p, some in enumerate(self._scorer.spans) for a, b in some]
        evidence = [spans[n] for n in ranked]
        readings = self._scorer.readings(self._question)
        return likely_answers(self._question, self._places.passages, evidence, readings)

    def fit(self, recalled: Sequence[Recall]) -> float | None:
        """Returns how probable it is that there is an answer; None: it can't read the language.

        Quotes that an output owes are pieces of one evidence: told some of them, the reader would
        take any sentence beside them for the answer. Those that a model opens itself are hops.
        """
        before = [] if self._owes_quotes else [quote.text for quote in recalled[:-1]]
        if not self._scorer.knows(self._question, before):
            return None
        readings = self._scorer.readings(self._question, before)
        odds = max((reading.answerable for reading in readings), default=-np.inf)
        return float(1 / (1 + np.exp(-odds)))

    def confidence(self, recalled: Sequence[Range], answer: Range) -> float | None:
        """Returns how probable it is that an answer is right; see ``protocol.AnswerJudge``."""
        weights, signals = self._scorer.weights, self.signals(recalled, answer)
        return None if weights is None or signals is None else weights.probability(signals)

    def signals(self, recalled: Sequence[Range], answer: Range) -> Signals | None:
        """Returns what speaks for a quoted answer; None: it can't be said.

        Args:
            recalled: What was recalled before it.
            answer: Its place.
        """
        passages = self._places.passages
        texts = [passage.text for passage in passages]
        before = [texts[p][a:b] for p, a, b in recalled[:-1]]
        if self._owes_quotes or not recalled or not self._scorer.knows(self._question, before):
            return None
        readings = self._scorer.readings(self._question, before)
        title = passages[recalled[-1][0]].title
        return answer_signals(self._question, readings, texts, title, recalled[-1], answer)

    def _answer_bias(self, evidence: Sequence[Range]) -> SpanBias:
        before = [self._places.passages[p].text[a:b] for p, a, b in evidence[:-1]]
        readings = self._scorer.readings(self._question, before)
        tilt = answer_tilt(self._question, self._places, evidence, readings)
        return SpanBias(STRENGTH * tilt.starts, STRENGTH * tilt.ends)

    def _another(self, evidence: Sequence[Range]) -> float:
        """Log odds that another quote is needed, once something was recalled.

        The reader, told what was recalled, finds the answer of a question over two sentences
        outside of the first. It knows two hops at most.
        """
        if len(evidence) != 1:
            return -MOST_ODDS if evidence else 0.0
        passage, low, high = evidence[0]
        recalled = [self._places.passages[passage].text[low:high]]
        inside = outside = -np.inf
        for reading in self._scorer.readings(self._question, recalled):
            window = reading.window
            within = (window.starts >= low) & (window.ends <= high) & (window.passage == passage)
            inside = max(inside, _best(reading, within))
            outside = max(outside, _best(reading, ~within))
        if not (np.isfinite(inside) and np.isfinite(outside)):
            return 0.0
        return float(np.clip(outside - inside - HOP, -MOST_ODDS, MOST_ODDS))


def reader(passages: Sequence[Passage]) -> Scorer:
    """Returns the scorer ``reader`` of some passages."""
    texts, titles = [p.text for p in passages], [p.title for p in passages]
    scorer = ReaderScorer(sentence_scorer(passages), default_reader(), texts, titles)
    return partial(ReaderEvidence, scorer)


def _best(reading: Reading, tokens: NDArray[np.bool_]) -> float:
    """The log odds of an answer among some tokens of a window."""
    if not tokens.any():
        return -np.inf
    return float(reading.start[tokens].max() + reading.end[tokens].max()) / 2


def _sentence_ends(sentences: Sequence[tuple[int, int]], run: Run) -> Floats:
    """Log odds that favour the ends of sentences."""
    stops = np.array([end for _, end in sentences], dtype=np.int64)
    if not len(stops):
        return np.zeros(len(run.ends))
    following = stops[np.minimum(np.searchsorted(stops, run.starts, side="right"), len(stops) - 1)]
    return np.where(run.ends >= following, WHOLE, -WHOLE)
