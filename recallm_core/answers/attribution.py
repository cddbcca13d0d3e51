"""From recall spans to citations: what each quote supports, and every place where it stands.

Every citation is checked by slicing the caller's own text; a mismatch raises, it never warns.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from recallm_core.answers.answer import Basis, Citation, Part
from recallm_core.answers.hops import AnswerRange, hops
from recallm_core.answers.trace import RecallSpan, Trace
from recallm_core.documents.document import Document, Location, Passage
from recallm_core.errors import CitationError
from recallm_core.text.boundaries import word_boundaries
from recallm_core.text.lexical import terms
from recallm_core.text.places import find_all


@dataclass(frozen=True, slots=True)
class _Word:
    """A word of a text, folded for comparing, with its range."""

    folded: str
    start: int
    end: int
    content: bool


def resolve(
    trace: Trace,
    passages: Sequence[Passage],
    documents: Mapping[str, Document],
    *,
    question: str = "",
    fallback: bool = True,
) -> tuple[Citation, ...]:
    """Returns the citations of an answer, in the order of the text that they support.

    A span in the answer supports its own range. A span recalled before it, while thinking or as
    evidence, supports the longest run of words that it shares with the answer, if at least one of
    them is a content word; evidence recalled for the answer that shares none supports the whole
    answer. Where no span supports anything, the last one is cited for the whole answer. Spans that
    led to cited ones (``hops``) are cited for the same range.

    Args:
        trace: The output.
        passages: What could be quoted.
        documents: The texts by id.
        question: What was asked: where a chain of hops begins.
        fallback: Whether the last span may stand for the whole answer.

    Raises:
        CitationError: A quote isn't the slice of its document that it claims to be.
    """
    answer, spans = trace.answer, trace.spans
    linked = _links(spans, answer)
    if not linked and spans and fallback and answer:
        linked[len(spans) - 1] = (None, None)
    linked |= hops(spans, linked, question, passages)
    cited = {}
    for number, supported in sorted(linked.items()):
        span = spans[number]
        place = Location(span.document_id, span.start, span.end)
        cited[place, supported] = cite(
            place,
            span.passage,
            passages,
            documents,
            text=span.text,
            supports=supported,
            also=span.occurrences,
        )
    return in_order(cited.values(), answer)


def in_order(citations: Iterable[Citation], answer: str) -> tuple[Citation, ...]:
    """Returns citations in the order of the text that they support, the whole answer's last."""
    last = len(answer)

    def key(citation: Citation) -> tuple[int, int]:
        start, end = citation.answer_start, citation.answer_end
        return (last, last) if start is None or end is None else (start, end)

    return tuple(sorted(citations, key=key))


def placed_by(citations: Sequence[Citation], matched: Sequence[Citation]) -> tuple[Citation, ...]:
    """Returns both, a slice that was recalled for the whole answer and matched to words of it once.

    It then counts as recalled, and supports the words that were matched to it.
    """
    rest, placed = list(matched), []
    for citation in citations:
        match = next((c for c in rest if _same_slice(c, citation)), None)
        if match is None or citation.answer_start is not None:
            placed.append(citation)
            continue
        rest.remove(match)
        start, end = match.answer_start, match.answer_end
        placed.append(replace(citation, answer_start=start, answer_end=end))
    return (*placed, *rest)


def _same_slice(one: Citation, other: Citation) -> bool:
    ranges = [(c.document_id, c.start, c.end) for c in (one, other)]
    return ranges[0] == ranges[1]


def _links(spans: Sequence[RecallSpan], answer: str) -> dict[int, AnswerRange]:
    """What each span, by number, supports by its own words."""
    words = _words(answer)
    linked: dict[int, AnswerRange] = {}
    for number, span in enumerate(spans):
        if span.section == "answer":
            linked[number] = (span.offset, span.offset + len(span.text))
            continue
        supported = _longest_match(_words(span.text), words)
        if supported is not None:
            linked[number] = supported
        elif span.section == "evidence" and answer:
            linked[number] = (None, None)
    return linked


def cite(
    place: Location,
    passage: int,
    passages: Sequence[Passage],
    documents: Mapping[str, Document],
    *,
    text: str,
    supports: AnswerRange = (None, None),
    also: Iterable[Location] = (),
    basis: Basis = "recalled",
) -> Citation:
    """Returns the citation of a place, checked by slicing, with every other place of its text.

    Args:
        place: The range of a document.
        passage: The number of the passage that it lies in.
        passages: What could be quoted.
        documents: The texts by id.
        text: What stands there.
        supports: The range of the answer that it supports.
        also: Other places of the text that are known already.
        basis: How the citation came to be.

    Raises:
        CitationError: The text isn't what stands there, or in another place of it.
    """
    document = _check(text, place, documents)
    source = document.source_map
    return Citation(
        document_id=place.document_id,
        start=place.start,
        end=place.end,
        text=text,
        answer_start=supports[0],
        answer_end=supports[1],
        occurrences=_occurrences(text, [place, *also], passages, documents),
        parts=_parts(text, place, passages[passage]),
        title=document.title,
        lines=document.lines(place.start, place.end),
        page=document.page_at(place.start),
        place=document.place_at(place.start),
        source=None if source is None else source.origin,
        utf16_range=document.utf16_range(place.start, place.end),
        utf8_range=document.utf8_range(place.start, place.end),
        basis=basis,
    )


def _occurrences(
    text: str,
    known: Sequence[Location],
    passages: Sequence[Passage],
    documents: Mapping[str, Document],
) -> tuple[Location, ...]:
    """Every place where the supplied texts hold the quote, known ones first; each checked."""
    scanned = [place for passage in passages for place in _scan(text, passage)]
    places = tuple(dict.fromkeys([*known, *scanned]))
    for place in places:
        _check(text, place, documents)
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


def _parts(text: str, place: Location, passage: Passage) -> tuple[Part, ...]:
    parts = []
    for member in passage.members:
        start, end = max(place.start, member.start), min(place.end, member.end)
        if start < end:
            piece = text[start - place.start : end - place.start]
            parts.append(Part(start, end, piece, member.id))
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
    best, longest = 0, None
    for word in quote:
        shared = np.zeros(size, dtype=np.int64)
        shared[1:] = np.where(ids == numbers.get(word.folded, -1), row[:-1] + 1, 0)
        row = shared
        content_words = content[1:] - content[places - row[1:]]
        ranks = np.where(content_words > 0, row[1:] * size + content_words, 0)
        at = int(ranks.argmax())
        if ranks[at] > best:
            best = int(ranks[at])
            longest = (answer[at + 1 - int(row[at + 1])].start, answer[at].end)
    return longest
