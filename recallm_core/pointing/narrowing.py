"""The part of a sentence that a statement rests on, where it can be told without risk."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from recallm_core.answers.matching import denies
from recallm_core.text.lexical import terms

_SHORT = 80  # characters of a sentence that is quoted whole
_BREAK = re.compile(r"[,:](?=\s)|;|\s\u2013(?=\s)|\u2014")
_CONDITIONS = frozenset(
    """
    if unless until except only but however although though whether would could might may than
    wenn falls sofern au\u00dfer nur aber jedoch obwohl ob si sauf mais sinon quoique pero salvo
    excepto aunque
    """.split()  # noqa: SIM905
)
_WORD = re.compile(r"[^\W\d_]+")

Range = tuple[int, int]


def narrow(sentence: str, statement: str) -> Range:
    """Returns the range of a sentence that holds all content words it shares with a statement.

    It is made of whole clauses. The sentence stays whole where it is short, in a script whose
    clauses aren't told apart here, or shares nothing; and where what would be left out denies
    something or sets a condition, or brackets and quotation marks would be torn apart.
    """
    shared = frozenset(terms(statement)).intersection(terms(sentence))
    if len(sentence) <= _SHORT or not shared or not _is_known(sentence):
        return 0, len(sentence)
    needed = [(a, b) for a, b in _clauses(sentence) if not shared.isdisjoint(terms(sentence[a:b]))]
    if not needed:
        return 0, len(sentence)
    start, end = needed[0][0], needed[-1][1]
    return (start, end) if _stands_alone(sentence, start, end) else (0, len(sentence))


def _is_known(sentence: str) -> bool:
    """Whether what limits a sentence is known in its script: Latin."""
    letters = (character for character in sentence if character.isalpha())
    return all("LATIN" in unicodedata.name(letter, "") for letter in letters)


def _clauses(sentence: str) -> Iterator[Range]:
    begin = 0
    for match in _BREAK.finditer(sentence):
        yield from _trim(sentence, begin, match.start())
        begin = match.end()
    yield from _trim(sentence, begin, len(sentence))


def _trim(sentence: str, start: int, end: int) -> Iterator[Range]:
    clause = sentence[start:end]
    if clause.strip():
        yield start + len(clause) - len(clause.lstrip()), start + len(clause.rstrip())


def _stands_alone(sentence: str, start: int, end: int) -> bool:
    """Whether a part of a sentence says by itself what it says within it."""
    outside, inside = f"{sentence[:start]} {sentence[end:]}", sentence[start:end]
    if denies(outside) or _CONDITIONS.intersection(_WORD.findall(outside.casefold())):
        return False
    return all(inside.count(a) == inside.count(b) for a, b in ("()", "[]", "\u201c\u201d")) and (
        inside.count('"') % 2 == 0
    )
