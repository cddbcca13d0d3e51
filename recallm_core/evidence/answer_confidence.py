"""How probable it is that a quoted answer is right, by what the reader thinks of it and its rivals.

That the documents hold an answer isn't that this is it. Four signals, of which more never counts
against an answer, are weighed in a logistic form; its weights stand beside the reader, in
``confidence.json``, made by ``python -m recallm_core.evaluation.confidence``. It makes nothing
legal or illegal, and nothing abstain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recallm_core.errors import CheckpointError
from recallm_core.evidence.answer_bias import LONGEST, MOST_ODDS
from recallm_core.evidence.protocol import Range
from recallm_core.evidence.reader import Reading
from recallm_core.inputs.model_files import read_json
from recallm_core.text.lexical import terms

Bools = NDArray[np.bool_]
FILE = "confidence.json"
_HEAVIEST = 100.0  # of any weight in a file


@dataclass(frozen=True, slots=True)
class Signals:
    """What speaks for an answer.

    Attributes:
        fit: Log odds that the documents hold an answer.
        within: How much better the reader likes it than any other piece of its evidence.
        beyond: How much better than any piece of what else it read, but for the same words.
        words: The share of the question's words that the evidence or its title holds.
    """

    fit: float
    within: float
    beyond: float
    words: float


@dataclass(frozen=True, slots=True)
class Confidence:
    """The weights of the signals.

    Attributes:
        base: The log odds where there are no signals.
        fit, within, beyond, words: What a signal counts for; none is negative.
    """

    base: float
    fit: float
    within: float
    beyond: float
    words: float

    def probability(self, signals: Signals) -> float:
        """Returns a probability in [0, 1], never above that of there being an answer."""
        weighed = sum(getattr(self, name) * value for name, value in asdict(signals).items())
        return _probability(min(signals.fit, self.base + weighed))


def _probability(odds: float) -> float:
    """The probability of log odds, however large they are."""
    if odds >= 0:
        return 1 / (1 + math.exp(-odds))
    share = math.exp(odds)
    return share / (1 + share)


@cache
def read_confidence(folder: Path) -> Confidence | None:
    """Returns the weights beside a reader; None: it has none.

    Raises:
        CheckpointError: The file isn't what it should be.
    """
    if not (folder / FILE).is_file():
        return None
    values = read_json(folder / FILE)
    for field in fields(Confidence):
        value, lowest = values.get(field.name), -_HEAVIEST if field.name == "base" else 0.0
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (is_number and lowest <= float(value or 0) <= _HEAVIEST):
            raise CheckpointError(
                f"{folder / FILE} should say {field.name} from {lowest:g} to {_HEAVIEST:g}, but "
                f"says {value!r}; fit it anew with python -m recallm_core.evaluation.confidence"
            )
    return Confidence(**{field.name: float(values[field.name]) for field in fields(Confidence)})


def answer_signals(
    question: str,
    readings: Sequence[Reading],
    texts: Sequence[str],
    title: str | None,
    evidence: Range,
    answer: Range,
) -> Signals:
    """Returns what speaks for an answer.

    Args:
        question: What is asked.
        readings: What the reader says, told all but the last of what was recalled.
        texts: The passages.
        title: That of the evidence's passage.
        evidence: What was recalled last.
        answer: The answer's place in it.
    """
    likes, within, beyond = -math.inf, -math.inf, -math.inf
    words = _text_at(answer, texts).casefold()
    for reading in readings:
        is_answer, is_evidence = _inside(reading, answer), _inside(reading, evidence)
        likes = max(likes, _score(reading, is_answer))
        within = max(within, _best(reading, is_evidence & ~is_answer)[0])
        score, rival = _best(reading, ~is_evidence & ~is_answer)
        if words not in _text_at(rival, texts).casefold():
            beyond = max(beyond, score)
    fit = max((reading.answerable for reading in readings), default=-math.inf)
    asked = set(terms(question))
    shown = set(terms(f"{_text_at(evidence, texts)} {title or ''}"))
    return Signals(
        float(np.clip(fit, -MOST_ODDS, MOST_ODDS)),
        _margin(likes, within),
        _margin(likes, beyond),
        len(asked & shown) / max(1, len(asked)),
    )


def _text_at(place: Range, texts: Sequence[str]) -> str:
    passage, start, end = place
    return texts[passage][start:end]


def _inside(reading: Reading, place: Range) -> Bools:
    """Which tokens of a window are part of a place."""
    window, (passage, start, end) = reading.window, place
    inside: Bools = (window.ends > start) & (window.starts < end) & (window.passage == passage)
    return inside


def _score(reading: Reading, tokens: Bools) -> float:
    """How well the answer starts with the first of some tokens and ends with the last."""
    places = np.flatnonzero(tokens)
    if not places.size:
        return -math.inf
    return float(reading.start[places[0]] + reading.end[places[-1]]) / 2


def _best(reading: Reading, tokens: Bools) -> tuple[float, Range]:
    """The best score of a start and an end among some tokens, and where that is."""
    window = reading.window
    start = np.where(tokens, reading.start, -np.inf)
    end = np.where(tokens, reading.end, -np.inf)
    best, first, last = -math.inf, 0, 0
    for distance in range(min(LONGEST, len(start))):
        scores = start[: len(start) - distance] + end[distance:]
        at = int(scores.argmax())
        if scores[at] > best:
            best, first, last = float(scores[at]), at, at + distance
    return best / 2, (window.passage, int(window.starts[first]), int(window.ends[last]))


def _margin(one: float, other: float) -> float:
    """How much better one score is than another, within bounds."""
    if one == -math.inf:
        return -MOST_ODDS
    return float(np.clip(one - other, -MOST_ODDS, MOST_ODDS))
