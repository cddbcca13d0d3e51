"""Words that carry meaning, sentences as exact spans, and BM25 over either."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import Stemmer

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
# Scripts written without spaces: Thai, Lao, Burmese, Khmer, kana, Han (with extensions).
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(r"\d+(?:[.,]\d+)+|[^\W_]+(?:['\u2019][^\W_]+)*")
_PARTS = re.compile(rf"[{_UNSPACED}]+|\d+|[^\W\d_{_UNSPACED}]+")
_UNSPACED_RUN = re.compile(rf"[{_UNSPACED}]+")
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
    without spaces yield pairs of neighbouring characters. Linear in the length of the text.
    """
    found: list[str] = []
    for word in _WORD.findall(text.casefold()):
        if word in _STOP_WORDS:
            continue
        if word.isascii():
            if word.isalpha():
                found.append(_stem(word))
            else:
                _add_mixed(word, found)
        else:
            _add_other(word, found)
    return found


def _without_clitic(word: str) -> str:
    """Drops an ending like 's or n't; other apostrophes only vanish (``o'brien``: ``obrien``)."""
    head, _, tail = word.rpartition("'")
    return (head if head and tail in _CLITICS else word).replace("'", "")


def _add_mixed(word: str, found: list[str]) -> None:
    """Adds an ASCII word with digits or apostrophes."""
    if word[0].isdigit() and not word.isalnum():
        found.append(word.replace(",", "") if "'" not in word else word)
        return
    stem = _without_clitic(word)
    if stem.isalpha() or stem.isdigit():
        if stem not in _STOP_WORDS:
            found.append(_stem(stem))
        return
    found.append(stem)
    found.extend(_stem(part) for part in _PARTS.findall(stem))


def _add_other(word: str, found: list[str]) -> None:
    """Adds a word beyond ASCII; runs of an unspaced script become pairs of characters."""
    word = _without_clitic(word.replace("\u2019", "'"))
    if not _UNSPACED_RUN.search(word):
        if word not in _STOP_WORDS:
            found.append(_stem(word))
        return
    for part in _PARTS.findall(word):
        if not _UNSPACED_RUN.match(part):
            found.append(_stem(part))
        elif len(part) == 1:
            found.append(part)
        else:
            found.extend(part[i : i + 2] for i in range(len(part) - 1))


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
    mr mrs ms dr prof sr jr st mt no nos vs etc e.g i.e eg ie cf fig figs eq sec vol pp approx
    dept est inc ltd co corp gen col lt sgt capt gov sen rep rev hon jan feb mar apr jun jul aug
    sep sept oct nov dec a.m p.m u.s u.k art c ca
""".split()  # noqa: SIM905
)
_ENDS = re.compile(
    r"""[.!?\u2026]+["'\u201d\u2019)\]*_]*(?=\s)|[\u3002\uff01\uff1f]+[\u300d\u300f\u201d)]*"""
)
_NEW_ITEM = re.compile(r"""\s*(?:[-*+\u2022>|#=~`<{}"]|\d+[.)]\s|[^\s:=|,]{1,80}\s*[:=]|\[)""")
_LINE = re.compile(r"[^\n\r\u2028\u2029\x0b\x0c\x85]+")


def sentences(text: str) -> list[tuple[int, int]]:
    """Returns the spans of the sentences, headings, list items and table rows of ``text``.

    Half-open character ranges, ascending, disjoint, without outer white space, and together they
    hold every character that isn't white space. A line break ends a sentence, unless the line
    looks wrapped; abbreviations and initials don't end one.
    """
    spans: list[tuple[int, int]] = []
    for start, end in _blocks(text):
        begin = start
        for match in _ENDS.finditer(text, start, end):
            if _is_end(text, begin, match, end):
                _add_trimmed(text, begin, match.end(), spans)
                begin = match.end()
        _add_trimmed(text, begin, end, spans)
    return spans


def _add_trimmed(text: str, start: int, end: int, spans: list[tuple[int, int]]) -> None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start < end:
        spans.append((start, end))


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Yields lines, those that look wrapped joined with the next."""
    lines = [m.span() for m in _LINE.finditer(text) if not m.group().isspace()]
    first = 0
    while first < len(lines):
        last = first
        while last + 1 < len(lines) and _is_wrapped(text, lines[last], lines[last + 1]):
            last += 1
        yield lines[first][0], lines[last][1]
        first = last + 1


def _is_wrapped(text: str, line: tuple[int, int], following: tuple[int, int]) -> bool:
    """Says whether a line of prose runs on in the following one."""
    gap = text[line[1] : following[0]]
    if gap not in ("\n", "\r\n", "\r") or line[1] - line[0] < 45:
        return False
    prose = text[line[0] : line[1]].rstrip()
    if not prose or prose[-1] in ".!?:;|}>\u3002" or prose.lstrip()[:1] in "|#{<":
        return False
    if prose.count(" ") < 5 or prose.count(",") > prose.count(", ") + 1:
        return False
    following_text = text[following[0] : min(following[1], following[0] + 200)]
    return not _NEW_ITEM.match(following_text)


def _is_end(text: str, begin: int, match: re.Match[str], end: int) -> bool:
    """Says whether sentence punctuation really ends a sentence here."""
    if match.group()[0] in "\u3002\uff01\uff1f":
        return True
    after = text[match.end() : min(end, match.end() + 80)].lstrip()
    if not after:
        return True
    if after[0].islower():
        return False
    if not match.group().startswith(".") or match.group().startswith(".."):
        return True
    words = text[max(begin, match.start() - 24) : match.start()].split()
    if not words:
        return False  # a list number's or a stray full stop
    word = words[-1].lstrip("([\"'\u201c\u2018").casefold()
    initial = len(word) == 1 and word.isalpha() and words[-1][-1].isupper()
    numbering = len(words) == 1 and word.isdigit() and match.start() - begin <= len(word) + 1
    return not (word in _ABBREVIATIONS or initial or numbering)
