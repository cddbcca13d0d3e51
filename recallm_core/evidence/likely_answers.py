"""Which short pieces of the evidence the reader takes for the answer, and how sure it is of each.

A model that answers in its own words has the evidence before it, and small ones still take the
wrong piece of it, or repeat it whole. What the reader thinks draws their words, as it draws quotes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from recallm_core.documents.document import Passage
from recallm_core.evidence.answer_bias import LONGEST, SPREAD
from recallm_core.evidence.answer_edges import Edges, clean_edges
from recallm_core.evidence.protocol import LikelyAnswer, Range
from recallm_core.evidence.question_forms import asks_for_more_than_a_phrase, asks_yes_or_no
from recallm_core.evidence.reader import Reading

MOST_ANSWERS = 8
_BROKEN = re.compile(r"\w-[^\S\n]*\n")  # a word across two lines
_LIKELIEST = 64  # pairs of a start and an end that are looked at in a sentence


def likely_answers(
    question: str,
    passages: Sequence[Passage],
    evidence: Sequence[Range],
    readings: Sequence[Reading],
) -> tuple[LikelyAnswer, ...]:
    """Returns the likeliest answers, the likeliest first.

    Args:
        question: What is asked. Where it wants yes or no, a list or an account, no piece is the
            answer.
        passages: What the ranges lie in.
        evidence: The sentences that answers are looked for in.
        readings: What the reader says of windows that hold them.
    """
    if asks_yes_or_no(question) or asks_for_more_than_a_phrase(question):
        return ()
    scores: dict[str, float] = {}
    for passage, low, high in evidence:
        sentence = passages[passage].text[low:high]
        edges = clean_edges(question, sentence)
        windows = [reading for reading in readings if reading.window.passage == passage]
        for text, score in (p for r in windows for p in _pieces(r, sentence, low, edges)):
            scores[text] = float(np.logaddexp(scores.get(text, -np.inf), score))
    total = np.logaddexp.reduce([0.0, *scores.values()])  # none of them is the answer: 0
    best = sorted(scores.items(), key=lambda item: -item[1])[:MOST_ANSWERS]
    shares = ((text, float(np.exp(score - total))) for text, score in best)
    return tuple(LikelyAnswer(text, share) for text, share in shares if share > 0)


def _pieces(reading: Reading, sentence: str, low: int, edges: Edges) -> Iterator[tuple[str, float]]:
    """The likeliest pieces of a sentence, on one line, with log odds against none; clean edges."""
    window = reading.window
    inside = np.flatnonzero((window.starts >= low) & (window.ends <= low + len(sentence)))
    first, last = np.triu_indices(len(inside))
    near = last - first < LONGEST
    first, last = inside[first[near]], inside[last[near]]
    scores = reading.start[first] + reading.end[last] - SPREAD * (last - first)
    for n in np.argsort(-scores, kind="stable")[:_LIKELIEST]:
        start, end = int(window.starts[first[n]]) - low, int(window.ends[last[n]]) - low
        start, end = _clean_start(edges, sentence, start), _clean_end(edges, sentence, end)
        piece = sentence[start:end].strip()
        if piece and not _BROKEN.search(piece):  # what the whole word is can't be told
            yield " ".join(piece.split()), float(scores[n])


def _clean_start(edges: Edges, sentence: str, start: int) -> int:
    """The nearest clean start that takes in what seems to start there."""
    while start < len(sentence) and (sentence[start].isspace() or edges.first[start] > start):
        start = max(int(edges.first[start]), start + 1)
    clean = np.flatnonzero(edges.may_start[: start + 1])
    return int(clean[-1]) if clean.size else start


def _clean_end(edges: Edges, sentence: str, end: int) -> int:
    """The nearest clean end that takes in what seems to end there."""
    while end > 0 and (sentence[end - 1].isspace() or edges.last[end] < end):
        end = min(int(edges.last[end]), end - 1)
    clean = np.flatnonzero(edges.may_end[end:])
    return end + int(clean[0]) if clean.size else end
