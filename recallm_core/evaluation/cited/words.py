"""Words of any language, for comparing answers: folded, without punctuation and articles."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

import regex

_ARTICLES = frozenset(("a", "an", "the"))
_WORD = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]|(?:(?![\p{Han}])[\w\p{M}])+")
_UNSPACED = regex.compile(r"[\p{Arabic}\p{Hebrew}]")  # small words are written onto the next one


def words_of(text: str) -> list[str]:
    """Returns the words; in a script without spaces, the characters."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return [word for word in _WORD.findall(folded) if word not in _ARTICLES]


def contains(text: str, golds: Sequence[str]) -> bool:
    """Whether the words of a gold answer stand in the text, in order and without a gap.

    Words are whole words, so that 19 isn't in 1939; in Arabic and Hebrew, which write articles and
    prepositions onto a word, an answer may also begin or end inside one.
    """
    joined = f" {' '.join(words_of(text))} "
    return any(_within(joined, words_of(gold)) for gold in golds)


def _within(joined: str, gold: list[str]) -> bool:
    whole = " ".join(gold)
    return bool(gold) and (whole if _UNSPACED.search(whole) else f" {whole} ") in joined


def exact(text: str, golds: Sequence[str]) -> bool:
    """Whether the text has the words of a gold answer and no others."""
    words = words_of(text)
    return bool(words) and any(words == words_of(gold) for gold in golds)


def f1(text: str, golds: Sequence[str]) -> float:
    """Returns the best F1 of the text's words against those of a gold answer."""
    words = Counter(words_of(text))
    return max((_overlap(words, Counter(words_of(gold))) for gold in golds), default=0.0)


def _overlap(words: Counter[str], gold: Counter[str]) -> float:
    shared = (words & gold).total()
    return 2 * shared / (words.total() + gold.total()) if shared else 0.0
