"""Questions made from plain sentences whose answer is a clause: what something is, why, how.

``cloze`` asks for names, dates and numbers; questions over papers and manuals seldom do.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Iterator
from dataclasses import replace

from recallm_core.train.tasks.cloze import Cloze

_FIRST = (  # what a subject that means something by itself doesn't begin with
    r"(?!(?:It|This|That|These|Those|There|He|She|They|We|You|I|What|If|In|On|At|By|For|With|As|When|"
    r"While|After|Before|Since|Under|From|Among|To|And|But|Or|Its|His|Her|Their|Our|Such)\b)"
)
_LAST = r"(?<!\b(?:that|also|only|then))(?<!\b(?:and|not|who|the))(?<!\b(?:in|to|of|is|or|as|by))"
_SUBJECT = rf"^(?P<x>{_FIRST}[^,.;:()\n#>|*\"]{{3,60}}?){_LAST}"
_REST = r"[^.;:()]{6,140}?(?=[.;:()]|$|, (?:which|who|and|but|while|where|so)\b)"
_VERBS = (
    "refer to|consist of|include|contain|comprise|mean|involve|require|provide|describe|represent|"
    "show|suggest|support|allow|return|cause|lead to|result in|prevent|reduce|increase|improve|"
    "affect|produce|define|specify|propose|replace|depend on|belong to|focus on|deal with"
)
_PERSON = re.compile(
    r"\b(?:actor|actress|singer|player|politician|writer|author|composer|king|queen|scientist|"
    r"painter|musician|footballer|director|philosopher|general|bishop|poet|lawyer)\b"
)
_AUXILIARY = re.compile(r"\b(?:is|are|was|were|be|has|have|had|can|may|will|should|would|must)\b")
_DEFINED = re.compile(
    rf"{_SUBJECT}(?: \([^)]*\))? (?P<be>is|was|are|were) (?P<a>(?:an?|the|one of) {_REST})"
)
_DOES = re.compile(rf"{_SUBJECT} (?P<v>{re.sub(r'(?=[ |]|$)', 's?', _VERBS)}) (?P<a>{_REST})")
_USED = re.compile(
    rf"{_SUBJECT} (?P<be>is|are|was|were|can be|may be) used (?P<a>(?:to|for|as|in) {_REST})"
)
_WHY = re.compile(
    rf"^(?P<p>{_FIRST}.{{20,160}}?),? "
    rf"(?P<a>(?:because|due to|owing to|as a result of|in order to|so that) {_REST})"
)
_HOW = re.compile(rf"^(?P<p>{_FIRST}.{{20,140}}?) (?P<a>(?:by \w+ing|through|using|via) {_REST})")
_AROUND = string.whitespace + ","  # what is no part of an answer at its ends
_SHORTEST, _LONGEST = 30, 420  # characters of a sentence that is asked about


def make_clause(sentence: str, rng: random.Random) -> Cloze | None:
    """Returns a question whose answer is a clause of a sentence, or None if nothing can be asked.

    Args:
        sentence: As it stands in its passage.
        rng: The choices follow from it.
    """
    if not _SHORTEST <= len(sentence) <= _LONGEST:
        return None
    questions = [question for ask in _ASKING for question in ask(sentence, rng)]
    return _trimmed(rng.choice(questions), sentence) if questions else None


def _trimmed(cloze: Cloze, sentence: str) -> Cloze:
    answer = sentence[cloze.start : cloze.end].rstrip(_AROUND)
    start = cloze.start + len(answer) - len(answer.lstrip(_AROUND))
    asked = " ".join(cloze.question.split())
    return replace(cloze, question=asked, start=start, end=cloze.start + len(answer))


def _what_it_is(sentence: str, rng: random.Random) -> Iterator[Cloze]:
    for match in _DEFINED.finditer(sentence):
        word = "Who" if _PERSON.search(match["a"]) else "What"
        asking = rng.choice(
            ("{w} {b} {x}?", "{w} {b} {x}?", "What is meant by {x}?", "{w} {b} {x}")
        )
        question = asking.format(w=word, b=match["be"], x=_low(match["x"]))
        yield Cloze(question, *match.span("a"), "is")


def _what_it_does(sentence: str, rng: random.Random) -> Iterator[Cloze]:
    for match in _DOES.finditer(sentence):
        first, *more = match["v"].split(" ")
        is_one = first.endswith("s")
        if _AUXILIARY.search(match["x"]) or not (is_one or match["x"].endswith("s")):
            continue  # a noun, most likely
        verb = " ".join([first.removesuffix("s"), *more])
        helper = "does" if is_one else "do"
        yield Cloze(f"What {helper} {_low(match['x'])} {verb}?", *match.span("a"), "does")
        if rng.random() < 0.5:
            yield Cloze(f"What {match['v']} {match['a']}?", *match.span("x"), "by")


def _what_for(sentence: str, rng: random.Random) -> Iterator[Cloze]:
    for match in _USED.finditer(sentence):
        be, x = match["be"].removesuffix(" be"), _low(match["x"])
        used = "be used" if match["be"].endswith(" be") else "used"
        asking = rng.choice(("What {b} {x} {u} for?", "For what {b} {x} {u}?", "How {b} {x} {u}?"))
        yield Cloze(asking.format(b=be, x=x, u=used), *match.span("a"), "used")


def _why(sentence: str, rng: random.Random) -> Iterator[Cloze]:
    yield from _beside(_WHY, sentence, rng.choice(("Why {p}?", "Why is it that {p}?", "why {p}")))


def _how(sentence: str, rng: random.Random) -> Iterator[Cloze]:
    yield from _beside(_HOW, sentence, rng.choice(("How {p}?", "In what way {p}?", "how {p}")))


def _beside(pattern: re.Pattern[str], sentence: str, asking: str) -> Iterator[Cloze]:
    for match in pattern.finditer(sentence):
        question = asking.replace("{p}", _low(match["p"]).strip(" ,"))
        yield Cloze(question, *match.span("a"), "clause")


def _low(subject: str) -> str:
    """A subject as it stands within a sentence, as far as its first word tells."""
    first = subject.split(" ", 1)[0]
    articles = ("The", "A", "An", "Some", "Many", "Most", "All", "Each")
    return subject[:1].lower() + subject[1:] if first in articles else subject


_Asking = Callable[[str, random.Random], Iterator[Cloze]]
_ASKING: tuple[_Asking, ...] = (_what_it_is, _what_it_does, _what_for, _why, _how)
