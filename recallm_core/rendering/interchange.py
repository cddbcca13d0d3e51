"""Citations in the forms that other programs read: W3C Web Annotations and CSL-JSON."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from recallm_core.answers.answer import Answer, Citation
from recallm_core.documents.document import Document
from recallm_core.rendering.layout import name_of
from recallm_core.rendering.visible import one_line, safe_url

ANNOTATION_CONTEXT = "http://www.w3.org/ns/anno.jsonld"
_CONTEXT = 32  # characters before and after a quote, as annotation tools keep them
_PDF_FRAGMENT = "http://tools.ietf.org/rfc/rfc3778"
_AUTHORS = ("authors", "author", "creator")
_DATES = ("date", "issued", "published", "year", "creationdate")


def to_web_annotations(answer: Answer) -> dict[str, Any]:
    """Returns the citations as one W3C Web Annotation page (Web Annotation Data Model, 2017).

    Each annotation targets its document by quote (with the text around it), by position (code
    points, as the model wants) and by page where there is one; its body is the part of the answer
    that the quote supports. Identifiers are made of the content: the same answer gives the same.
    """
    items = [_annotation(answer, number, c) for number, c in enumerate(answer.citations, 1)]
    identity = _urn("answer", answer.question, answer.text, *(item["id"] for item in items))
    return {
        "@context": ANNOTATION_CONTEXT,
        "id": identity,
        "type": "AnnotationPage",
        "startIndex": 0,
        "items": items,
    }


def to_csl_json(answer: Answer) -> list[dict[str, Any]]:
    """Returns the cited documents as CSL-JSON items, for Zotero, pandoc and other processors.

    A document's metadata gives authors and date where it names them (``author``, ``date`` ...);
    the quotes, with page and lines, are in each item's ``custom`` field.
    """
    cited: dict[str, list[tuple[int, Citation]]] = {}
    for number, citation in enumerate(answer.citations, 1):
        cited.setdefault(citation.document_id, []).append((number, citation))
    return [_csl_item(key, quotes, answer.sources.get(key)) for key, quotes in cited.items()]


def _annotation(answer: Answer, number: int, citation: Citation) -> dict[str, Any]:
    document = answer.sources.get(citation.document_id)
    place = (citation.document_id, str(citation.start), str(citation.end))
    return {
        "id": _urn("citation", answer.question, answer.text, str(number), *place),
        "type": "Annotation",
        "motivation": "linking",
        "generator": {"type": "Software", "name": "RecaLLM"},
        "body": {
            "type": "TextualBody",
            "value": supported_text(answer, citation),
            "format": "text/plain",
            "purpose": "describing",
        },
        "target": {
            "type": "SpecificResource",
            "source": _resource(citation, document),
            "selector": list(_selectors(citation, document)),
        },
    }


def supported_text(answer: Answer, citation: Citation) -> str:
    """Returns the part of the answer's text that a citation supports."""
    if citation.answer_start is None or citation.answer_end is None:
        return answer.text
    return answer.text[citation.answer_start : citation.answer_end]


def _resource(citation: Citation, document: Document | None) -> dict[str, Any]:
    return {
        "id": safe_url(citation.source) or _urn("document", citation.document_id),
        "type": "Text",
        "label": name_of(citation, document),
        "recallm:document_id": citation.document_id,
    }


def _selectors(citation: Citation, document: Document | None) -> Iterator[dict[str, Any]]:
    quoted: dict[str, Any] = {"type": "TextQuoteSelector", "exact": citation.text}
    if document is not None:
        quoted["prefix"] = document.text[max(0, citation.start - _CONTEXT) : citation.start]
        quoted["suffix"] = document.text[citation.end : citation.end + _CONTEXT]
    yield quoted
    yield {"type": "TextPositionSelector", "start": citation.start, "end": citation.end}
    if citation.page is not None:
        yield {
            "type": "FragmentSelector",
            "conformsTo": _PDF_FRAGMENT,
            "value": f"page={citation.page}",
        }


def _csl_item(
    key: str, quotes: list[tuple[int, Citation]], document: Document | None
) -> dict[str, Any]:
    first = quotes[0][1]
    url = safe_url(first.source)
    on_the_web = url is not None and url.startswith("http")
    item: dict[str, Any] = {
        "id": key,
        "type": "webpage" if on_the_web and first.page is None else "document",
        "title": name_of(first, document),
    }
    if on_the_web:
        item["URL"] = url
    item |= csl_authors_and_date(document.metadata if document is not None else {})
    return item | {"custom": {"quotes": [_csl_quote(number, c) for number, c in quotes]}}


def csl_authors_and_date(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a source's authors and date in CSL-JSON, as literally as its metadata has them."""
    lowered = {str(name).casefold(): value for name, value in metadata.items()}
    fields: dict[str, Any] = {}
    authors = next((lowered[name] for name in _AUTHORS if lowered.get(name)), None)
    names = authors if isinstance(authors, list | tuple) else [authors]
    literals = [one_line(name) for name in names if isinstance(name, str) and name.strip()]
    if literals:
        fields["author"] = [{"literal": name} for name in literals]
    date = next((lowered[name] for name in _DATES if lowered.get(name)), None)
    if date is not None and one_line(str(date)):
        fields["issued"] = {"raw": one_line(str(date))}
    return fields


def _csl_quote(number: int, citation: Citation) -> dict[str, Any]:
    where: dict[str, Any] = {"number": number, "text": citation.text}
    where |= {"start": citation.start, "end": citation.end, "basis": citation.basis}
    if citation.page is not None:
        where |= {"locator": str(citation.page), "label": "page"}
    elif citation.lines is not None:
        first, last = citation.lines
        where |= {"locator": str(first) if first == last else f"{first}-{last}", "label": "line"}
    return where


def _urn(*parts: str) -> str:
    """An identifier made of the content, the same on every machine."""
    name = "\x00".join(f"{len(part)}:{part}" for part in parts)
    return uuid.uuid5(uuid.NAMESPACE_URL, name.encode("utf-8", "surrogatepass").hex()).urn
