"""Which words of a sentence could answer a question, by the type that the question asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator

from recallm_core.text.lexical import terms

_MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_NUMBER = (
    r"(?:\d[\d,.]*\d|\d|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|"
    "twenty|thirty)"
)
_UNIT = r"(?:seconds?|minutes?|hours?|days?|weeks?|months?|years?)"
_NAME = r"(?:[A-Z][\w'-]*\.? )*[A-Z][\w'-]+"
_MOST_STARTS = 6
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


def typed_candidates(question: str, sentence: str) -> Iterator[tuple[int, int]]:
    """Yields ranges of ``sentence`` of the type that ``question`` asks for, the likeliest first.

    The type is read off the question's words by patterns (who: a name, when: a date or a time, how
    much: an amount, and so on; English only). What the question says itself is left out. After
    the ranges of the first fitting type come those of the others.
    """
    folded = question.casefold()
    known = set(terms(question))
    for cue, patterns in _PATTERNS:
        if re.search(cue, folded):
            for pattern in patterns:
                for match in re.finditer(pattern, sentence):
                    if not known.issuperset(terms(match.group())):
                        yield match.span()


def answer_starts(question: str, sentence: str) -> dict[int, float]:
    """Returns where an answer of the type asked for may start, with a weight of at most 1.

    Empty where the question's type isn't recognised, or nothing in the sentence has it.
    """
    folded = question.casefold()
    typed = any(cue and re.search(cue, folded) for cue, _ in _PATTERNS)
    weights: dict[int, float] = {}
    for rank, (start, _) in enumerate(typed_candidates(question, sentence) if typed else ()):
        if rank == _MOST_STARTS:
            break
        weights.setdefault(start, max(0.5, 1.0 - 0.1 * rank))
    return weights
