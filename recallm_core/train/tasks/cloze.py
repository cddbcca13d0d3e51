# ruff: noqa: E501, SIM905 (tables of words and patterns)
"""Questions made from plain sentences: an answer is cut out and asked for by its type."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass

_MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_TYPES: tuple[tuple[str, re.Pattern[str], tuple[str, ...]], ...] = (
    ("date", re.compile(rf"\b(?:\d{{1,2}} )?{_MONTH}(?: \d{{1,2}},?)? \d{{4}}\b|\b{_MONTH} \d{{1,2}}\b"),
     ("when", "on what date", "when", "what date")),
    ("money", re.compile(r"[$€£]\d[\d,.]*\d?(?: (?:million|billion))?"), ("how much", "what amount", "how much money")),
    ("percent", re.compile(r"\b\d[\d.]*\s?(?:%|percent\b)"), ("what percentage", "how much", "what percent")),
    ("count", re.compile(r"\b(?:\d{1,3}(?:,\d{3})+|\d{1,3}|two|three|four|five|six|seven|eight|nine|ten|twelve)(?= [a-z]{4,}s\b)"),
     ("how many",)),
    ("year", re.compile(r"\b(?:1[3-9]\d\d|20\d\d)\b"), ("when", "what year", "in what year", "when")),
    ("place", re.compile(r"(?<=\bin )(?:the )?[A-Z][a-z]+(?:[ -][A-Z][a-z]+)*(?:, [A-Z][a-z]+)?|(?<=\b(?:at|to) )(?:the )?[A-Z][a-z]+(?: [A-Z][a-z]+)+"),
     ("where", "where", "in what city", "in which country", "what place")),
    ("agent", re.compile(r"(?<=\bby )[A-Z][a-z]+(?: [A-Z]\.)?(?: [A-Z][a-z]+)+"), ("who", "who", "by whom")),
    ("name", re.compile(r"\b[A-Z][a-z]+(?: [A-Z]\.)?(?: [A-Z][a-z]+)+"), ("who", "who", "what", "which", "what is the name of")),
    ("reason", re.compile(r"\b(?:because of|due to|in order to) [^,.;]{8,60}"), ("why",)),
    ("quoted", re.compile(r"(?<=[\"\u201c])[A-Z][^\"\u201d]{3,40}(?=[\"\u201d])"), ("what", "which song", "what title")),
    ("means", re.compile(r"(?<=\bis )(?:a|an|the) [a-z]+(?: [a-z]+){0,3}(?=[ ,.])"), ("what is", "what")),
)  # fmt: skip
_WRITTEN = (  # what pages of documentation have besides
    ("address", re.compile(r"[\w.+-]+@[\w-]+\.\w[\w.]*\w"), ("which address", "what address", "what")),
    ("channel", re.compile(r"(?<![\w/&(\[])#[a-z][a-z0-9-]{3,}\b"), ("which channel", "what channel", "where")),
    ("link", re.compile(r"(?<![(<])https?://[^\s)>\]\"`]*[\w/]"), ("which page", "what link", "where")),
    ("version", re.compile(r"(?<![\w.])v?\d+\.\d+(?:\.\d+)*(?![\w.%])"), ("which version", "what version")),
    ("code", re.compile(r"(?<=``)\w[^`\n]{1,40}(?=``)"), ("what", "which")),
    ("term", re.compile(r"(?<=\b(?:the|our|The|Our) )[A-Z][a-z]+(?: [A-Z][a-z]+)+"), ("what", "which")),
)  # fmt: skip
_LEAST_ASKED = 25  # characters of a sentence with a gap
_SPLIT = re.compile(r"[^\s]+")
_SMALL = frozenset(
    """
    the a an of in on at to and or by for with from as it its that this which is was were are be
    been has had have also
""".split()
)


@dataclass(frozen=True, slots=True)
class Cloze:
    """A question, and where its answer stands in the sentence it was made of."""

    question: str
    start: int
    end: int
    kind: str


def make_cloze(sentence: str, rng: random.Random) -> Cloze | None:
    """Returns a rough question that the sentence answers, or None if nothing can be asked.

    The words near the answer survive more often than those far away, so that the question reads
    like a short search and the answer can't be found by taking the words it lacks.
    """
    if not 25 <= len(sentence) <= 420:
        return None
    for kind, pattern, words in _shuffle(rng):
        spans = [m.span() for m in pattern.finditer(sentence)]
        if kind == "name":
            spans = [(a, b) for a, b in spans if a > 0 or rng.random() < 0.7]
        if spans:
            start, end = rng.choice(spans)
            return _ask(sentence, start, end, kind, rng.choice(words), rng)
    return None


def ask_in_place(sentence: str, rng: random.Random) -> Cloze | None:
    """Returns a sentence with a question word where its answer stood; None if nothing fits.

    So does somebody ask who remembers a sentence but for one thing in it. Words far from the
    answer are forgotten at times.
    """
    if not 40 <= len(sentence) <= 300:
        return None
    for kind, pattern, words in _shuffle(rng, (*_TYPES, *_WRITTEN)):
        spans = [m.span() for m in pattern.finditer(sentence)]
        if spans:
            start, end = rng.choice(spans)
            word = rng.choice([w for w in words if len(w.split()) < 3])
            before, after = sentence[:start], sentence[end:].rstrip(" .;:!?")
            if rng.random() < 0.4:
                before = " ".join(before.split(" ")[-rng.randint(4, 12) :])
            if rng.random() < 0.3:
                after = " ".join(after.split(" ")[: rng.randint(4, 12)])
            question = " ".join(f"{before}{word}{after}".split()).strip("-+* ")
            if len(question) > _LEAST_ASKED:
                return Cloze(f"{question}?", start, end, kind)
    return None


def _shuffle(
    rng: random.Random, types: Iterable[tuple[str, re.Pattern[str], tuple[str, ...]]] = _TYPES
) -> list[tuple[str, re.Pattern[str], tuple[str, ...]]]:
    kinds = list(types)
    rng.shuffle(kinds)
    return kinds


def _ask(
    sentence: str, start: int, end: int, kind: str, lead: str, rng: random.Random
) -> Cloze | None:
    near = rng.uniform(0.0, 0.35)
    words_left = []
    for match in _SPLIT.finditer(sentence):
        if match.end() > start and match.start() < end:
            continue
        gap = min(abs(match.start() - end), abs(start - match.end()))
        word = match.group().strip("\"'()[],;:*_|#.\u201c\u201d")
        drop = near + (gap / 160.0 if gap > 20 else 0.0)
        if word.casefold() in _SMALL:
            drop += 0.25
        if word and rng.random() > min(drop, 0.9):
            words_left.append((match.start(), word))
    if len(words_left) < 2:
        return None
    if rng.random() < 0.3:  # what follows the answer first, as in a passive turned round
        words_left = [k for k in words_left if k[0] >= end] + [k for k in words_left if k[0] < end]
    if kind == "count":
        words_left.sort(key=lambda k: (k[0] < end, k[0]))
    body = " ".join(word for _, word in words_left[:16])
    question = f"{lead} {body}"
    if rng.random() < 0.6:
        question = question[0].upper() + question[1:] + "?"
    return Cloze(question, start, end, kind)
