"""How right an answer is, from 0 to 1, by each kind of answer key."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Callable, Sequence

from recallm_core.train.tasks.families.problem import Key

ANSWER_LINE = re.compile(r"(?:^|(?<=\n))[ \t]*Answer:[ \t]*")
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_REFERENCE = re.compile(r"\[(\d+)\]")
_ID = re.compile(r"\d+")
_LETTER = re.compile(r"\b([A-D])\b")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_BETWEEN = re.compile(r"[,;\n]|\band\b")
_RANKED = 10
_COVERED = 5  # answers of a list that are enough
_PARTIAL = 0.25


def final_answer(text: str) -> str | None:
    """Returns what stands behind the last "Answer:" that begins a line; None: there is none."""
    places = list(ANSWER_LINE.finditer(text))
    return text[places[-1].end() :].strip() if places else None


def normalise(text: str) -> str:
    """Returns a text in lower case, without punctuation, articles and double spaces."""
    return " ".join(_ARTICLES.sub(" ", text.casefold().translate(_PUNCTUATION)).split())


def answer_score(answer: str | None, key: Key) -> float:
    """Returns how right an answer is; an answer without an answer line (None) is worth nothing."""
    return 0.0 if not answer else _SCORES[key.kind](answer, key)


def contains(text: str, phrase: str) -> bool:
    """Says whether words stand in a text as whole words, letter case aside."""
    words = phrase.casefold().strip()
    pattern = rf"(?<!\w){re.escape(words)}(?!\w)"
    return bool(words) and re.search(pattern, text.casefold()) is not None


def _values(answer: str, key: Key) -> float:
    """Right values less wrong ones, over the wanted ones."""
    right = sum(any(contains(answer, w) for w in wordings) for wordings in key.values)
    wrong = sum(not _is_gold(item, key) for item in _items(answer))
    return max(0.0, right - wrong) / len(key.values)


def _items(answer: str) -> list[str]:
    return [item.strip() for item in _BETWEEN.split(answer) if normalise(item)]


def _is_gold(item: str, key: Key) -> bool:
    return any(contains(item, w) for wordings in key.values for w in wordings)


def _solution(answer: str, key: Key) -> float:
    if any(contains(answer, w) for w in key.values[0]):
        return 1.0
    return _PARTIAL if key.partial and contains(answer, key.partial) else 0.0


def _boxed_result(answer: str, key: Key) -> float:
    boxes = _BOXED.findall(answer)
    result = boxes[-1] if boxes else answer
    return float(result.strip().rstrip(".") in key.values[0])


def _label(answer: str, key: Key) -> float:
    labels = {normalise(w.replace("_", " ")) for w in key.values[0]}
    return float(normalise(answer.replace("_", " ")) in labels)


def _choice(answer: str, key: Key) -> float:
    letters = _LETTER.findall(answer)
    return float(bool(letters) and letters[0] in key.values[0])


def _words(answer: str, key: Key) -> float:
    """Whether the answer holds a wording, or the other way round, words being whole."""
    short = normalise(answer)
    return float(any(_same_words(short, normalise(w)) for w in key.values[0]))


def _same_words(one: str, other: str) -> bool:
    """An empty text is part of any other, and the same as none."""
    return bool(one and other) and (f" {one} " in f" {other} " or f" {other} " in f" {one} ")


def ranked_ids(answer: str) -> list[str]:
    """Returns the ids of an answer "3 > 1 > 2", each at its first place."""
    return list(dict.fromkeys(_ID.findall(answer)))


def _ranking(answer: str, key: Key) -> float:
    grades = dict(key.grades)
    return ndcg([grades.get(i, 0.0) for i in ranked_ids(answer)], list(grades.values()))


def ndcg(ranked: Sequence[float], grades: Sequence[float], depth: int = _RANKED) -> float:
    """Returns the discounted gain of grades as ranked, over that of the best order."""
    best = _gain(sorted(grades, reverse=True)[:depth])
    return _gain(ranked[:depth]) / best if best else 0.0


def _gain(grades: Sequence[float]) -> float:
    return sum(grade / math.log2(place + 2) for place, grade in enumerate(grades))


def cited_references(answer: str) -> list[str]:
    """Returns the numbers that an answer cites as [n], each once."""
    return list(dict.fromkeys(_REFERENCE.findall(answer)))


def uncited_text(answer: str) -> str:
    """Returns an answer without its citations."""
    return _REFERENCE.sub(" ", answer).strip(" \n\t.,;")


def _citations(answer: str, key: Key) -> float:
    """Mostly whether the right passages are cited, partly how many of the answers are named."""
    cited, references = set(cited_references(answer)), set(key.references)
    hits = len(cited & references)
    f1 = 2 * hits / (len(cited) + len(references)) if hits else 0.0
    words = normalise(uncited_text(answer))
    named = sum(any(_inside(normalise(w), words) for w in wordings) for wordings in key.values)
    return 0.8 * f1 + 0.2 * min(1.0, named / min(_COVERED, len(key.values)))


def _inside(phrase: str, words: str) -> bool:
    return bool(phrase) and f" {phrase} " in f" {words} "


_SCORES: dict[str, Callable[[str, Key], float]] = {
    "values": _values,
    "solved": _solution,
    "boxed": _boxed_result,
    "label": _label,
    "choice": _choice,
    "words": _words,
    "ranking": _ranking,
    "cited": _citations,
}
