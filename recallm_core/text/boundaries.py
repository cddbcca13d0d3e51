"""Where characters and words begin and end in a text: Unicode's rules (UAX #29), as bit maps.

Both functions return one bool per position, ``len(text) + 1`` of them: position ``i`` lies before
``text[i]``. They see nothing but the text, so equal texts have equal boundaries everywhere.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache

import numpy as np
import regex
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
_UNKNOWN = 255


class _Word(IntEnum):
    """Word_Break classes, ordered so that the sets the rules speak of are ranges."""

    LETTER = 0
    HEBREW = 1
    DIGIT = 2
    CONNECTOR = 3
    KATAKANA = 4
    MID_LETTER = 5
    COLON = 6  # a MidLetter that also joins digits here: 10:30
    MID_BOTH = 7
    QUOTE = 8
    MID_DIGIT = 9
    SLASH = 10  # joins digits here: 2024/05/06
    DOUBLE_QUOTE = 11
    FLAG = 12
    BLANK = 13
    IGNORED = 14  # Extend, Format and ZWJ belong to the character before them
    JOINER = 15
    CR = 16
    LF = 17
    NEWLINE = 18
    OTHER = 19


_WORD_SETS = {
    _Word.COLON: r"[:\uFE55\uFF1A]",
    _Word.SLASH: r"[/\uFF0F]",
    _Word.HEBREW: r"\p{WB=Hebrew_Letter}",
    _Word.LETTER: r"\p{WB=ALetter}",
    _Word.DIGIT: r"\p{WB=Numeric}",
    _Word.CONNECTOR: r"\p{WB=ExtendNumLet}",
    _Word.KATAKANA: r"\p{WB=Katakana}",
    _Word.MID_LETTER: r"\p{WB=MidLetter}",
    _Word.MID_BOTH: r"\p{WB=MidNumLet}",
    _Word.QUOTE: r"\p{WB=Single_Quote}",
    _Word.MID_DIGIT: r"\p{WB=MidNum}",
    _Word.DOUBLE_QUOTE: r"\p{WB=Double_Quote}",
    _Word.FLAG: r"\p{WB=Regional_Indicator}",
    _Word.BLANK: r"\p{WB=WSegSpace}",
    _Word.JOINER: r"\p{WB=ZWJ}",
    _Word.IGNORED: r"\p{WB=Extend}|\p{WB=Format}",
    _Word.CR: r"\r",
    _Word.LF: r"\n",
    _Word.NEWLINE: r"\p{WB=Newline}",
}


class _Grapheme(IntEnum):
    """Grapheme_Cluster_Break classes, split by Indic_Conjunct_Break, ordered likewise."""

    CR = 0
    LF = 1
    CONTROL = 2
    EXTEND = 3
    CONJUNCT_EXTEND = 4
    LINKER = 5
    JOINER = 6
    SPACING_MARK = 7
    PREPEND = 8
    FLAG = 9
    HANGUL_L = 10
    HANGUL_V = 11
    HANGUL_T = 12
    HANGUL_LV = 13
    HANGUL_LVT = 14
    PICTOGRAPH = 15
    CONSONANT = 16
    OTHER = 17


_GRAPHEME_SETS = {
    _Grapheme.CR: r"\r",
    _Grapheme.LF: r"\n",
    _Grapheme.CONTROL: r"\p{GCB=Control}",
    _Grapheme.JOINER: r"\p{GCB=ZWJ}",
    _Grapheme.LINKER: r"\p{InCB=Linker}",
    _Grapheme.CONJUNCT_EXTEND: r"\p{InCB=Extend}",
    _Grapheme.EXTEND: r"\p{GCB=Extend}",
    _Grapheme.SPACING_MARK: r"\p{GCB=SpacingMark}",
    _Grapheme.PREPEND: r"\p{GCB=Prepend}",
    _Grapheme.FLAG: r"\p{GCB=RI}",
    _Grapheme.HANGUL_L: r"\p{GCB=L}",
    _Grapheme.HANGUL_V: r"\p{GCB=V}",
    _Grapheme.HANGUL_T: r"\p{GCB=T}",
    _Grapheme.HANGUL_LV: r"\p{GCB=LV}",
    _Grapheme.HANGUL_LVT: r"\p{GCB=LVT}",
    _Grapheme.PICTOGRAPH: r"\p{Extended_Pictographic}",
    _Grapheme.CONSONANT: r"\p{InCB=Consonant}",
}


def grapheme_boundaries(text: str) -> Bools:
    """Marks where user-perceived characters (extended grapheme clusters) start and end.

    Args:
        text: Any text.

    Returns:
        Shape ``(len(text) + 1,)``; False inside a cluster, for instance between a letter and its
        combining accent or within CR LF. Both ends of the text are True.
    """
    marks = np.ones(len(text) + 1, dtype=np.bool_)
    if len(text) < 2 or (text.isascii() and "\r\n" not in text):
        return marks
    marks[1:-1] = ~_grapheme_ties(_table("grapheme").classes(text))
    return marks


def grapheme_boundary_before(text: str, start: int, offset: int) -> int:
    """Returns the last grapheme boundary at or before an offset.

    Args:
        text: Any text.
        start: A grapheme boundary at or before ``offset``.
        offset: Where to look back from, at most ``len(text)``.

    Returns:
        A boundary in ``[start, offset]``; costs next to nothing where ``offset`` is one.
    """
    if offset in (start, len(text)) or _surely_apart(text[offset - 1 : offset + 1]):
        return offset
    marks = grapheme_boundaries(text[start : offset + 1])[:-1]
    return start + int(np.flatnonzero(marks)[-1])


def _surely_apart(pair: str) -> bool:
    """Tells whether two characters are in different graphemes whatever comes before them."""
    if pair.isascii():
        return pair != "\r\n"
    g = _Grapheme
    before, after = _table("grapheme").classes(pair).tolist()
    if before <= g.CONTROL or after <= g.CONTROL:
        return True  # not CR LF, which is ASCII
    alone: bool = before >= g.HANGUL_LV and after >= g.HANGUL_LV
    return alone or (before != g.PREPEND and after == g.OTHER)


def word_boundaries(text: str, graphemes: Bools | None = None) -> Bools:
    """Marks where words, and the things between words, start and end.

    Unicode's default words, with two additions: digits joined by ``. , : /`` are one number
    (``3,000.5``, ``10:30``, ``2024/05/06``), and no boundary lies inside a grapheme. Blanks and
    punctuation have boundaries too, so a range between two marks may hold any of them. In scripts
    written without spaces each grapheme is a word, but a run of Katakana stays one.

    Args:
        text: Any text.
        graphemes: ``grapheme_boundaries(text)`` where the caller has it already.

    Returns:
        Shape ``(len(text) + 1,)``; a subset of the grapheme boundaries, both ends included.
    """
    marks = grapheme_boundaries(text) if graphemes is None else graphemes.copy()
    if len(text) < 2:
        return marks
    classes = _table("word").classes(text)
    inner = marks[1:-1]
    inner &= ~((classes[:-1] == _Word.BLANK) & (classes[1:] == _Word.BLANK))
    if text.isascii():
        inner &= ~_word_ties(classes)
        return marks
    if np.any(joiners := classes[:-1] == _Word.JOINER):
        inner &= ~(joiners & (_table("grapheme").classes(text)[1:] == _Grapheme.PICTOGRAPH))
    silent = (classes == _Word.IGNORED) | (classes == _Word.JOINER)
    silent[1:] &= (classes[:-1] < _Word.CR) | (classes[:-1] == _Word.OTHER)
    inner &= ~silent[1:]
    spoken = np.flatnonzero(~silent)
    marks[spoken[1:][_word_ties(classes[spoken])]] = False
    return marks


class _Script(IntEnum):
    """Scripts that are written without spaces; 0: any other character."""

    HAN = 1
    HIRAGANA = 2
    KATAKANA = 3
    MARK = 4  # the long sound, of whatever stands before it
    SYLLABLES = 5  # Thai, Lao, Burmese, Khmer


_SCRIPT_SETS = {
    _Script.MARK: r"[\u30FC\uFF70]",
    _Script.HAN: r"\p{Han}",
    _Script.HIRAGANA: r"\p{Hiragana}",
    _Script.KATAKANA: r"\p{Katakana}",
    _Script.SYLLABLES: r"[[\p{Thai}\p{Lao}\p{Myanmar}\p{Khmer}]--[\p{P}\p{Nd}]]",
}
_LONGEST_PHRASE = 48  # characters; what nothing divides may be divided at any


def amid_phrases(text: str) -> Bools:
    """Marks positions where nothing shows whether a word begins or ends.

    That is between two letters of a script written without spaces, where only a dictionary would
    know: UAX #29 has a boundary there. What shows is punctuation, white space, a change to other
    scripts, and in Japanese where hiragana, which end words, are followed by Han or katakana.

    Args:
        text: Any text.

    Returns:
        Shaped like ``grapheme_boundaries``; never more than 48 in a row.
    """
    amid = np.zeros(len(text) + 1, dtype=np.bool_)
    if len(text) < 2 or text.isascii():
        return amid
    scripts = _table("script").classes(text)
    scripts = scripts[np.maximum(_last(scripts != _Script.MARK), 0)]
    before, after = scripts[:-1], scripts[1:]
    amid[1:-1] = (before > 0) & (after > 0)
    shows = (before == _Script.HIRAGANA) & ((after == _Script.HAN) | (after == _Script.KATAKANA))
    shows |= (before == _Script.KATAKANA) != (after == _Script.KATAKANA)
    amid[1:-1] &= ~shows
    places = np.arange(len(amid)) - _last(~amid)
    return amid & (places <= _LONGEST_PHRASE)


def inside_numbers(text: str) -> Bools:
    """Marks positions inside a number, whose digits may be joined by ``. , : /`` and the like.

    Returns:
        Shape ``(len(text) + 1,)``, as of ``grapheme_boundaries``.
    """
    inside = np.zeros(len(text) + 1, dtype=np.bool_)
    if len(text) < 2:
        return inside
    classes = _table("word").classes(text)
    digits = classes == _Word.DIGIT
    inside[1:-1] = digits[:-1] & digits[1:]
    joins = (classes[1:-1] >= _Word.COLON) & (classes[1:-1] <= _Word.SLASH)
    joined = digits[:-2] & joins & digits[2:]
    inside[1:-2] |= joined
    inside[2:-1] |= joined
    return inside


def beside_digits(text: str) -> Bools:
    """Marks positions right before or after a digit; shaped like ``grapheme_boundaries``."""
    marks = np.zeros(len(text) + 1, dtype=np.bool_)
    if text:
        digits = _table("word").classes(text) == _Word.DIGIT
        marks[:-1] = digits
        marks[1:] |= digits
    return marks


def _grapheme_ties(classes: NDArray[np.uint8]) -> Bools:
    """Tells for each character but the first whether it shares a grapheme with the one before."""
    g = _Grapheme
    before, after = classes[:-1], classes[1:]
    tied: Bools = ((after >= g.EXTEND) & (after <= g.SPACING_MARK)) | (before == g.PREPEND)
    tied &= (before > g.CONTROL) & (after > g.CONTROL)
    tied |= (before == g.CR) & (after == g.LF)
    if np.any((classes >= g.HANGUL_L) & (classes <= g.HANGUL_T)):
        vowel, tail = after == g.HANGUL_V, after == g.HANGUL_T
        head = (after == g.HANGUL_L) | (after == g.HANGUL_LV) | (after == g.HANGUL_LVT)
        tied |= (before == g.HANGUL_L) & (head | vowel)
        tied |= ((before == g.HANGUL_LV) | (before == g.HANGUL_V)) & (vowel | tail)
        tied |= ((before == g.HANGUL_LVT) | (before == g.HANGUL_T)) & tail
    if np.any(flags := classes == g.FLAG):
        tied |= _flag_ties(flags)
    if np.any(candidates := (before == g.JOINER) & (after == g.PICTOGRAPH)):
        base = _last((classes < g.EXTEND) | (classes > g.LINKER))
        at = np.flatnonzero(candidates)  # the joiners; what they follow decides
        tied[at] |= (at > 0) & (base[at - 1] >= 0) & (classes[base[at - 1]] == g.PICTOGRAPH)
    links = classes == g.LINKER
    if np.any(
        candidates := (before >= g.CONJUNCT_EXTEND) & (before <= g.JOINER) & (after == g.CONSONANT)
    ) and np.any(links):
        base = _last((classes < g.CONJUNCT_EXTEND) | (classes > g.JOINER))
        at = np.flatnonzero(candidates)
        from_consonant = (base[at] >= 0) & (classes[base[at]] == g.CONSONANT)
        tied[at] |= from_consonant & (_last(links)[at] > base[at])
    return tied


def _word_ties(classes: NDArray[np.uint8]) -> Bools:
    """Tells for each character but the first whether the rules tie it to the one before."""
    wordy = classes <= _Word.KATAKANA
    joined: Bools = wordy[:-1] & wordy[1:]
    if np.any(katakana := classes == _Word.KATAKANA):
        plain = classes <= _Word.DIGIT
        joined &= ~((katakana[:-1] & plain[1:]) | (plain[:-1] & katakana[1:]))
    joined |= (classes[:-1] == _Word.HEBREW) & (classes[1:] == _Word.QUOTE)
    if np.any(flags := classes == _Word.FLAG):
        joined |= _flag_ties(flags)
    bridges = classes[1:-1]
    at = np.flatnonzero((bridges >= _Word.MID_LETTER) & (bridges <= _Word.DOUBLE_QUOTE)) + 1
    before, middle, after = classes[at - 1], classes[at], classes[at + 1]
    low, high = np.minimum(before, after), np.maximum(before, after)
    holds = (high <= _Word.HEBREW) & (middle <= _Word.QUOTE)
    digits = (low == _Word.DIGIT) & (high == _Word.DIGIT)
    holds |= digits & (middle >= _Word.COLON) & (middle <= _Word.SLASH)
    holds |= (low == _Word.HEBREW) & (high == _Word.HEBREW) & (middle == _Word.DOUBLE_QUOTE)
    at = at[holds]
    joined[at - 1] = True
    joined[at] = True
    return joined


def _flag_ties(flags: Bools) -> Bools:
    """Ties every second flag letter of a run to the one before it."""
    places = np.arange(len(flags)) - _last(~flags)  # 1, 2, ... within a run
    second: Bools = flags & (places % 2 == 0)
    return second[1:]


def _last(mask: Bools) -> NDArray[np.intp]:
    """Returns for each position the last True at or before it, or -1."""
    last: NDArray[np.intp] = np.maximum.accumulate(np.where(mask, np.arange(len(mask)), -1))
    return last


class _Table:
    """Classes of code points, asked of the regex module once for each that occurs.

    Filling twice writes the same values, so threads may share a table without a lock.
    """

    def __init__(self, sets: list[tuple[int, str]], other: int) -> None:
        self._classes = np.full(0x110000, _UNKNOWN, dtype=np.uint8)
        self._values = [value for value, _ in sets]
        self._other = other
        self._pattern = regex.compile("|".join(f"({pattern})" for _, pattern in sets), regex.V1)
        self._fill(np.arange(128))
        self._ascii = self._classes[:256].tobytes()

    def classes(self, text: str) -> NDArray[np.uint8]:
        """Returns the class of each character."""
        if text.isascii():
            return np.frombuffer(text.encode("ascii").translate(self._ascii), dtype=np.uint8)
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        classes = self._classes[codes]
        missing = codes[classes == _UNKNOWN]
        if missing.size:
            self._fill(np.unique(missing))
            classes = self._classes[codes]
        return classes

    def _fill(self, codes: NDArray[np.integer]) -> None:
        for code in codes.tolist():
            match = self._pattern.match(chr(code))
            known = match is not None and match.lastindex is not None
            self._classes[code] = self._values[match.lastindex - 1] if known else self._other


@cache
def _table(name: str) -> _Table:
    if name == "script":
        return _Table([(int(value), s) for value, s in _SCRIPT_SETS.items()], 0)
    if name == "word":
        return _Table([(int(value), s) for value, s in _WORD_SETS.items()], _Word.OTHER)
    return _Table([(int(value), s) for value, s in _GRAPHEME_SETS.items()], _Grapheme.OTHER)
