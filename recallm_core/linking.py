"""From recall spans to citations: what each quote supports, and every place where it stands.

Every citation is checked by slicing the caller's own text; a mismatch raises, it never warns.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from recallm_core.boundaries import word_boundaries
from recallm_core.citations import Citation, Part
from recallm_core.documents import Document, Location, Passage
from recallm_core.errors import CitationError
from recallm_core.lexical import terms
from recallm_core.text.places import find_all
from recallm_core.trace import RecallSpan, Trace


@dataclass(frozen=True, slots=True)
class _Word:
    """A word of a text, folded for comparing, with its range."""

    folded: str
    start: int
    end: int
    content: bool


def resolve(
    trace: Trace,
    passages: tuple[Passage, ...],
    documents: Mapping[str, Document],
    *,
    fallback: bool = True,
) -> tuple[Citation, ...]:
    """Returns the citations of an answer, in the order of the text that they support.

    A span in the answer supports its own range. A span from the thinking supports the longest run
    of words that it shares with the answer, if at least one of them is a content word. Where no
    span supports anything, the last one is cited for the whole answer.

    Args:
        trace: The output.
        passages: What could be quoted.
        documents: The texts by id.
        fallback: Whether the last span may stand for the whole answer.

    Raises:
        CitationError: A quote isn't the slice of its document that it claims to be.
    """
    answer = trace.answer
    words = _words(answer)
    linked: list[tuple[RecallSpan, int | None, int | None]] = []
    for span in trace.spans:
        if span.section == "answer":
            linked.append((span, span.offset, span.offset + len(span.text)))
        else:
            found = _longest_match(_words(span.text), words)
            if found is not None:
                linked.append((span, *found))
    if not linked and trace.spans and fallback and answer:
        linked.append((trace.spans[-1], None, None))
    cited = {
        (span.document_id, span.start, span.end, a, b): _cite(span, a, b, passages, documents)
        for span, a, b in linked
    }
    last = len(answer)
    order = sorted(
        cited.values(),
        key=lambda c: (last, last) if c.answer_start is None else (c.answer_start, c.answer_end),
    )
    return tuple(order)


def _cite(
    span: RecallSpan,
    answer_start: int | None,
    answer_end: int | None,
    passages: tuple[Passage, ...],
    documents: Mapping[str, Document],
) -> Citation:
    document = _check(span.text, Location(span.document_id, span.start, span.end), documents)
    source = document.source_map
    return Citation(
        document_id=span.document_id,
        start=span.start,
        end=span.end,
        text=span.text,
        answer_start=answer_start,
        answer_end=answer_end,
        occurrences=_occurrences(span, passages, documents),
        parts=_parts(span, passages[span.passage]),
        title=document.title,
        lines=document.lines(span.start, span.end),
        page=document.page_at(span.start),
        source=None if source is None else source.origin,
        utf16_range=document.utf16_range(span.start, span.end),
        utf8_range=document.utf8_range(span.start, span.end),
    )


def _occurrences(
    span: RecallSpan, passages: tuple[Passage, ...], documents: Mapping[str, Document]
) -> tuple[Location, ...]:
    """Every place where the supplied texts hold the quote, the cited one first; each checked."""
    cited = Location(span.document_id, span.start, span.end)
    found = [place for passage in passages for place in _scan(span.text, passage)]
    places = tuple(dict.fromkeys([cited, *span.occurrences, *found]))
    for place in places:
        _check(span.text, place, documents)
    return places


def _check(text: str, place: Location, documents: Mapping[str, Document]) -> Document:
    document = documents.get(place.document_id)
    if document is None or document.text[place.start : place.end] != text:
        raise CitationError(
            f"the quote {text[:60]!r} isn't document {place.document_id!r}"
            f"[{place.start}:{place.end}]; a passage or a duplicate was given with offsets that "
            "aren't its own, or this is a fault of the library: please report it"
        )
    return document


def _scan(text: str, passage: Passage) -> Iterator[Location]:
    size = len(text)
    for at in find_all(text, passage.text):
        yield Location(passage.document_id, passage.start + at, passage.start + at + size)
        for copy in passage.duplicates:
            begin = copy.start + at - copy.passage_start
            if copy.start <= begin and begin + size <= copy.end:
                yield Location(copy.document_id, begin, begin + size)


def _parts(span: RecallSpan, passage: Passage) -> tuple[Part, ...]:
    parts = []
    for member in passage.members:
        start, end = max(span.start, member.start), min(span.end, member.end)
        if start < end:
            text = span.text[start - span.start : end - span.start]
            parts.append(Part(start, end, text, member.id))
    return tuple(parts)


def _words(text: str) -> list[_Word]:
    """The words of a text; in scripts without spaces every character is one."""
    edges = np.flatnonzero(word_boundaries(text)).tolist()
    out = []
    for start, end in pairwise(edges):
        piece = text[start:end]
        if any(c.isalnum() for c in piece):
            folded = unicodedata.normalize("NFKC", piece).casefold()
            out.append(_Word(folded, start, end, bool(terms(piece))))
    return out


def _longest_match(quote: list[_Word], answer: list[_Word]) -> tuple[int, int] | None:
    """The range of the answer that shares the longest run of words with the quote.

    Runs without a content word don't count. Among equally long runs the one with more content
    words wins, then the first. One row of array arithmetic per word of the quote.
    """
    if not quote or not answer:
        return None
    size = len(answer) + 1
    numbers: dict[str, int] = {}
    ids = np.array([numbers.setdefault(w.folded, len(numbers)) for w in answer])
    content = np.cumsum([0, *(w.content for w in answer)])
    places = np.arange(1, size)
    row = np.zeros(size, dtype=np.int64)  # row[j]: words in common that end before answer[j]
    best, found = 0, None
    for word in quote:
        shared = np.zeros(size, dtype=np.int64)
        shared[1:] = np.where(ids == numbers.get(word.folded, -1), row[:-1] + 1, 0)
        row = shared
        held = content[1:] - content[places - row[1:]]
        ranks = np.where(held > 0, row[1:] * size + held, 0)
        at = int(ranks.argmax())
        if ranks[at] > best:
            best = int(ranks[at])
            found = (answer[at + 1 - int(row[at + 1])].start, answer[at].end)
    return found
