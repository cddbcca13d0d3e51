"""Documents indexed by their words, so that a quote's places are found without reading on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from recallm_core.checking.words import Ints, Words, keys, words
from recallm_core.documents.document import Document, DocumentSet
from recallm_core.text.boundaries import word_boundaries
from recallm_core.text.places import find_all

UNKNOWN = -1  # a word that no document holds
_AROUND = 64  # characters beside a place that decide whether a word ends there
_BUDGET = 4_000_000  # comparisons by word, before places are looked for by the whole row at once
# Of a run's places, where the same words stand very often: those of its first words are worked out
# once in a quote, and beyond them only so many are followed on.
_HEAD, _MANY, _FOLLOWED = 8, 1_000, 20_000
_LETTERS = 0x10FFFF  # numbers of words that can stand for themselves as code points


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of a quote's words that the documents hold somewhere, word by word.

    Attributes:
        first: Number of its first word in the quote.
        size: How many words.
        places: Numbers of the corpus's words where it begins, ascending.
    """

    first: int
    size: int
    places: Ints

    @property
    def past(self) -> int:
        """One past its last word in the quote."""
        return self.first + self.size


class Corpus:
    """The words of all documents in one row; read only, so threads may share it.

    Building is linear in the documents; a look-up costs about as much as the quote's rarest words
    have places.

    Args:
        documents: What can be quoted.
    """

    def __init__(self, documents: DocumentSet) -> None:
        self.documents: tuple[Document, ...] = tuple(documents)
        rows = [words(document.text) for document in self.documents]
        self._ids: dict[str, int] = {}
        numbers = _number_words((row.raw for row in rows), self._ids)
        self.keys: tuple[str, ...] = tuple(self._ids)
        # One word of no kind after each document: no run reaches from one into the next.
        sizes = np.array([len(row) + 1 for row in rows], dtype=np.int64)
        self.firsts: Ints = np.cumsum(sizes) - sizes
        self.starts: Ints = _join_rows([row.starts for row in rows], 0)
        self.ends: Ints = _join_rows([row.ends for row in rows], 0)
        self.ids: Ints = _join_rows([_ids(row, numbers) for row in rows], UNKNOWN)
        order = np.argsort(self.ids, kind="stable")
        self._order = order[np.searchsorted(self.ids[order], 0) :]
        counts = np.bincount(self.ids[self._order], minlength=len(self._ids))
        self._edges = np.append(0, np.cumsum(counts))

    def ids_of(self, keys: Sequence[str]) -> list[int]:
        """Returns the number of each key; ``UNKNOWN`` for a word that no document holds."""
        return [self._ids.get(key, UNKNOWN) for key in keys]

    def key_at(self, place: int) -> str:
        """Returns the key of a word of the corpus."""
        return self.keys[int(self.ids[place])]

    def places(self, word: int) -> Ints:
        """Returns where a word stands, ascending."""
        if word == UNKNOWN:
            return self._order[:0]
        return self._order[self._edges[word] : self._edges[word + 1]]

    def occurrences(self, ids: Sequence[int]) -> Ints:
        """Returns every place where the words stand one after another."""
        if not ids or UNKNOWN in ids:
            return self._order[:0]
        counts = [self._edges[word + 1] - self._edges[word] for word in ids]
        order = sorted(range(len(ids)), key=counts.__getitem__)
        places = self.places(ids[order[0]]) - order[0]
        places = places[(places >= 0) & (places + len(ids) <= len(self.ids))]
        spent = 0
        for at in order[1:]:
            if not places.size:
                break
            if (
                spent > _BUDGET and len(self.keys) < _LETTERS
            ):  # many words that stand in many places: the text repeats itself
                return self._row_places(ids)
            spent += places.size
            places = places[self.ids[places + at] == ids[at]]
        return places

    def _row_places(self, ids: Sequence[int]) -> Ints:
        """As ``occurrences``, in time linear in the corpus whatever repeats."""
        places = find_all(_spell(np.array(ids)), _spell(self.ids))
        return np.fromiter(places, dtype=np.int64)

    def runs(self, ids: Sequence[int]) -> list[Run]:
        """Divides a quote into the longest stretches that the documents hold, from the left.

        Words that no document holds are in no run. Each run is as long as it can be from where
        it begins.
        """
        runs = []
        at = 0
        heads: dict[tuple[int, ...], Ints] = {}
        while at < len(ids):
            run = self._longest(ids, at, heads)
            if run.size:
                runs.append(run)
            at += max(1, run.size)
        return runs

    def _longest(self, ids: Sequence[int], at: int, heads: dict[tuple[int, ...], Ints]) -> Run:
        places = self.places(ids[at])
        size = 1 if places.size else 0
        while size and at + size < len(ids) and ids[at + size] != UNKNOWN:
            if size >= _HEAD:
                longer = self._places_before(places[:_FOLLOWED], size, ids[at + size])
            elif places.size < _MANY:
                longer = self._places_before(places, size, ids[at + size])
            else:
                head = tuple(ids[at : at + size + 1])
                if head not in heads:
                    heads[head] = self._places_before(places, size, head[-1])
                longer = heads[head]
            if not longer.size:
                break
            places, size = longer, size + 1
        return Run(at, size, places)

    def _places_before(self, places: Ints, size: int, word: int) -> Ints:
        """Those of some places that a word follows, so many words later."""
        inside = places[places + size < len(self.ids)]
        followed: Ints = inside[self.ids[inside + size] == word]
        return followed

    def document_at(self, place: int) -> int:
        """Returns the number of the document that holds a word of the corpus."""
        return int(np.searchsorted(self.firsts, place, side="right")) - 1

    def documents_at(self, places: Ints) -> Ints:
        """Returns the numbers of the documents that hold words of the corpus."""
        return np.searchsorted(self.firsts, places, side="right") - 1

    def past_of(self, document: int) -> int:
        """Returns one past a document's last word."""
        following = document + 1
        return int(self.firsts[following] if following < len(self.firsts) else len(self.ids)) - 1

    def span(self, first: int, past: int) -> tuple[int, int]:
        """Returns the characters, of one document, that words ``[first, past)`` cover."""
        return int(self.starts[first]), int(self.ends[past - 1])


def _spell(numbers: Ints) -> str:
    """Numbers of words as a text of as many characters; what is no word is the last code point."""
    codes = np.where(numbers == UNKNOWN, _LETTERS, numbers).astype("<u4")
    return codes.tobytes().decode("utf-32-le", "surrogatepass")


def _number_words(texts: Iterable[Sequence[str]], ids: dict[str, int]) -> dict[str, int]:
    """The number of each word as it is written, equal keys having equal ones; fills ``ids``."""
    spellings = dict.fromkeys(word for text in texts for word in text)
    known = keys(spellings) if spellings else []
    return {raw: ids.setdefault(key, len(ids)) for raw, key in zip(spellings, known, strict=True)}


def _ids(row: Words, numbers: dict[str, int]) -> Ints:
    return np.fromiter(map(numbers.__getitem__, row.raw), dtype=np.int64, count=len(row))


def _join_rows(rows: list[Ints], end: int) -> Ints:
    """The rows one after another, each followed by ``end``."""
    return np.concatenate([np.append(row, end) for row in rows] or [np.zeros(0, np.int64)])


def between_words(text: str, offset: int) -> bool:
    """Whether a place in a text is a boundary of words, by what stands around it."""
    if _surely_between(text[offset - 1 : offset], text[offset : offset + 1]):
        return True
    begin = max(0, offset - _AROUND)
    excerpt = text[begin : offset + _AROUND]
    return bool(word_boundaries(excerpt)[offset - begin])


def _surely_between(before: str, after: str) -> bool:
    """Whether two neighbours are apart whatever is around them: a word and white space, two Han."""
    if before.isspace() or after.isspace():
        return before.isalnum() or after.isalnum()
    return "\u4e00" <= before <= "\u9fff" and "\u4e00" <= after <= "\u9fff"


def widen(text: str, start: int, end: int) -> tuple[int, int]:
    """Returns a range with the low lines that join it to what they hold: ``__init__``."""
    while text[start - 1 : start] == "_":
        start -= 1
    while text[end : end + 1] == "_":
        end += 1
    return start, end
