"""Long documents: a question with four options about one page of a manual or a specification."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from recallm_core.text.lexical import sentences
from recallm_core.train.tasks.cloze import make_cloze
from recallm_core.train.tasks.families.problem import Family, Key, Problem, Scoring
from recallm_core.train.tasks.families.sources import Sources

_SCORING = Scoring("any", free_spans=4, least_characters=7)
_FRONT = re.compile(r"\A(?:.*\n){0,20}?---\n")  # settings of a page, before its text
_MARKUP = re.compile(r"[][{}|<>`*_#=\\~^]|\w://|::|^ *[-+.:•]|\S {3}", re.MULTILINE)
_PROSE = re.compile(r"[A-Z][^\n].*[.!?]", re.DOTALL)
_NAMES, _NUMBERS = (
    ("place", "agent", "name", "quoted"),
    ("date", "money", "percent", "count", "year"),
)
_DIGITS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}
_AROUND = re.compile(r"[\s\"'()“”]|[,.;:!?]+(?:\s|$)|$")
_ENOUGH, _MOST = 8, 30_000  # gaps of a part of a page, and else characters of it that are read
_WHOLE = 400  # characters of a page that is worth a question


class _Gap(NamedTuple):
    """A sentence without one piece of it: a name, or a number."""

    question: str
    answer: str
    is_name: bool


def _draw(name: str, rng: random.Random, sources: Sources, size: int) -> Problem | None:
    row = sources.draw(name, rng)
    text = _excerpt(row["text"], rng, size)
    if len(text) < _WHOLE or sources.check.leaks("", [text]):
        return None
    gaps = _all_gaps(text, rng)
    others = gaps if len(gaps) > _ENOUGH else gaps + _all_gaps(row["text"][:_MOST], rng)
    for gap in rng.sample(gaps, len(gaps)):
        options = _options(rng, others, gap)
        if options is not None:
            return _problem(name, (str(row["title"]), text), gap, options)
    return None


def _excerpt(text: str, rng: random.Random, size: int) -> str:
    """Whole paragraphs of a page, as many as fit; of one alone, whole sentences."""
    text = _FRONT.sub("", text).strip()
    begins = [0, *(match.end() for match in re.finditer(r"\n\s*\n", text))]
    start = rng.choice([place for place in begins if len(text) - place >= size] or [0])
    ends = [match.start() for match in re.finditer(r"\n\s*\n", text[: start + size])]
    if len(text) - start > size:
        end = ends[-1] if ends and ends[-1] - start >= _WHOLE else _last_sentence(text, start, size)
        text = text[:end]
    return text[start:].strip()


def _last_sentence(text: str, start: int, size: int) -> int:
    whole = sentences(text[start : start + size])[:-1]
    return start + (whole[-1][1] if whole else 0)


def _all_gaps(text: str, rng: random.Random) -> list[_Gap]:
    return [gap for a, b in sentences(text) for gap in _gaps(text[a:b], rng)]


def _gaps(sentence: str, rng: random.Random) -> list[_Gap]:
    """At most one: none of a heading, a list or a table, or where no name or number stands."""
    if _MARKUP.search(sentence) or not _PROSE.fullmatch(sentence):
        return []
    cloze = make_cloze(sentence, rng)
    if cloze is None or cloze.kind not in (*_NAMES, *_NUMBERS):
        return []
    answer = sentence[cloze.start : cloze.end]
    if not _AROUND.match(sentence, cloze.end):  # amid a word such as Co-op
        return []
    around = " ".join(f"{sentence[: cloze.start]}____{sentence[cloze.end :]}".split())
    return [_Gap(around, " ".join(answer.split()), cloze.kind in _NAMES)]


def _options(rng: random.Random, gaps: Sequence[_Gap], asked: _Gap) -> list[str] | None:
    """The answer among three pieces of other sentences, names or numbers as far as there are."""
    options = {_value(asked.answer): asked.answer}
    others = rng.sample(list(gaps), len(gaps))
    for gap in sorted(others, key=lambda other: other.is_name != asked.is_name):
        piece = _value(gap.answer)
        if not any(_clash(piece, other) for other in (*options, asked.question.casefold())):
            options[piece] = gap.answer
        if len(options) == 4:
            return rng.sample(list(options.values()), 4)
    return None


def _value(piece: str) -> str:
    return str(_DIGITS.get(piece, piece)).casefold()


def _clash(piece: str, other: str) -> bool:
    """Whether one of two pieces stands in the other as whole words."""
    short, long = sorted((piece, other), key=len)
    return re.search(rf"(?<!\w){re.escape(short)}(?!\w)", long) is not None


def _problem(name: str, page: tuple[str, str], gap: _Gap, options: Sequence[str]) -> Problem:
    listed = "\n".join(f"{letter}. {o}" for letter, o in zip("ABCD", options, strict=True))
    key = Key("choice", (("ABCD"[options.index(gap.answer)],),))
    wording = (
        f'By the page, what fills the gap: "{gap.question}"\n{listed}\n'
        "Answer with the letter of the right option."
    )
    return Problem("long_document_qa", name, (page,), wording, key, scoring=_SCORING)


def _handbook(rng: random.Random, sources: Sources, size: int) -> Problem | None:
    return _draw("docs_18f_handbook", rng, sources, size)


def _peps(rng: random.Random, sources: Sources, size: int) -> Problem | None:
    return _draw("docs_peps", rng, sources, size)


_CHECKED = ("nq_multidoc_eval", "hotpotqa_dev", "quotesum_dev", "clapnq_dev")

FAMILY = Family(
    name="long_document_qa",
    what="one question with four options over one long page",
    kinds=(("peps", 0.6, _peps), ("handbook", 0.4, _handbook)),
    needs=(("peps", ("docs_peps", *_CHECKED)), ("handbook", ("docs_18f_handbook", *_CHECKED))),
    stand_in="gaps in PEPs and handbook pages; the paper takes QuALITY",
)
