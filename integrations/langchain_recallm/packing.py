"""Retrieved LangChain documents to packed ones: as much useful text as a token budget holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.documents import Document

import recallm_core as recallm
from langchain_recallm.sources import PACKED, title_of
from recallm_core import Passage, ScoredChunk, pack
from recallm_core.adapting import (
    DEFAULT_OVERHEAD,
    Count,
    Order,
    Overhead,
    best_passages,
    common_metadata,
    content_id,
    proven_place,
)

Texts = Mapping[str, Any] | Callable[[str], Any]
"""Full texts by the name of their source: strings or documents, or a function that finds them."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much is packed, and how it is counted.

    Attributes:
        tokens: Limit for all texts with their headers.
        count: Tokens of a text under the model's tokenizer.
        overhead: Tokens that a passage costs beyond its text.
        order: ``document``, ``relevance`` or ``edges``.
        k: Documents at most; None: as many as fit.
    """

    tokens: int
    count: Count
    overhead: Overhead = DEFAULT_OVERHEAD
    order: Order = "document"
    k: int | None = None


@dataclass(frozen=True, slots=True)
class _SourceSlice:
    """A retrieved document, as a slice of its source where that is proven or at least claimed."""

    document: Document
    chunk: ScoredChunk
    proven: bool


def pack_documents(
    documents: Iterable[Document],
    budget: Budget,
    *,
    texts: Texts | None = None,
    source_key: str = "source",
) -> list[Document]:
    """Returns the best documents that fit, neighbours of one source merged.

    Where a document stands in its source is told by ``metadata["start_index"]``, as LangChain's
    splitters write it. It is verified against ``texts``, or by the characters that overlapping
    neighbours share; a document whose place can't be told stays by itself. Nothing is ever joined
    that isn't proven to be one piece of text.

    Args:
        documents: Best first.
        budget: How much is packed.
        texts: Full texts of the sources; without them only overlaps are joined.
        source_key: The metadata key that names a document's source.

    Returns:
        New documents. ``metadata["recallm"]`` names the source range and the ``members`` that each
        was merged from, with their ranges in ``page_content``.
    """
    listed = list(documents)
    full_texts = _full_texts(listed, texts, source_key)
    alone: set[int] = set()
    while True:
        placed = [
            _place(n, one, full_texts, source_key, len(listed), apart=n in alone)
            for n, one in enumerate(listed)
        ]
        result = pack(
            [one.chunk for one in placed],
            full_texts,
            token_budget=budget.tokens,
            count=budget.count,
            overhead=budget.overhead,
            order=budget.order,
            titles=_titles(placed),
        )
        conflicts = {omitted.chunk for omitted in result.left_out if omitted.reason == "conflict"}
        fresh = {n for n, one in enumerate(placed) if one.chunk in conflicts} - alone
        if not fresh:  # two claims to the same characters: a start_index was wrong
            return [_document(p, placed) for p in best_passages(result.passages, budget.k)]
        alone |= fresh


def _full_texts(
    documents: Sequence[Document], texts: Texts | None, source_key: str
) -> dict[str, recallm.Document]:
    """The sources of some documents, where their full texts are known."""
    if texts is None:
        return {}
    look = texts if callable(texts) else texts.get
    out: dict[str, recallm.Document] = {}
    for name in dict.fromkeys(_source(document, source_key) for document in documents):
        source = look(name) if name is not None else None
        text = source if isinstance(source, str) else getattr(source, "page_content", None)
        text = getattr(source, "text", None) if text is None else text
        if name is not None and isinstance(text, str):
            out[name] = recallm.Document(text, name)
    return out


def _source(document: Document, source_key: str) -> str | None:
    name = document.metadata.get(source_key)
    return name if isinstance(name, str) and name else None


def _place(
    number: int,
    document: Document,
    texts: Mapping[str, recallm.Document],
    source_key: str,
    total: int,
    *,
    apart: bool,
) -> _SourceSlice:
    """Where a document stands; ``apart`` makes it a source of its own."""
    text, name = document.page_content, _source(document, source_key)
    score = float(total - number)
    start = document.metadata.get("start_index")
    claimed = start if isinstance(start, int) and not isinstance(start, bool) else -1
    if name in texts and not apart:
        assert name is not None
        at = proven_place(text, texts[name].text, claimed)
        if at is not None:
            return _SourceSlice(document, ScoredChunk(name, at, at + len(text), text, score), True)
    elif name is not None and claimed >= 0 and not apart:
        chunk = ScoredChunk(f"source:{name}", claimed, claimed + len(text), text, score)
        return _SourceSlice(document, chunk, False)
    home = f"document:{document.id or content_id(text)}:{number}"
    return _SourceSlice(document, ScoredChunk(home, 0, len(text), text, score), False)


def _titles(placed: Sequence[_SourceSlice]) -> dict[str, str]:
    titles: dict[str, str] = {}
    for member in placed:
        title = title_of(member.document.metadata)
        if title is not None:
            titles.setdefault(member.chunk.document_id, title)
    return titles


def _document(passage: Passage, placed: Sequence[_SourceSlice]) -> Document:
    """A passage as a document, with what it was merged from."""
    ranges = {(member.start, member.end) for member in passage.members}
    members = [
        part
        for part in placed
        if part.chunk.document_id == passage.document_id
        and (part.chunk.start, part.chunk.end) in ranges
    ]
    members.sort(key=lambda part: part.chunk.start)
    if len(members) == 1 and members[0].document.page_content == passage.text:
        first = members[0].document
        document_id, metadata = first.id, dict(first.metadata)
    else:
        document_id, metadata = (
            None,
            common_metadata([part.document.metadata for part in members], without=(PACKED,)),
        )
        metadata.pop("start_index", None)
    record: dict[str, Any] = {
        "members": [_member(part, passage.start) for part in members],
        "score": passage.score,
    }
    if members and all(part.proven for part in members):
        record.update(source=passage.document_id, start=passage.start, end=passage.end)
        metadata["start_index"] = passage.start
    metadata[PACKED] = record
    return Document(id=document_id, page_content=passage.text, metadata=metadata)


def _member(placed: _SourceSlice, start: int) -> dict[str, Any]:
    chunk = placed.chunk
    return {"id": placed.document.id, "start": chunk.start - start, "end": chunk.end - start}
