"""How good an answer is, and how sure that is: scores in [0, 1] and their bootstrap intervals."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_DRAWS = 2000
_ARTICLES = frozenset(("a", "an", "the"))
_MARK = re.compile(r"(\n[ \t]*)(?:>[ \t]*)+")  # of a quoted line
_ODD = re.compile(r"[^\w\s%$€£:.,/#@-]")


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % bootstrap interval.

    Attributes:
        mean: The value over all rows.
        low: 2.5th percentile over resampled rows.
        high: 97.5th percentile.
        n: Rows.
    """

    mean: float
    low: float
    high: float
    n: int


def words(text: str) -> list[str]:
    """Returns the words of an answer: lower case, no articles, no punctuation around words."""
    stripped = (word.strip(".,:") for word in _ODD.sub(" ", text.casefold()).split())
    return [word for word in stripped if word and word not in _ARTICLES]


def exact_match(answer: str, golds: Sequence[str]) -> float:
    """Returns 1 where the answer has the words of a gold answer, in order, and no others."""
    return float(any(_same(answer, gold) for gold in golds))


def _same(answer: str, gold: str) -> bool:
    """Whether two answers have the same words; of two without any, whether they are equal."""
    answered = words(answer)
    return answered == words(gold) and (bool(answered) or answer.strip() == gold.strip())


def word_f1(answer: str, golds: Sequence[str]) -> float:
    """Returns the best F1 of the answer's words against those of a gold answer (as in SQuAD)."""
    return max((_overlap(words(answer), words(gold)) for gold in golds), default=0.0)


def _overlap(a: list[str], b: list[str]) -> float:
    shared = sum((Counter(a) & Counter(b)).values())
    return 2 * shared / (len(a) + len(b)) if shared else 0.0


def holds(text: str, golds: Sequence[str]) -> float:
    """Returns 1 where a gold answer stands in the text, not as a part of a longer word."""
    folded = _comparable_form(text)
    return float(
        any(
            _whole_word_pattern(_comparable_form(gold)).search(folded)
            for gold in golds
            if gold.strip()
        )
    )


def _comparable_form(text: str) -> str:
    return " ".join(_MARK.sub(r"\1", text).casefold().split())


def _whole_word_pattern(gold: str) -> re.Pattern[str]:
    first = r"(?<!\w)" if re.match(r"\w", gold) else ""
    last = r"(?!\w)" if re.search(r"\w\Z", gold) else ""
    return re.compile(first + re.escape(gold) + last)


def interval(values: Sequence[float], *, seed: int = 0) -> Interval:
    """Returns the mean of some rows with its interval.

    Raises:
        ValueError: There are no rows.
    """
    sample = np.asarray(values, dtype=np.float64)
    if not sample.size:
        raise ValueError("an interval needs at least one row, got none")
    draws = sample[_picks(len(sample), seed)].mean(1)
    return Interval(float(sample.mean()), *_bounds(draws), len(sample))


def auroc(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """Returns how often a positive scores above a negative, ties counted as half.

    Raises:
        ValueError: One side is empty.
    """
    high = np.asarray(positives, dtype=np.float64)
    low = np.sort(np.asarray(negatives, dtype=np.float64))
    if not high.size or not low.size:
        raise ValueError(f"an AUROC needs both kinds, got {high.size} and {low.size} rows")
    below = np.searchsorted(low, high, side="left")
    ties = np.searchsorted(low, high, side="right") - below
    return float((below + ties / 2).sum() / (high.size * low.size))


def auroc_interval(
    positives: Sequence[float], negatives: Sequence[float], *, seed: int = 0
) -> Interval:
    """Returns the AUROC with its interval; both kinds are resampled apart."""
    high, low = np.asarray(positives), np.asarray(negatives)
    mean = auroc(positives, negatives)
    pairs = zip(_picks(len(high), seed), _picks(len(low), seed + 1), strict=True)
    draws = np.array([auroc(high[a].tolist(), low[b].tolist()) for a, b in pairs])
    return Interval(mean, *_bounds(draws), len(high) + len(low))


def roc_points(
    positives: Sequence[float], negatives: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Returns false and true positive rates as the threshold falls, from (0, 0) to (1, 1)."""
    high, low = np.asarray(positives), np.asarray(negatives)
    levels = np.unique(np.concatenate([high, low]))[::-1]
    true = [0.0, *((high >= level).mean().item() for level in levels)]
    false = [0.0, *((low >= level).mean().item() for level in levels)]
    return false, true


def _picks(n: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, n, (_DRAWS, n))


def _bounds(draws: Floats) -> tuple[float, float]:
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)
