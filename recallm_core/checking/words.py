"""The words of a text as comparing sees them: each with its folded key and its exact range."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from unicodedata import normalize

import numpy as np
import regex
from numpy.typing import NDArray

from recallm_core.text.folding import fold
from recallm_core.text.scripts import UNSPACED

Ints = NDArray[np.int64]

# In scripts written without spaces each character is a word.
_LETTER = rf"[[\p{{L}}\p{{M}}\p{{Nl}}\u00ad\u200c\u200d\u2060\ufeff]--[{UNSPACED}]]"
_RAISED = r"\u00b2\u00b3\u00b9\u2070\u2074-\u2079"
_APOSTROPHES = "'\u2019\u02bc"

# A number is one word with what groups its digits. A sign, a percent sign or a currency is a word,
# as leaving it out changes what is said. A raised figure after a longer word is the mark of a
# footnote, and no word. A hyphen divides words: a quote may begin after it. So does a space without
# width (U+200B), as in Unicode; what joins letters (U+200C, U+200D, U+2060) doesn't.
_WORD = regex.compile(
    rf"""(?V1m)((?=[\p{{L}}\p{{Nl}}]){_LETTER}++(?:[{_APOSTROPHES}]{_LETTER}++)*
    |\d++(?:[.,:/\u066b\u066c]\d++)*
    |[{UNSPACED}]\p{{M}}*
    |[%\u2030\u00b0\u2264\u2265\u2260\u2248\u00b1\u00d7\u00f7\u221a\u221e\u00a7\p{{Sc}}]
    |(?<!^[ \t>]*)[<>](?=\s?\d)
    |(?<![\w)\].,%])[\-\u2212\u2013](?=\.?\d)
    |(?<!\p{{L}}{{4}})[{_RAISED}]+
    |[\u2080-\u2089]+
    |[\p{{No}}--[{_RAISED}\u2080-\u2089]])""",
    regex.VERBOSE,
)
_FRACTIONS = "\u00bc\u00bd\u00be" + "".join(map(chr, range(0x2150, 0x215F)))
_SAME = str.maketrans(
    {"'": "", "\u2044": "/"}
    | {chr(0x2080 + digit): str(digit) for digit in range(10)}
    | {sign: normalize("NFKC", sign).replace("\u2044", "/") for sign in _FRACTIONS}
)
_DIVISION = regex.compile(r"[-\u2010][ \t]*\r?\n\s*(?=\p{L})")
_BREAK = "\0"  # never part of a word, and folded to itself


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a quote or of a document.

    Attributes:
        raw: As it is written.
        key: What its writings share.
        divided: Whether it is the first part of a word that a line's end divides.
    """

    raw: str
    key: str
    divided: bool = False


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a text, in order.

    Attributes:
        raw: Each as it is written.
        starts: Where each begins, in code points.
        ends: One past where each ends.
    """

    raw: Sequence[str]
    starts: Ints
    ends: Ints

    def __len__(self) -> int:
        return len(self.raw)


def is_divided(text: str, end: int) -> bool:
    """Whether a word that ends there goes on behind a hyphen on the next line."""
    return _DIVISION.match(text, end) is not None


def words(text: str) -> Words:
    """Returns the words of a text in linear time; what stands between them doesn't count.

    Numbers keep what groups their digits (``3,000.5``). Signs before a number, percent signs and
    currencies are words. In scripts without spaces every character is one.
    """
    parts = _WORD.split(text)
    edges = np.cumsum(np.fromiter(map(len, parts), dtype=np.int64, count=len(parts)))
    return Words(parts[1::2], edges[:-1:2], edges[1::2])


def keys(raw: Iterable[str]) -> list[str]:
    """Returns for each word what its writings share.

    Case, ligatures, width, accents' composition, apostrophes and soft hyphens don't count; digits
    and what groups them do, and a raised figure is never taken for a plain one.
    """
    return fold(_BREAK.join(raw)).text.translate(_SAME).split(_BREAK)
