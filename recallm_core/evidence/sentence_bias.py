"""A tilt over where spans start: lexical scores of sentences, per token of the copyable runs."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from recallm_core.decoding.constraint import ClosedSpan, Section
from recallm_core.documents.document import Passage
from recallm_core.evidence.answer_types import answer_starts
from recallm_core.evidence.sentence_scorer import SentenceScorer
from recallm_core.retrieval.embedding import default_embedder
from recallm_core.tokenization.boundary_tables import Run, first_visible

if TYPE_CHECKING:
    from recallm_core.prompting.builder import Prompt

Floats = NDArray[np.float64]

WITHIN_SENTENCE = -6.0  # a start inside a sentence, against a start at its beginning
AT_A_BREAK = -12.0  # where a line or a cell begins, which models take for the start of something
OF_ASKED_TYPE = 8.0  # an answer of the type that the question asks for, against others
SHARPNESS = 5.0  # how much sharper than calibrated the sentences' scores are
SURE = 0.9  # of the evidence's probability, what the sentences that are quoted hold together
WITHIN_EVIDENCE = -8.0  # an answer's quote from outside the evidence, against inside
NO_SENTENCE = -30.0
_KEPT = 8
_BREAK = re.compile(r"(?<![^\n\r])[ \t]*()(?:[>#/;%*-]+[ \t]+)*|()(?=\|)")


class Scorer(Protocol):
    """Scores the sentences of some passages for a question; see ``SentenceScorer``."""

    spans: list[list[tuple[int, int]]]
    begins: list[tuple[int, np.ndarray]]

    def scores(
        self, question: str, recalled: Sequence[str] = (), *, temperature: float = 1.0
    ) -> Floats:
        """Returns a log probability for each sentence of all passages."""

    def shares(self, question: str) -> Floats:
        """Returns how probable each sentence is to be the evidence, as calibrated as it is."""


def _breaks(text: str) -> NDArray[np.int64]:
    """Where the first visible character of a line, the first after a mark, or a cell's bar is."""
    found = [(match.start(match.lastindex or 0), match.end()) for match in _BREAK.finditer(text)]
    return np.array(found, dtype=np.int64).ravel()


class SentenceMap:
    """Which sentence each token of the runs begins in, and whether at its beginning."""

    def __init__(self, runs: Sequence[Run], passages: Sequence[Passage], scorer: Scorer) -> None:
        self.scorer = scorer
        which, tilts = [], []
        for run in runs:
            first, begins = scorer.begins[run.passage]
            visible = first_visible(passages[run.passage].text, run.starts)
            if not len(begins):
                which.append(np.zeros(len(visible), dtype=np.int64))
                tilts.append(np.full(len(visible), NO_SENTENCE))
                continue
            found = np.maximum(np.searchsorted(begins, visible, side="right") - 1, 0)
            which.append(found + first)
            inside = np.where(
                np.isin(visible, _breaks(passages[run.passage].text)),
                AT_A_BREAK,
                WITHIN_SENTENCE,
            )
            tilts.append(np.where(visible == begins[found], 0.0, inside))
        self._which = np.concatenate(which) if which else np.empty(0, dtype=np.int64)
        self._tilts: Floats = np.concatenate(tilts) if tilts else np.empty(0)

    def needed(self, question: str, most: int) -> int:
        """How many of the likeliest sentences it takes to hold the evidence, probably.

        With the reader, on 100 questions of Natural Questions with three paragraphs each (rows 101
        to 200 of the file), 2.2 sentences hold the answer in 0.94, the likeliest one in 0.72; on
        SQuAD 1.5 and 0.99, against 0.97.
        """
        shares = np.sort(self.scorer.shares(question))[::-1]
        enough = int(np.searchsorted(np.cumsum(shares), SURE)) + 1
        return max(1, min(enough, most, len(shares)))

    def ranked(self, question: str, rank: int) -> Floats:
        """Returns scores that prefer the sentence of one rank, 0 being the likeliest evidence.

        Of several pieces of evidence the likeliest stands last: small models answer from the one
        that is nearest.
        """
        scores = self.scores(question)
        shares = self.scorer.shares(question)
        if rank >= len(shares):
            return scores
        wanted = self._which == np.argsort(-shares, kind="stable")[rank]
        return np.where(wanted & (self._tilts == 0.0), 0.0, scores + NO_SENTENCE)

    def scores(self, question: str, recalled: Sequence[str] = ()) -> Floats:
        """Returns a log score per run position, runs concatenated."""
        sentences = self.scorer.scores(question, recalled, temperature=1 / SHARPNESS)
        if not len(sentences):
            return self._tilts
        found: Floats = np.where(
            self._tilts == NO_SENTENCE, NO_SENTENCE, sentences[self._which] + self._tilts
        )
        return found


class SentencePrior:
    """The tilt ``sentences``: lexical scores of the question over where a span may start.

    While thinking, a start at the beginning of a sentence gets that sentence's score, other starts
    in it much less; the scores are recomputed with the words of what was recalled. In the answer,
    starts within the recalled evidence are preferred, and those of the type that is asked for.
    """

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt
        self._map: SentenceMap | None = prompt.sentences
        self._cache: OrderedDict[tuple[Section, tuple[ClosedSpan, ...]], Floats] = OrderedDict()

    def __call__(self, section: Section, spans: tuple[ClosedSpan, ...]) -> Floats:
        """Returns a log score per run position, runs concatenated."""
        key = (section, spans)
        found = self._cache.get(key)
        if found is None:
            found = self._scores(section, spans)
            self._cache[key] = found
            while len(self._cache) > _KEPT:
                self._cache.popitem(last=False)
        return found

    def _scores(self, section: Section, spans: tuple[ClosedSpan, ...]) -> Floats:
        prompt = self._prompt
        evidence = prompt.recalled(spans)
        if section == "answer" and evidence and prompt.spec.evidence is None:
            return self._within(evidence)
        rules = prompt.spec.evidence
        if rules is not None and self._map is not None and len(evidence) < rules.least:
            return self._map.ranked(prompt.searched, rules.least - len(evidence) - 1)
        if not evidence and prompt.spec.prior is not None:
            return prompt.spec.prior.astype(np.float64)
        if self._map is None:
            self._map = sentence_map(prompt.runs, prompt.passages)
        recalled = [prompt.passages[p].text[a:b] for p, a, b in evidence]
        return self._map.scores(prompt.searched, recalled)

    def _within(self, evidence: Sequence[tuple[int, int, int]]) -> Floats:
        """Prefers starts inside the recalled ranges (passage, start, end)."""
        out = [np.empty(0)]
        for run in self._prompt.runs:
            tilt = np.full(len(run.starts), WITHIN_EVIDENCE)
            for passage, start, end in evidence:
                if passage == run.passage:
                    tilt[(run.starts >= start - 1) & (run.ends <= end + 1)] = 0.0
            passage, start, end = evidence[-1]
            if passage == run.passage:
                self._add_types(tilt, run, start, end)
            out.append(tilt)
        return np.concatenate(out)

    def _add_types(self, tilt: Floats, run: Run, start: int, end: int) -> None:
        """Raises the starts, in the last evidence, of what has the type that is asked for."""
        text = self._prompt.passages[run.passage].text
        typed = answer_starts(self._prompt.searched, text[start:end])
        for at, weight in typed.items():
            token = int(np.searchsorted(run.ends, start + at, side="right"))
            if token < len(tilt) and not text[run.starts[token] : start + at].strip():
                tilt[token] = OF_ASKED_TYPE * weight


def sentence_map(runs: Sequence[Run], passages: Sequence[Passage]) -> SentenceMap:
    """Returns the map of one prompt's runs, its sentences scored from scratch."""
    scorer = SentenceScorer(
        [p.text for p in passages], [p.title for p in passages], default_embedder()
    )
    return SentenceMap(runs, passages, scorer)
