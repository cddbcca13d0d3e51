"""Stretches of the corpus as citations of the caller's own text, each checked by slicing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recallm_core.answers.answer import Citation, Part
from recallm_core.checking.corpus import Corpus
from recallm_core.checking.places import Stretch
from recallm_core.documents.document import Document, Location
from recallm_core.errors import CitationError
from recallm_core.text.places import find_all

_KEPT = 64  # texts whose places are remembered
_STEP = 65_536  # characters between two places whose encoded offsets are kept


class Citer:
    """Makes citations; offsets in other encodings are counted once per document.

    Args:
        corpus: Where the stretches are from.
    """

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self._places: dict[str, tuple[Location, ...]] = {}
        self._sizes: dict[tuple[str, str], list[int]] = {}

    def cite(self, stretches: Sequence[Stretch]) -> Citation:
        """Returns the citation of one stretch, or of all from the first to the last, in parts.

        Raises:
            CitationError: A stretch isn't a slice of its document.
        """
        document = self.corpus.documents[self.corpus.document_at(stretches[0].first)]
        start, end = stretches[0].start, stretches[-1].end
        text = document.text[start:end]
        if not 0 <= start < end <= len(document.text):
            raise CitationError(
                f"[{start}:{end}] is no range of document {document.id!r}; this is a fault of the "
                "library: please report it"
            )
        source = document.source_map
        return Citation(
            document_id=document.id,
            start=start,
            end=end,
            text=text,
            occurrences=self._occurrences(document, stretches),
            parts=_parts(document, stretches),
            title=document.title,
            lines=document.lines(start, end),
            page=document.page_at(start),
            source=None if source is None else source.origin,
            utf16_range=self._range_in_units(document, start, end, "utf-16-le", 2),
            utf8_range=self._range_in_units(document, start, end, "utf-8", 1),
            basis="matched",
        )

    def _occurrences(
        self, document: Document, stretches: Sequence[Stretch]
    ) -> tuple[Location, ...]:
        """Every place that holds the slice, the cited one first."""
        start, end = stretches[0].start, stretches[-1].end
        cited = Location(document.id, start, end)
        text = document.text[start:end]
        if text not in self._places:
            if len(self._places) >= _KEPT:
                self._places.clear()
            self._places[text] = self._scan_documents(text, start, stretches)
        places = self._places[text]
        return (cited, *(place for place in places if place != cited))

    def _scan_documents(
        self, text: str, start: int, stretches: Sequence[Stretch]
    ) -> tuple[Location, ...]:
        corpus, first, past = self.corpus, stretches[0].first, stretches[-1].past
        lead = int(corpus.starts[first]) - start
        places = corpus.occurrences(corpus.ids[first:past].tolist())
        begins = corpus.starts[places] - lead
        numbers = corpus.documents_at(places)
        locations = []
        for number in np.unique(numbers).tolist():
            other = corpus.documents[number]
            inside = _holding(text, other.text, begins[numbers == number].tolist())
            locations += [Location(other.id, begin, begin + len(text)) for begin in inside]
        return tuple(locations)

    def _range_in_units(
        self, document: Document, start: int, end: int, encoding: str, unit: int
    ) -> tuple[int, int]:
        if document.text.isascii():
            return start, end
        first = self._size(document, start, encoding) // unit
        return first, first + len(document.text[start:end].encode(encoding)) // unit

    def _size(self, document: Document, offset: int, encoding: str) -> int:
        """Bytes before a character."""
        sizes = self._sizes.setdefault((document.id, encoding), [0])
        text = document.text
        step = offset // _STEP
        while len(sizes) <= step:
            at = (len(sizes) - 1) * _STEP
            sizes.append(sizes[-1] + len(text[at : at + _STEP].encode(encoding)))
        return sizes[step] + len(text[step * _STEP : offset].encode(encoding))


def _holding(text: str, source: str, begins: list[int]) -> list[int]:
    """Those of some places in a source where a text stands; in linear time where it overlaps."""
    if len(begins) * len(text) <= len(source):
        return [begin for begin in begins if begin >= 0 and source.startswith(text, begin)]
    places = set(find_all(text, source))
    return [begin for begin in begins if begin in places]


def _parts(document: Document, stretches: Sequence[Stretch]) -> tuple[Part, ...]:
    if len(stretches) == 1:
        return ()
    return tuple(Part(s.start, s.end, document.text[s.start : s.end]) for s in stretches)
