"""Slices of documents, and passages that a search gave, as the data that clients get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from recallm_core.answers.attribution import cite
from recallm_core.documents.document import Document, Location, Passage, ScoredChunk
from recallm_core.errors import DocumentError
from recallm_core.inputs.arguments import MOST, whole_number
from recallm_core.rendering.data import SCHEMA, citation_data

MOST_QUOTED = 100_000  # characters
MOST_PLACES = 100  # of the same text that are listed; a short one stands in very many


def exact_quote(
    document: Document, start: int, end: int, documents: Sequence[Document]
) -> dict[str, Any]:
    """Returns the exact slice of a place, as the citations of an answer are.

    ``places`` is how often the same text stands in the documents; the first ``MOST_PLACES`` are
    listed.

    Args:
        document: What is quoted.
        start: First character, in code points.
        end: One past the last.
        documents: Where else the same text is looked for.

    Raises:
        DocumentError: It is no range of the document, or a very long one.
    """
    for name, value in (("start", start), ("end", end)):
        whole_number(name, value, -MOST, error=DocumentError)
    size = len(document.text)
    if not 0 <= start < end <= size:
        raise DocumentError(
            f"[{start}, {end}) is no range of {document.id!r}, which has {size:,} characters; "
            "start counts from 0, and end is one past the last character"
        )
    if end - start > MOST_QUOTED:
        raise DocumentError(
            f"[{start}, {end}) has {end - start:,} characters; quote at most {MOST_QUOTED:,} at "
            "once, or read the document's resource"
        )
    others = [other for other in documents if other.id != document.id]
    passages = [
        Passage(source.id, 0, len(source.text), source.text) for source in (document, *others)
    ]
    citation = cite(
        Location(document.id, start, end),
        0,
        passages,
        {source.id: source for source in (document, *others)},
        text=document.text[start:end],
        basis="pointed",
    )
    places = citation.occurrences
    data = citation_data(1, replace(citation, occurrences=places[:MOST_PLACES]))
    return {"schema": SCHEMA, "citation": data, "places": len(places)}


def passage_data(chunk: ScoredChunk, document: Document) -> dict[str, Any]:
    """Returns a passage that a search gave, with its place."""
    return {
        "document_id": chunk.document_id,
        "title": document.title,
        "source": document.source_map.origin if document.source_map else None,
        "lines": list(document.lines(chunk.start, chunk.end)),
        "page": document.page_at(chunk.start),
        "place": document.place_at(chunk.start),
        "start": chunk.start,
        "end": chunk.end,
        "text": chunk.text,
        "score": float(chunk.score),
    }
