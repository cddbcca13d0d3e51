"""Chunks to passages: the most useful text that fits a token budget, as exact slices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from recallm_core.documents.document import Document, Duplicate, Passage, ScoredChunk
from recallm_core.errors import DocumentError
from recallm_core.inputs.arguments import MOST, whole_number
from recallm_core.packing.filling import Filling, Item, Overhead, Reason

__all__ = [
    "DEFAULT_OVERHEAD",
    "LeftOut",
    "Lookup",
    "Order",
    "Overhead",
    "Pack",
    "Reason",
    "pack",
    "pack_everything",
]

Order = Literal["document", "relevance", "edges"]

DEFAULT_OVERHEAD = 12
"""Tokens of the header of a passage, where the caller doesn't know its prompt's wording."""


class Lookup(Protocol):
    """Documents by id: a dict, a ``DocumentSet`` or what an index offers."""

    def __contains__(self, document_id: object, /) -> bool: ...

    def __getitem__(self, document_id: str, /) -> Document: ...


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A candidate that is not in the pack.

    Attributes:
        chunk: The candidate.
        reason: ``budget``: it didn't fit. ``duplicate``: its exact text is in the pack already.
            ``conflict``: a better chunk claims the same characters with another text.
            ``empty``: it has no text.
    """

    chunk: ScoredChunk
    reason: Reason


@dataclass(frozen=True, slots=True)
class Pack:
    """What the model gets to read.

    Attributes:
        passages: Exact slices of documents, in the order asked for.
        left_out: The candidates that aren't in it, best first.
        tokens: Tokens of all passages with their overhead, counted on the final texts.
    """

    passages: tuple[Passage, ...]
    left_out: tuple[LeftOut, ...]
    tokens: int


def pack(
    chunks: Sequence[ScoredChunk],
    documents: Lookup | None = None,
    *,
    token_budget: int,
    count: Callable[[str], int],
    overhead: Overhead = DEFAULT_OVERHEAD,
    order: Order = "document",
    titles: Mapping[str, str] | None = None,
    chunk_tokens: Callable[[ScoredChunk], int] | None = None,
    neighbours: Callable[[ScoredChunk], Sequence[ScoredChunk]] | None = None,
    expand_top: int = 5,
    gap_tokens: int = 0,
) -> Pack:
    """Returns the best chunks that fit the budget, merged into passages.

    A pure function: it works as well on chunks from any other store. Chunks of a document whose
    full text is known are joined where they overlap or touch, their cuts grow to whole words and
    small gaps between them may be filled. Without that text only overlaps are joined, and only if
    both chunks agree on every shared character. The same input gives the same pack.

    Args:
        chunks: Candidates; a higher score is better, equal scores keep the given order.
        documents: Full texts by document id; may lack some, or all.
        token_budget: Limit for the sum of ``count(passage.text)`` and overhead; never exceeded.
        count: Tokens of a text under the model's tokenizer.
        overhead: Tokens that a passage costs beyond its text.
        order: ``document``: documents by their best passage, then as in the document.
            ``relevance``: best first. ``edges``: the best at both ends, the weakest in the middle.
        titles: Titles for documents whose full text isn't given.
        chunk_tokens: A cheap estimate of ``count(chunk.text)``, for instance from a cache.
        neighbours: The chunks beside a chunk, to be added after each of the best hits.
        expand_top: How many of the best hits get their neighbours.
        gap_tokens: Gaps of at most this many tokens between two kept intervals are filled, if the
            budget still allows.

    Raises:
        DocumentError: A chunk isn't the slice of its document that it claims to be.
        ValueError: The budget is negative, the order unknown or a score not a number.
    """
    token_budget = whole_number("token_budget", token_budget)
    expand_top = whole_number("expand_top", expand_top)
    gap_tokens = whole_number("gap_tokens", gap_tokens)
    if order not in ("document", "relevance", "edges"):
        raise ValueError(f"order must be 'document', 'relevance' or 'edges', got {order!r}")
    texts = {key: doc.text for key, doc in _candidates(documents, chunks)}
    names = {key: doc.title for key, doc in _candidates(documents, chunks)}
    for chunk in chunks:
        _check(chunk, texts.get(chunk.document_id))
        names.setdefault(chunk.document_id, (titles or {}).get(chunk.document_id))
    filling = Filling(token_budget, count, overhead, names, texts, chunk_tokens)
    ranked = sorted(chunks, key=lambda chunk: -chunk.score)
    filling.fill(_with_neighbours(ranked, neighbours, expand_top), gap_tokens)
    passages = filling.passages(ranked)
    tokens = sum(filling.price(passage) for passage in passages)
    left_out = tuple(LeftOut(chunk, reason) for chunk, reason in filling.left_out(ranked))
    return Pack(_in_order(passages, order), left_out, tokens)


def pack_everything(
    documents: Iterable[Document],
    *,
    token_budget: int,
    count: Callable[[str], int],
    overhead: Overhead = DEFAULT_OVERHEAD,
) -> Pack | None:
    """Returns all documents as whole passages, or None if they don't fit the budget.

    Of documents with equal texts one is given; the others are its ``duplicates``. Empty documents
    are left out. Stops counting as soon as the budget is exceeded.
    """
    token_budget = whole_number("token_budget", token_budget, -MOST)
    firsts: dict[str, Document] = {}
    copies: dict[str, list[Duplicate]] = {}
    seen: set[str] = set()
    for document in documents:
        if not document.text or document.id in seen:
            continue
        seen.add(document.id)
        if firsts.setdefault(document.text, document) is not document:
            copy = Duplicate(document.id, 0, len(document.text))
            copies.setdefault(document.text, []).append(copy)
    passages: list[Passage] = []
    spent = 0
    for text, first in firsts.items():
        duplicates = tuple(copies.get(text, ()))
        passage = Passage(first.id, 0, len(text), text, first.title, duplicates=duplicates)
        cost = _capped_count(passage, count, overhead, token_budget - spent)
        if cost is None:
            return None
        spent += cost
        passages.append(passage)
    return Pack(tuple(passages), (), spent)


def _capped_count(
    passage: Passage, count: Callable[[str], int], overhead: Overhead, room: int
) -> int | None:
    """The tokens of a passage, or None if they exceed ``room``; a huge text is first sampled."""
    extra = overhead if isinstance(overhead, int) else overhead(passage)
    sample = 40 * max(room, 0) + 1000
    if len(passage.text) > 2 * sample and count(passage.text[:sample]) > room:
        return None
    cost = count(passage.text) + extra
    return cost if cost <= room else None


def _candidates(
    documents: Lookup | None, chunks: Sequence[ScoredChunk]
) -> Iterator[tuple[str, Document]]:
    if documents is None:
        return
    for key in dict.fromkeys(chunk.document_id for chunk in chunks):
        if key in documents:
            yield key, documents[key]


def _check(chunk: ScoredChunk, source: str | None) -> None:
    where = f"a chunk of document {chunk.document_id!r} with offsets {chunk.start}..{chunk.end}"
    if chunk.score != chunk.score:
        raise ValueError(f"{where} has the score NaN; scores must be comparable numbers")
    if chunk.start < 0 or chunk.end - chunk.start != len(chunk.text):
        raise DocumentError(
            f"{where} has a text of {len(chunk.text)} characters; offsets must be code points, "
            "half-open, so that end - start is the length of the text"
        )
    if source is not None and source[chunk.start : chunk.end] != chunk.text:
        raise DocumentError(
            f"{where} isn't the slice of the document that was given; the store is older than the "
            "document, or its splitter changed the text: index the document again"
        )


def _with_neighbours(
    ranked: Sequence[ScoredChunk],
    neighbours: Callable[[ScoredChunk], Sequence[ScoredChunk]] | None,
    expand_top: int,
) -> list[Item]:
    """The candidates in the order they are tried: after a strong hit, the text around it."""
    items: list[Item] = []
    for rank, chunk in enumerate(ranked):
        items.append(Item(chunk))
        if neighbours is not None and rank < expand_top:
            items += [Item(neighbour, anchor=chunk) for neighbour in neighbours(chunk)]
    return items


def _in_order(passages: Sequence[Passage], order: Order) -> tuple[Passage, ...]:
    """Sorts passages that come by document and offset; ties keep that order."""
    ranked = sorted(passages, key=lambda passage: -passage.score)
    if order == "relevance":
        return tuple(ranked)
    if order == "edges":
        return tuple(ranked[0::2] + ranked[1::2][::-1])
    places: dict[str, int] = {}
    for passage in ranked:
        places.setdefault(passage.document_id, len(places))
    return tuple(sorted(passages, key=lambda passage: (places[passage.document_id], passage.start)))
