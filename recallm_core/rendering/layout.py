"""What every rendering shows: numbered citations, what they cover, the sources they quote."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from recallm_core.answers.answer import Answer, Citation
from recallm_core.documents.document import Document, Location
from recallm_core.errors import CitationError
from recallm_core.rendering.visible import one_line

WHOLE = 8_000  # a source of at most this many characters is shown whole
CONTEXT = 500  # characters around a quote, in longer ones
NOT_FOUND = "The documents hold no answer, as far as the model found."
NEAREST = "The nearest that the documents say, which is no answer:"
MOST_NEAREST = 3
GRADES = {
    "recalled": "",
    "pointed": "pointed at by the model",
    "matched": "matched to the answer afterwards",
}


@dataclass(frozen=True, slots=True)
class Piece:
    """A segment of text that lies in one set of ranges.

    Attributes:
        start: First character.
        end: One past the last.
        numbers: The ranges that cover it, ascending.
        opens: Those that begin with it.
        closes: Those that end with it.
    """

    start: int
    end: int
    numbers: tuple[int, ...]
    opens: tuple[int, ...] = ()
    closes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A part of a source to show, divided by the quotes in it."""

    start: int
    end: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """One quoted document.

    Attributes:
        document_id: Its id.
        name: What to call it, on one line.
        origin: Path or URL of its file, where known.
        text: Its text; only the quotes, where the text isn't at hand.
        document: The document itself, where it is at hand.
        excerpts: What to show of the text.
        numbers: The citations that quote it.
    """

    document_id: str
    name: str
    origin: str | None
    text: str
    document: Document | None
    excerpts: tuple[Excerpt, ...]
    numbers: tuple[int, ...]


def cut(start: int, end: int, ranges: Iterable[tuple[int, int, int]]) -> tuple[Piece, ...]:
    """Divides ``[start, end)`` wherever one of the ranges ``(first, past, number)`` begins or ends.

    Ranges are clipped; one that is left empty is dropped.
    """
    clipped = [(max(a, start), min(b, end), n) for a, b, n in ranges]
    live = sorted((a, b, n) for a, b, n in clipped if a < b)
    edges = sorted({start, end, *(a for a, _, _ in live), *(b for _, b, _ in live)})
    pieces: list[Piece] = []
    active: list[tuple[int, int, int]] = []
    coming = 0
    for first, past in pairwise(edges):
        active = [r for r in active if r[1] > first]
        while coming < len(live) and live[coming][0] == first:
            active.append(live[coming])
            coming += 1
        pieces.append(
            Piece(
                first,
                past,
                tuple(sorted(n for _, _, n in active)),
                tuple(sorted(n for a, _, n in active if a == first)),
                tuple(sorted(n for _, b, n in active if b == past)),
            )
        )
    return tuple(pieces)


def answer_pieces(answer: Answer) -> tuple[Piece, ...]:
    """Returns the answer's text divided by what its citations support; numbers count from 1."""
    end = len(answer.text)
    return cut(0, end, ((*_support(c, end), n) for n, c in enumerate(answer.citations, 1)))


def markers(answer: Answer) -> dict[int, tuple[int, ...]]:
    """Returns, by offset in the answer's text, the citations whose supported part ends there."""
    marks: dict[int, list[int]] = {}
    for number, citation in enumerate(answer.citations, 1):
        marks.setdefault(_support(citation, len(answer.text))[1], []).append(number)
    return {end: tuple(numbers) for end, numbers in marks.items()}


def _support(citation: Citation, end: int) -> tuple[int, int]:
    if citation.answer_start is None or citation.answer_end is None:
        return 0, end
    return min(citation.answer_start, end), min(citation.answer_end, end)


def sources(answer: Answer, *, whole: int = WHOLE, context: int = CONTEXT) -> tuple[Source, ...]:
    """Returns the quoted documents, in the order of their first citation.

    Raises:
        CitationError: A quote isn't the slice of the document it names.
    """
    quoted: dict[str, list[int]] = {}
    for number, citation in enumerate(answer.citations, 1):
        quoted.setdefault(citation.document_id, []).append(number)
    return tuple(_source(answer, key, numbers, whole, context) for key, numbers in quoted.items())


def _source(answer: Answer, key: str, numbers: Sequence[int], whole: int, context: int) -> Source:
    cited = [(answer.citations[n - 1], n) for n in numbers]
    document = answer.sources.get(key)
    name, origin = name_of(cited[0][0], document), cited[0][0].source
    if document is None:
        text, excerpts = _quotes_alone(cited)
        return Source(key, name, origin, text, None, excerpts, tuple(numbers))
    for citation, _ in cited:
        if document.text[citation.start : citation.end] != citation.text:
            raise CitationError(
                f"[{citation.start}, {citation.end}) of document {key!r} isn't the quote "
                f"{citation.text[:60]!r}; the answer can't be shown"
            )
    ranges = [(c.start, c.end, n) for c, n in cited]
    excerpts = tuple(
        Excerpt(a, b, cut(a, b, ranges)) for a, b in windows(document.text, ranges, whole, context)
    )
    return Source(key, name, origin, document.text, document, excerpts, tuple(numbers))


def _quotes_alone(cited: Sequence[tuple[Citation, int]]) -> tuple[str, tuple[Excerpt, ...]]:
    parts: list[str] = []
    excerpts: list[Excerpt] = []
    start = 0
    for citation, number in cited:
        end = start + len(citation.text)
        excerpts.append(Excerpt(start, end, cut(start, end, [(start, end, number)])))
        parts.append(citation.text)
        start = end
    return "".join(parts), tuple(excerpts)


def windows(
    text: str, ranges: Iterable[tuple[int, int, int]], whole: int, context: int
) -> list[tuple[int, int]]:
    """Returns the stretches of a text to show: all of it, or what surrounds the ranges."""
    if len(text) <= whole:
        return [(0, len(text))]
    shown: list[tuple[int, int]] = []
    for first, past, _ in sorted(ranges):
        start = _line_start(text, max(0, first - context), first)
        end = _line_end(text, past, min(len(text), past + context))
        if shown and start <= shown[-1][1]:
            shown[-1] = (shown[-1][0], max(shown[-1][1], end))
        else:
            shown.append((start, end))
    return shown


def _line_start(text: str, earliest: int, first: int) -> int:
    """The first line that begins at or after ``earliest``, or the word there in a long line."""
    if earliest == 0:
        return 0
    for mark in ("\n", " "):
        at = text.find(mark, earliest - 1, first)
        if at >= 0:
            return at + 1
    return first


def _line_end(text: str, past: int, latest: int) -> int:
    if latest == len(text):
        return latest
    for mark in ("\n", " "):
        at = text.rfind(mark, past, latest)
        if at >= 0:
            return at + 1
    return past


def name_of(citation: Citation, document: Document | None = None) -> str:
    """Returns what to call a citation's document, on one line."""
    title = citation.title or (document.title if document else None)
    return one_line(title or citation.source or citation.document_id) or "untitled"


def place_of(citation: Citation) -> str:
    """Returns where a quote stands: ``notes/leave.md:12`` and the page, on one line."""
    base = citation.source or citation.title or citation.document_id
    line = citation.lines[0] if citation.lines else None
    return _place(base, citation.page, line, citation.place)


def occurrence_place(location: Location, document: Document | None) -> str:
    """Returns where an occurrence stands, as ``place_of`` does for a citation."""
    if document is None:
        base = f"{location.document_id}, characters {location.start}-{location.end}"
        return _place(base, None, None, None)
    origin = document.source_map.origin if document.source_map else None
    base = origin or document.title or document.id
    at = location.start
    return _place(base, document.page_at(at), document.line_at(at), document.place_at(at))


def elsewhere(answer: Answer, citation: Citation) -> tuple[str, ...]:
    """Returns the other places where the quote stands, without repeats."""
    itself = (citation.document_id, citation.start, citation.end)
    here = place_of(citation)
    again = "the same page" if citation.page is not None else "the same line"
    others = (o for o in citation.occurrences if (o.document_id, o.start, o.end) != itself)
    places = (occurrence_place(o, answer.sources.get(o.document_id)) for o in others)
    return tuple(dict.fromkeys(again if place == here else place for place in places))


def _place(base: str, page: int | None, line: int | None, place: str | None) -> str:
    base = one_line(base) or "untitled"
    if place is not None:
        return f"{base}, {one_line(place)}"
    if page is not None:
        return f"{base}, page {page}"
    if line is None:
        return base
    return f"{base}, line {line}" if "://" in base else f"{base}:{line}"
