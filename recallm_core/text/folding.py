r"""A text as it is compared: case, width, ligatures and line breaks folded, with the way back.

``fold`` makes a shadow of a text in which what a reader takes for the same words is the same
string, and remembers for each of its characters the range of the untouched text that it stands
for. What is folded, in order:

1. Characters that show nothing (soft hyphens, zero-width characters, the byte order mark,
   variation selectors: Unicode's Default_Ignorable_Code_Point) are dropped.
2. Each user-perceived character is composed (NFC), typographic quotes, dashes and ellipses become
   ``' " - ...``, ligatures, full-width and presentation forms become plain letters (NFKC), and
   case is folded. A character that would *become a number* or gain white space by NFKC stays:
   ``10²`` isn't ``102``, ``1½`` isn't ``11/2``, ``①`` isn't ``1``; superscripts, fractions, circled
   and squared signs are compared as they are. Full-width and mathematical digits are digits.
3. A dash between two letters vanishes, with one line break beside it: ``guaran-\ntee`` is
   ``guarantee``. Whether a hyphen at a line's end belongs to the word can't be told from the text,
   so both readings get one key: ``well-\nknown``, ``well-known`` and ``wellknown`` fold alike. Next
   to a digit the dash stays and only the break goes (``COVID-\n19`` is ``COVID-19``).
4. Every other run of white space, line breaks included, is one space.

Folding a folded text changes nothing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import regex
from numpy.typing import NDArray

from recallm_core.text.boundaries import grapheme_boundaries
from recallm_core.text.places import find_all

Ints = NDArray[np.int64]

_IGNORABLE = regex.compile(r"\p{Default_Ignorable_Code_Point}+")
_JAMO = (
    r"\u1100-\u11ff\ua960-\ua97f\ud7b0-\ud7ff"  # they would compose with what they come to touch
)
_LETTER = rf"[[\p{{L}}\p{{M}}]--[{_JAMO}]]"
_NEWLINE = r"\r\n\v\f\x85\u2028\u2029"
_BREAK = rf"[^\S{_NEWLINE}]*(?:\r\n|[{_NEWLINE}])[^\S{_NEWLINE}]*"
_JOINS = regex.compile(
    rf"(?<={_LETTER})-(?:{_BREAK})?(?=[\p{{L}}--[{_JAMO}]])"
    rf"|(?<=[\p{{L}}\p{{M}}\p{{N}}]-){_BREAK}(?=[\p{{L}}\p{{N}}])"
    r"|(?P<space>[^\S ]\s*+|\ \s++)",
    regex.V1,
)
_KEPT_FORMS = ("<super>", "<sub>", "<fraction>", "<circle>", "<square>")
_UNKNOWN, _SEVERAL = -2, -1
_plain = np.full(0x110000, _UNKNOWN, dtype=np.int32)  # code points folded, filled as they occur


def _same_signs() -> dict[str, str]:
    signs = {
        "'": "\u2018\u2019\u201a\u201b\u2032\u2039\u203a\u02bc\u02b9\uff07",
        '"': "\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb\uff02",
        "-": "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d",
    }
    return {sign: plain for plain, all_of_them in signs.items() for sign in all_of_them}


_SAME_SIGN = _same_signs()


@dataclass(frozen=True, slots=True, eq=False)
class FoldedText:
    """A text folded for comparing, with the exact way back.

    Attributes:
        text: The folded text.
        starts: For each of its characters, where in the untouched text what it stands for begins,
            a grapheme boundary. Ascending, as ``ends`` is.
        ends: One past the last character of that, a grapheme boundary.
        source_length: The length of the untouched text.
    """

    text: str
    starts: Ints
    ends: Ints
    source_length: int

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Returns the least range of the untouched text that holds ``text[start:end]``.

        It never divides a grapheme. An empty range gives an empty one.

        Raises:
            ValueError: The range isn't one of the folded text.
        """
        _check_range(start, end, len(self.text), "the folded text")
        if start == end:
            place = int(self.starts[start]) if start < len(self.text) else self.source_length
            return place, place
        return int(self.starts[start]), int(self.ends[end - 1])

    def folded_range(self, start: int, end: int) -> tuple[int, int]:
        """Returns the least range of the folded text that stands for a range of the untouched one.

        Raises:
            ValueError: The range isn't one of the untouched text.
        """
        _check_range(start, end, self.source_length, "the untouched text")
        first = int(np.searchsorted(self.ends, start, side="right"))
        last = int(np.searchsorted(self.starts, end, side="left"))
        return first, max(first, last)

    def find(self, needle: str) -> Iterator[tuple[int, int]]:
        """Yields every range of the untouched text that reads like ``needle``, in order.

        Overlapping ones too; none begins or ends inside what one user-perceived character stands
        for. A needle without anything to compare is found nowhere. Linear time.
        """
        folded = fold(needle).text.strip()
        for at in find_all(folded, self.text) if folded else ():
            if self._whole(at) and self._whole(at + len(folded)):
                yield self.span(at, at + len(folded))

    def _whole(self, at: int) -> bool:
        """Whether a place of the folded text lies between two characters of the untouched one."""
        inside = 0 < at < len(self.text)
        return not inside or bool(self.ends[at - 1] <= self.starts[at])


def fold(text: str) -> FoldedText:
    """Returns the shadow of a text for comparing; see the module's text for what is folded."""
    plain, starts, ends = _folded_characters(text)
    pieces: list[str] = []
    keep = np.ones(len(plain), dtype=np.bool_)
    last = 0
    for match in _JOINS.finditer(plain):
        start, end = match.span()
        pieces.append(plain[last:start])
        last = end
        if match["space"] is not None:
            pieces.append(" ")
            ends[start] = ends[end - 1]
            start += 1
        keep[start:end] = False
    if not pieces:
        return FoldedText(plain, starts, ends, len(text))
    return FoldedText("".join([*pieces, plain[last:]]), starts[keep], ends[keep], len(text))


def _folded_characters(text: str) -> tuple[str, Ints, Ints]:
    """Each character folded by itself, with where it came from."""
    if text.isascii():
        places = np.arange(len(text) + 1)
        return text.lower(), places[:-1], places[1:].copy()
    codes = _codes(text)
    visible = _visible_places(text)
    graphemes = grapheme_boundaries(text)
    cleaned = text if len(visible) == len(text) else _text(codes[visible])
    heads = np.flatnonzero(_unit_heads(cleaned, visible, graphemes))
    tails = np.append(heads, len(visible))[1:] - 1
    plain = _plain_codes(codes[visible[heads]])
    several = (heads != tails) | (plain == _SEVERAL)
    bounds = zip(heads[several].tolist(), tails[several].tolist(), strict=True)
    pieces = [_folded_unit(cleaned[head : tail + 1]) for head, tail in bounds]
    sizes = np.ones(len(heads), dtype=np.int64)
    sizes[several] = [len(piece) for piece in pieces]
    unit = np.repeat(np.arange(len(heads)), sizes)
    out = plain[unit]
    out[several[unit]] = _codes("".join(pieces)).astype(np.int32)
    edges = np.flatnonzero(graphemes)
    starts = edges[np.searchsorted(edges, visible[heads], side="right") - 1]
    ends = edges[np.searchsorted(edges, visible[tails] + 1, side="left")]
    return _text(out), starts[unit], ends[unit]


def _visible_places(text: str) -> Ints:
    """The places of the characters that show something."""
    keep = np.ones(len(text), dtype=np.bool_)
    for match in _IGNORABLE.finditer(text):
        keep[match.start() : match.end()] = False
    return np.flatnonzero(keep)


def _unit_heads(cleaned: str, visible: Ints, graphemes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which characters begin a grapheme, both of the untouched and of the cleaned text."""
    heads = grapheme_boundaries(cleaned)[:-1]
    if len(visible) + 1 < len(graphemes):
        before = np.cumsum(graphemes)[visible]
        heads[1:] &= before[1:] > before[:-1]
    return heads


def _plain_codes(codes: NDArray[np.uint32]) -> NDArray[np.int32]:
    """Code points folded; ``_SEVERAL`` where one becomes none or several."""
    plain = _plain[codes]
    for code in np.unique(codes[plain == _UNKNOWN]).tolist():
        folded = _folded_unit(chr(code))
        _plain[code] = ord(folded) if len(folded) == 1 else _SEVERAL
    return _plain[codes]


@lru_cache(maxsize=65_536)
def _folded_unit(unit: str) -> str:
    """One user-perceived character, folded until folding it again changes nothing."""
    folded = ""
    while folded != unit:
        folded, unit = unit, _folded_once(unit)
    return folded


def _folded_once(unit: str) -> str:
    opened = "".join(map(_plain_form, unicodedata.normalize("NFC", unit)))
    return unicodedata.normalize("NFC", opened.casefold())


def _plain_form(character: str) -> str:
    """A sign's plain form; a compatibility form's letters, unless they would change a number."""
    if character in _SAME_SIGN:
        return _SAME_SIGN[character]
    if unicodedata.decomposition(character).startswith(_KEPT_FORMS):
        return character
    opened = unicodedata.normalize("NFKC", character)
    if character.isspace() or character.isdecimal():
        return opened
    changed = any(c.isspace() or c.isdigit() for c in opened)
    return character if changed else opened


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _text(codes: NDArray[np.integer]) -> str:
    return codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


def _check_range(start: int, end: int, size: int, what: str) -> None:
    if not 0 <= start <= end <= size:
        raise ValueError(f"{what} has {size:,} characters; {start}:{end} isn't a range of it")
