"""Where a quote counts as taken from, when its words stand in more than one place.

A short quote ("80") stands in many places, and its tokens fit all of them. It is taken from the
evidence that was recalled for it: the first of these that exists counts.

1. The place inside the evidence recalled last that holds the words, then inside earlier ones;
   what was recalled before the answer goes before quotes of the answer itself.
2. The place nearest to such evidence in its passage, the evidence recalled last first.
3. The same in its document.
4. The first place of all.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

from recallm_core.answers.trace import RecallSpan
from recallm_core.documents.document import Location
from recallm_core.text.boundaries import word_boundaries
from recallm_core.text.places import find_all


@dataclass(frozen=True, slots=True)
class Place:
    """Where a quote stands: the range of its document, and the number of the passage."""

    passage: int
    location: Location


def anchor(text: str, places: Sequence[Place], earlier: Sequence[RecallSpan]) -> Place:
    """Returns where a quote counts as taken from.

    Args:
        text: The quote.
        places: Where its tokens stand, at least one.
        earlier: What was recalled before it, in order.
    """
    evidence = latest_first(earlier)
    known = {place.location for place in places}
    for span in [span for span in evidence if text in span.text]:
        for location in _inside(text, span, known):
            return Place(span.passage, location)
    near = _nearest(places, evidence, lambda place: place.passage, lambda span: span.passage)
    near = near or _nearest(
        places, evidence, lambda place: place.location.document_id, lambda span: span.document_id
    )
    return near or places[0]


def latest_first(spans: Sequence[RecallSpan]) -> list[RecallSpan]:
    """Returns what was recalled for the answer, then what it quotes; each from the last on."""
    latest = spans[::-1]
    return sorted(latest, key=lambda span: span.section == "answer")


def _inside(text: str, span: RecallSpan, known: set[Location]) -> Iterator[Location]:
    """The places of a quote inside evidence: its tokens' own, or whole words."""
    edges = None
    for at in find_all(text, span.text):
        end = at + len(text)
        location = Location(span.document_id, span.start + at, span.start + end)
        if location not in known:
            edges = word_boundaries(span.text) if edges is None else edges
            if not (edges[at] and edges[end]):
                continue
        yield location


def _nearest(
    places: Sequence[Place],
    evidence: Sequence[RecallSpan],
    of_place: Callable[[Place], Hashable],
    of_span: Callable[[RecallSpan], Hashable],
) -> Place | None:
    """The place nearest to the first evidence that has something in common with a place.

    Each is looked at once: a word may stand in as many places as there was evidence recalled.
    """
    ranks: dict[Hashable, int] = {}
    for rank, span in enumerate(evidence):
        ranks.setdefault(of_span(span), rank)
    first = min((ranks[at] for at in map(of_place, places) if at in ranks), default=None)
    if first is None:
        return None
    span = evidence[first]
    near = (place for place in places if of_place(place) == of_span(span))
    return min(near, key=lambda place: _distance(place.location, span))


def _distance(place: Location, span: RecallSpan) -> int:
    """How many characters lie between two ranges of a document."""
    return max(place.start - span.end, span.start - place.end, 0)
