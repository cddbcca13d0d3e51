"""Words that carry meaning, sentences as exact spans, and BM25 over either."""

from __future__ import annotations

import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import Stemmer

from recallm_core.text.layout import read_layout
from recallm_core.text.scripts import UNSPACED

_STOP_WORDS = frozenset(
    """
    a about after all also am an and any are as at be because been before being between both but
    by can could did do does doing done during each for from further had has have having he her
    here hers him his how i if in into is it its itself just me more most my no nor not of off on
    once only or other our ours out over own please same she should so some such tell than that
    the their theirs them then there these they this those through to too under until up us very
    was we were what when where which while who whom whose why will with would you your yours s t
    d ll m re ve don doesn didn isn aren wasn weren won can't cannot
""".split()  # noqa: SIM905
)
_CLITICS = frozenset(("s", "t", "d", "m", "ll", "re", "ve"))
_MARGIN = r"[ \t]*(?:\r\n|[\n\r])[ \t]*(?:[>#*/;%]+[ \t]+)?"  # a line's end, and a mark after it
_HYPHEN = "-\u2010\u2011"
_WORD = re.compile(
    r"\d+(?:[.,]\d+)+|[^\W_]+(?:['\u2019][^\W_]+)*"
    rf"(?:(?<=[^\W\d_])[{_HYPHEN}](?:{_MARGIN})?(?=[^\W\d_])[^\W_]+(?:['\u2019][^\W_]+)*)*"
)
_BETWEEN_PARTS = re.compile(rf"[{_HYPHEN}](?:{_MARGIN})?")
# Characters that show nothing; a soft hyphen hides the end of the line after it, too.
_HIDDEN = re.compile(
    rf"\xad(?:{_MARGIN})?|[\u034f\u061c\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff]"
)
_PARTS = re.compile(rf"[{UNSPACED}]+|\d+|[^\W\d_{UNSPACED}]+")
_UNSPACED_RUN = re.compile(rf"[{UNSPACED}]+")
_local = threading.local()


def _stem(word: str) -> str:
    stemmer = getattr(_local, "stemmer", None)  # a stemmer isn't safe to share between threads
    if stemmer is None:
        stemmer = _local.stemmer = Stemmer.Stemmer("english")
    stemmed: str = stemmer.stemWord(word)
    return stemmed


def terms(text: str) -> list[str]:
    """Returns the stems of the content words of ``text``, in order, for matching words.

    Case is folded and English stop words are dropped; ``1,500`` becomes ``1500``; a word of
    letters and digits also yields its parts (``FY2018``: ``fy2018``, ``fy``, ``2018``); scripts
    without spaces yield pairs of neighbouring characters. Characters that show nothing are passed
    over, and ligatures and wide forms are plain letters. A word with hyphens, also one broken at
    the end of a line, yields its parts and the word without hyphens. Linear in the length of the
    text.
    """
    stems: list[str] = []
    if not text.isascii():
        text = unicodedata.normalize("NFC", _HIDDEN.sub("", text))
    for word in _WORD.findall(text.casefold()):
        if word in _STOP_WORDS:
            continue
        if not word.isascii():
            _add_other(word, stems)
        elif word.isalpha():
            stems.append(_stem(word))
        elif "-" in word:
            _add_compound(word, stems)
        else:
            _add_mixed(word, stems)
    return stems


def _add_compound(word: str, stems: list[str]) -> None:
    """Adds the parts of a word with hyphens, and the whole without them."""
    parts = _BETWEEN_PARTS.split(word)
    for part in parts:
        stems.extend(terms(part))
    stems.extend(terms("".join(parts)))


def _without_clitic(word: str) -> str:
    """Drops an ending like 's or n't; other apostrophes only vanish (``o'brien``: ``obrien``)."""
    head, _, tail = word.rpartition("'")
    return (head if head and tail in _CLITICS else word).replace("'", "")


def _plain_letters(word: str) -> str:
    """A word with ligatures and wide forms as plain letters; what isn't a digit becomes none."""
    plain = unicodedata.normalize("NFKC", word).casefold()
    return word if any(c.isdigit() and not c.isdecimal() for c in word) else plain


def _add_mixed(word: str, stems: list[str]) -> None:
    """Adds an ASCII word with digits or apostrophes."""
    if word[0].isdigit() and not word.isalnum():
        stems.append(word.replace(",", "") if "'" not in word else word)
        return
    stem = _without_clitic(word)
    if stem.isalpha() or stem.isdigit():
        if stem not in _STOP_WORDS:
            stems.append(_stem(stem))
        return
    stems.append(stem)
    stems.extend(_stem(part) for part in _PARTS.findall(stem))


def _add_other(word: str, stems: list[str]) -> None:
    """Adds a word beyond ASCII; runs of an unspaced script become pairs of characters."""
    if _BETWEEN_PARTS.search(word):
        _add_compound(word, stems)
        return
    word = _without_clitic(_plain_letters(word).replace("\u2019", "'"))
    if not _UNSPACED_RUN.search(word):
        if word not in _STOP_WORDS:
            stems.append(_stem(word))
        return
    for part in _PARTS.findall(word):
        if not _UNSPACED_RUN.match(part):
            stems.append(_stem(part))
        elif len(part) == 1:
            stems.append(part)
        else:
            stems.extend(part[i : i + 2] for i in range(len(part) - 1))


class BM25:
    """Scores texts, given as lists of terms, against the terms of a query.

    Args:
        texts: The terms of each text, as ``terms`` returns them.
        k1: How fast repeats of a term saturate.
        b: How much long texts are marked down, 0 to 1.
    """

    def __init__(self, texts: Sequence[Iterable[str]], *, k1: float = 1.2, b: float = 0.4) -> None:
        counted = [Counter(text) for text in texts]
        lengths = np.array([sum(count.values()) for count in counted], dtype=np.float64)
        mean = float(lengths.mean()) if len(lengths) and lengths.any() else 1.0
        self._norm = k1 * (1.0 - b + b * lengths / mean)
        self._k1 = k1
        postings: dict[str, tuple[list[int], list[int]]] = {}
        for number, count in enumerate(counted):
            for term, times in count.items():
                ids, frequencies = postings.setdefault(term, ([], []))
                ids.append(number)
                frequencies.append(times)
        self._postings = postings

    def __len__(self) -> int:
        """Returns the number of texts."""
        return len(self._norm)

    def idf(self, term: str) -> float:
        """Returns the weight of a term: above 0, larger for rarer terms, unseen ones rarest."""
        df = len(self._postings.get(term, ((),))[0])
        return float(np.log1p((len(self) - df + 0.5) / (df + 0.5)))

    def scores(self, query_terms: Iterable[str]) -> npt.NDArray[np.float64]:
        """Returns one score per text, 0 where no term matches; each query term counts once."""
        total = np.zeros(len(self))
        for term in dict.fromkeys(query_terms):
            if term not in self._postings:
                continue
            ids = np.array(self._postings[term][0])
            times = np.array(self._postings[term][1], dtype=np.float64)
            total[ids] += self.idf(term) * times * (self._k1 + 1.0) / (times + self._norm[ids])
        return total


_ABBREVIATIONS = frozenset(
    """
    mr mrs ms dr prof sr jr st mt no nos vs etc e.g i.e eg ie cf fig figs eq eqs sec secs vol pp
    approx dept est inc ltd co corp gen col lt sgt capt gov sen rep rev hon jan feb mar apr jun jul
    aug sep sept oct nov dec a.m p.m u.s u.k art c ca al ed eds ch chap para viz resp univ mme mlle
    bzw vgl sog ggf evtl inkl zzgl nr abs bd hrsg geb gest str tel ing dipl allg bes usw ff
    sra srta ud uds avda
""".split()  # noqa: SIM905
)
# What a number follows, and names a part of a text by; elsewhere these may be whole words.
_BEFORE_NUMBERS = frozenset(
    "abb abbn anh anl anm bl bsp fn fol kap par pos randnr rdnr rn rz tab taf tbl ziff".split()  # noqa: SIM905
)
_NUMBERED = _ABBREVIATIONS | _BEFORE_NUMBERS
_ELIDED = re.compile(r"^\w{1,2}['\u2019]")  # l'art. 5
# A number before a full stop is a German ordinal after these words, and before those.
_BEFORE_ORDINALS = frozenset(
    """
    des der dem den das die im am vom zum zur bis ab seit und oder ende mitte anfang jede jeder
    jedes jeden jedem ein eine einen einem einer ihr ihre ihren ihrem sein seine seinen seinem
""".split()  # noqa: SIM905
)
_AFTER_ORDINALS = re.compile(
    r"(?:Januar|Februar|M\xe4rz|April|Mai|Juni|Juli|August|September|Oktober|November|Dezember|J\xe4nner"
    r"|Jahrhundert\w{0,3}|Jahrtausend\w{0,3}|Lebensjahr\w{0,3}|Geburtstag\w{0,2}|Jh\b|Stock\b|Klasse\b|Auflage\b"
    r"|Kapitel\w?\b|Platz\b|Mal\b)"
)
_SPACED_ENDS = ".!?\u2026\u0589\u061f\u06d4\u0964\u0965\u1362\u1367\u203c\u2047-\u2049"
_WIDE_ENDS = "\u3002\uff01\uff1f\uff61\uff0e\u104b\u17d4\u17d5"  # no space follows on these
_WIDE_LETTER, _WIDE_NUMBER = f"[{UNSPACED}\uff21-\uff5a]", r"[\d\uff21-\uff5a]"
# The first mark, then what stands before and after it: so a search only stops at marks.
_ENDS = re.compile(
    rf"""[{_SPACED_ENDS}{_WIDE_ENDS}](?:"""
    rf"""(?<=[{_SPACED_ENDS}])(?<![{_SPACED_ENDS}]{{2}})"""
    rf"""[{_SPACED_ENDS}]*(?:["'\u201d\u2019\xbb)\]*_]|\[\d{{1,3}}\])*(?=\s)"""
    rf"""|(?<=[{_WIDE_ENDS}])(?<!{_WIDE_NUMBER}\uff0e)(?!(?<=\uff0e){_WIDE_NUMBER})"""
    rf"""[{_WIDE_ENDS}]*[\u300d\u300f\u3011\u201d\u2019\uff09)]*"""
    rf"""|(?<={_WIDE_LETTER}[!?])(?={_WIDE_LETTER}))"""
)
_VISIBLE = re.compile(r"\S")
_COMMAS = frozenset("\uff0c\u3001\uff1b\uff1a")
_CLOSING = "\u300d\u300f\u201d"
# Particles with which a sentence goes on after what it quotes, Japanese ones and a Chinese one
_AFTER_QUOTATIONS = frozenset("\u3068\u3092\u306e\u306f\u304c\u306b\u3067\u3082\u3002\u300c\u7684")
_OPEN, _CLOSED = "([\uff08\u3010", ")]\uff09\u3011"
_BRACKETS = re.compile(rf"[{re.escape(_OPEN + _CLOSED)}]")
_LONGEST_ASIDE = 200  # characters that a bracket may hold from a full stop to its end
_MARGINS = 3  # times as long at most with the margins and marks of its lines
_INITIALS = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")


def sentences(text: str) -> list[tuple[int, int]]:
    """Returns the spans of the sentences, headings, list items and table rows of ``text``.

    Half-open character ranges, ascending, disjoint, without outer white space, and together they
    hold every character that isn't white space. A sentence reaches over the lines that it is
    wrapped in, with the marks before them; each line of a log, list, table, verse or code ends
    one (``text.layout``). Abbreviations, initials and ordinals don't, nor does what is in brackets.
    """
    layout = read_layout(text)
    return _sentences(text, layout.text, layout.blocks)


@dataclass(frozen=True, slots=True)
class Units:
    """The sentences of a text, and how they read without the marks of its layout.

    Attributes:
        text: The text with spaces for the marks that stand before the lines of wrapped prose; as
            long as the untouched one.
        spans: As ``sentences`` returns them.
        begins: Where the words of each sentence begin, after such marks.
    """

    text: str
    spans: list[tuple[int, int]]
    begins: list[int]


def units(text: str) -> Units:
    """Returns the sentences of a text, and how they read without the marks of its layout."""
    layout = read_layout(text)
    spans = _sentences(text, layout.text, layout.blocks)
    if layout.text is text:
        return Units(text, spans, [start for start, _ in spans])
    begins = [_first_visible(layout.text, start, end) for start, end in spans]
    return Units(layout.text, spans, begins)


def _first_visible(text: str, start: int, end: int) -> int:
    match = _VISIBLE.search(text, start, end)
    return match.start() if match else start


def _sentences(text: str, plain: str, blocks: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The sentences of some blocks; ``plain`` is the text without marks, as long as it."""
    spans: list[tuple[int, int]] = []
    ends = _ENDS.finditer(plain)  # of all blocks: most lines of code and logs have none
    match = next(ends, None)
    for start, end in blocks:
        begin = start
        brackets: _Brackets | None = None
        while match is not None and match.start() < end:
            stop = match.end()
            if stop < end and _is_end(plain, begin, match, end):
                brackets = brackets or _Brackets(plain, start, end)
                if not brackets.hold(stop):
                    _add_trimmed(text, begin, stop, spans)
                    begin = stop
            match = next(ends, None)
        _add_trimmed(text, begin, end, spans)
    return spans


class _Brackets:
    """Counts the brackets of a block as far as they are asked for."""

    def __init__(self, text: str, start: int, end: int) -> None:
        self._text, self._at, self._end = text, start, end
        self._depth = 0

    def hold(self, place: int) -> bool:
        """Whether a place is in brackets that are closed soon after; places ascend."""
        for match in _BRACKETS.finditer(self._text, self._at, place):
            self._depth = max(0, self._depth + (1 if match.group() in _OPEN else -1))
        self._at = place
        if not self._depth:
            return False
        depth = self._depth
        soon = min(self._end, place + _MARGINS * _LONGEST_ASIDE)
        for match in _BRACKETS.finditer(self._text, place, soon):
            depth += 1 if match.group() in _OPEN else -1
            if not depth:
                return len(" ".join(self._text[place : match.start()].split())) < _LONGEST_ASIDE
        self._depth = 0  # never closed: it was a stray one
        return False


def _add_trimmed(text: str, start: int, end: int, spans: list[tuple[int, int]]) -> None:
    piece = text[start:end]
    end -= len(piece) - len(piece.rstrip())
    start += len(piece) - len(piece.lstrip())
    if start < end:
        spans.append((start, end))


def _is_end(text: str, begin: int, match: re.Match[str], end: int) -> bool:
    """Says whether sentence punctuation really ends a sentence here."""
    if match.group()[0] in _WIDE_ENDS:
        return not _is_quoted_on(text, match, end)
    after = text[match.end() : min(end, match.end() + 80)].lstrip()
    if not after:
        return True
    if after[0].islower():
        return False
    if not match.group().startswith(".") or match.group().startswith(".."):
        return not (match.group().startswith("....") and after[0].isdigit())  # before a page
    return not _is_shortened(text, begin, match.start(), after)


def _is_quoted_on(text: str, match: re.Match[str], end: int) -> bool:
    """Whether a quotation or an aside ends here in the midst of a Chinese or Japanese sentence."""
    following = text[match.end() : min(end, match.end() + 1)]
    is_closed = match.group()[-1] in _CLOSING
    return following in _COMMAS or (is_closed and following in _AFTER_QUOTATIONS)


def is_shortened(text: str, begin: int, stop: int) -> bool:
    """Says whether a full stop belongs to an abbreviation, an initial, a number or an ordinal.

    Args:
        text: Any text.
        begin: Where the sentence begins, or what is known of it.
        stop: Where the full stop stands.
    """
    return _is_shortened(text, begin, stop, text[stop + 1 : stop + 80].lstrip())


def _is_shortened(text: str, begin: int, stop: int, after: str) -> bool:
    """The same, of a full stop that isn't the end of the text; ``after`` follows on it."""
    words = text[max(begin, stop - 24) : stop].split()
    if not words:
        return True  # a list number's or a stray full stop
    word = words[-1].lstrip("([\"'\u201c\u2018\u201e\xab").casefold()
    if word in _ABBREVIATIONS or ("." in word and _INITIALS.fullmatch(word)):
        return True
    if after[:1].isdigit() and _ELIDED.sub("", word) in _NUMBERED:
        return True
    if len(word) == 1 and word.isalpha():
        return words[-1][-1].isupper() or after[1:2] == "."
    if len(words) == 1 and word.isdigit() and _begins_with(text, begin, stop, word):
        return True
    return word.isdecimal() and len(word) < 3 and _is_ordinal(words, after)


def _begins_with(text: str, begin: int, stop: int, word: str) -> bool:
    """Whether a word, and one more character at most, is all of a sentence so far."""
    length = len(text[begin:stop].lstrip()) if stop - begin < _LONGEST_ASIDE else stop - begin
    return length <= len(word) + 1


def _is_ordinal(words: list[str], after: str) -> bool:
    if _AFTER_ORDINALS.match(after):
        return True
    before = words[-2].casefold() if len(words) > 1 else ""
    is_date = before[:-1].isdecimal() and before.endswith(".") and after[:1].isdigit()
    return before in _BEFORE_ORDINALS or is_date
