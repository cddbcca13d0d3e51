"""How good an answer is: computed from the row and its documents, never from what answered."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from recallm_core.evaluation.cited.items import UNSCORED
from recallm_core.evaluation.cited.words import contains, exact, f1, words_of
from recallm_core.evaluation.frame.records import AnswerRecord, CitationRecord
from recallm_core.evaluation.items import Item
from recallm_core.evaluation.metrics import Interval, interval
from recallm_core.text.lexical import sentences

Measure = Callable[[Item, AnswerRecord], float]
_Z = 1.959964  # of the normal distribution: 95 % lie within


def has_citation(item: Item, answer: AnswerRecord) -> float:
    """Whether there is a citation."""
    return float(bool(answer.citations))


def hit(item: Item, answer: AnswerRecord) -> float:
    """Whether a citation's range in the document that answers holds a gold answer.

    In a user's own rows that is any document; those of the suites hold it in one only.
    """
    answering = {d.id for n, d in enumerate(item.documents) if item.gold in (n, -1)}
    quoted = [c for c in answer.citations if c.document in answering]
    return float(any(contains(_slice(item, c), item.answers) for c in quoted))


def right(item: Item, answer: AnswerRecord) -> float:
    """Whether the text that a user reads, quotes included, holds a gold answer."""
    return float(contains(answer.text, item.answers))


def own_f1(item: Item, answer: AnswerRecord) -> float:
    """F1 of the model's own words against the gold answers."""
    return f1(answer.words, item.answers)


def own_em(item: Item, answer: AnswerRecord) -> float:
    """Whether the model's own words are a gold answer and nothing else."""
    return float(exact(answer.words, item.answers))


def length(item: Item, answer: AnswerRecord) -> float:
    """Words that a user reads."""
    return float(len(words_of(answer.text)))


def is_abstention(item: Item, answer: AnswerRecord) -> float:
    """Whether it counts as no answer."""
    return float(bool(answer.abstained))


def repeats(item: Item, answer: AnswerRecord) -> float:
    """Whether a quote stands twice in the answer."""
    texts = [_of(item, *quote).strip() for quote in answer.quotes]
    ranges = [(c.document, c.start, c.end) for c in answer.citations]
    return float(len(set(texts)) < len(texts) or len(set(ranges)) < len(ranges))


def wrong_slices(item: Item, answer: AnswerRecord) -> float:
    """How many citations aren't the slice of their document that they say."""
    return float(sum(not c.text or _slice(item, c) != c.text for c in answer.citations))


def nearest(item: Item, answer: AnswerRecord) -> float:
    """Whether the sentence of the documents that shares most words with the text holds the answer.

    A plain way to cite what a model says without quotes; of equals, the first sentence counts.
    """
    words = set(words_of(answer.text))
    texts = [d.text[a:b] for d in item.documents for a, b in sentences(d.text)]
    shared = [len(words & set(words_of(text))) for text in texts]
    best = max(shared, default=0)
    return float(best > 0 and contains(texts[shared.index(best)], item.answers))


def _slice(item: Item, citation: CitationRecord) -> str:
    return _of(item, citation.document, citation.start, citation.end)


def _of(item: Item, document: str, start: int, end: int) -> str:
    """A document's slice; empty where there is no such document or range."""
    texts = {d.id: d.text for d in item.documents}
    text = texts.get(document, "")
    return text[start:end] if 0 <= start < end <= len(text) else ""


ALWAYS: dict[str, Measure] = {
    "cited": has_citation,
    "abstained": is_abstention,
    "repeats": repeats,
    "wrong_slices": wrong_slices,
    "words": length,
    "seconds": lambda item, answer: answer.seconds,
    "cpu_seconds": lambda item, answer: answer.cpu_seconds,
    "prompt_tokens": lambda item, answer: float(answer.prompt_tokens),
    "output_tokens": lambda item, answer: float(answer.output_tokens),
}
ANSWERED: dict[str, Measure] = {"hit": hit, "right": right, "f1": own_f1, "em": own_em}
OURS = ("cited", "abstained", "repeats", "wrong_slices", "hit")
SHARES = ("cited", "hit", "right", "em", "abstained", "repeats", "nearest")


def measures(*, answerable: bool, plain: bool) -> dict[str, Measure]:
    """Returns what is measured of a group of rows, by name.

    Args:
        answerable: Whether their gold answers are known.
        plain: Whether the model answered without the library: then nothing was cited, and the
            nearest sentence is looked at instead.
    """
    applicable = ALWAYS | (ANSWERED if answerable else {})
    if not plain:
        return applicable
    uncited = {name: measure for name, measure in applicable.items() if name not in OURS}
    return uncited | ({"nearest": nearest} if answerable else {})


def answer_scores(item: Item, answer: AnswerRecord) -> dict[str, float]:
    """Returns the figures of one answer; of a model without the library too, as if it had cited."""
    named = measures(answerable=kind(item) == "answerable", plain=False)
    return {name: measure(item, answer) for name, measure in named.items()}


def kind(item: Item) -> str:
    """Returns ``answerable``, ``unanswerable``, or ``unscored`` (no gold answers were given)."""
    if item.group == UNSCORED:
        return UNSCORED
    return "answerable" if item.answerable else "unanswerable"


def interval_of(name: str, values: Sequence[float]) -> Interval:
    """Returns a mean with its 95 % interval: Wilson's for shares, else the bootstrap's."""
    return wilson(sum(values), len(values)) if name in SHARES else interval(values)


def wilson(successes: float, n: int) -> Interval:
    """Returns a share with Wilson's interval, which doesn't shrink to nothing at 0 and 1.

    Raises:
        ValueError: There are no rows.
    """
    if n < 1:
        raise ValueError("an interval needs at least one row, got none")
    share, spread = successes / n, _Z * _Z / n
    middle = (share + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return Interval(share, min(low, share), max(high, share), n)
