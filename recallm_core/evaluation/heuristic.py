"""The baseline to beat: the best BM25 sentence, and a piece of it by the question's type."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from recallm_core.lexical import terms
from recallm_core.prior import sentence_prior

_MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_NUMBER = (
    r"(?:\d[\d,.]*\d|\d|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|"
    "twenty|thirty)"
)
_UNIT = r"(?:seconds?|minutes?|hours?|days?|weeks?|months?|years?)"
_NAME = r"(?:[A-Z][\w'-]*\.? )*[A-Z][\w'-]+"
_PATTERNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"\bwho(?:m|se)?\b", (rf"(?:(?:Mr|Ms|Mrs|Dr)\. )?[A-Z][a-z'-]+ {_NAME}", _NAME)),
    (r"\bhow (?:long|often|frequently|soon)\b", (rf"{_NUMBER} {_UNIT}", r"(?:once|twice) an? \w+")),
    (r"\bhow (?:much|expensive)\b|\bcosts?\b|\bprice\b|\bfee\b|\bfare\b",
     (r"[$€£]\d[\d,.]*\d|[$€£]\d", rf"{_NUMBER} (?:euros?|dollars?|pounds?|pence|cents|EUR|USD)",
      rf"{_NUMBER} ?%", rf"{_NUMBER} \w+")),
    (r"\bhow (?:many|high|tall|heavy|big|far|old)\b|\bnumber\b|\bport\b|\bextension\b",
     (rf"\b{_NUMBER} (?:metres|meters|feet|kg|km|watts|litres)", rf"\b{_NUMBER}\b")),
    (r"\bwhen\b|\bwhat (?:year|date|time|day)\b|\b(?:in|on) (?:which|what) (?:year|month|day)",
     (rf"(?:\d{{1,2}} )?{_MONTH}(?: \d{{1,2}}\b,?)?(?: \d{{4}})?", r"\b\d{1,2}:\d\d\b",
      r"\b1\d\d\d\b|\b20\d\d\b", r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)days?",
      rf"{_NUMBER} {_UNIT}")),
    (r"\bwhere\b|\b(?:which|what) (?:city|country|town|place|room)\b",
     (rf"(?<=\b(?:in|at|on|to) )(?:the )?{_NAME}", rf"(?<=\bfrom )(?:the )?{_NAME}", _NAME)),
    (r"\bwhy\b", (r"because of [^,.;]+|because [^,.;]+|due to [^,.;]+",)),
    (r"", (rf"[A-Z][\w'-]+ {_NAME}", rf"\b{_NUMBER}\b(?: \w+)?", _NAME)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Guess:
    """The sentence that the baseline picks, and its answer.

    Attributes:
        passage: Number of the passage.
        start: First character of the sentence.
        end: One past its last character.
        answer: A piece of the sentence, or all of it.
    """

    passage: int
    start: int
    end: int
    answer: str


def heuristic_answer(
    question: str, texts: Sequence[str], titles: Sequence[str | None] | None = None
) -> Guess | None:
    """Returns the baseline's answer, or None where no text has a sentence.

    The sentence is the likeliest of ``sentence_prior``; the answer is the first match of the
    patterns of the question's type that the question doesn't hold itself.
    """
    prior = sentence_prior(question, texts, titles)
    scored = [(log, -n, -a, b) for n, row in enumerate(prior) for a, b, log in row]
    if not scored:
        return None
    _, passage, start, end = max(scored)
    sentence = texts[-passage][-start:end]
    answer = next(_candidates(question, sentence), sentence)
    return Guess(-passage, -start, end, answer)


def _candidates(question: str, sentence: str) -> Iterator[str]:
    """Yields pieces of the type asked for, then of any type, without those asked about."""
    asked = question.casefold()
    known = set(terms(question))
    for cue, patterns in _PATTERNS:
        if re.search(cue, asked):
            for pattern in patterns:
                for match in re.finditer(pattern, sentence):
                    if not known.issuperset(terms(match.group())):
                        yield match.group()
