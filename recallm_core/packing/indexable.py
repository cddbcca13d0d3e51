"""What packs its own documents for a question, and how much is indexed for a single one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from recallm_core.documents.document import Document, Passage
from recallm_core.errors import ContextOverflowError
from recallm_core.packing import Pack

_MOST_AT_ONCE = 10_000_000  # characters that are indexed for a single question: some 20 s
_SAMPLE = 50_000  # characters that stand for all in an estimate of the tokens


class Packs(Protocol):
    """What packs its documents for a question: a ``CorpusIndex``."""

    def pack_report(
        self,
        question: str,
        token_budget: int,
        count: Callable[[str], int],
        *,
        overhead: Callable[[Passage], int],
    ) -> Pack:
        """The most useful passages within a budget."""


def check_indexable(
    documents: Iterable[Document], *, room: int, limit: int, count: Callable[[str], int]
) -> None:
    """Refuses what takes too long to index for a single question.

    Args:
        documents: The documents.
        room: Tokens that a prompt has for them.
        limit: Tokens that it has in all.
        count: Tokens of a text.

    Raises:
        ContextOverflowError: With an estimate of the tokens.
    """
    texts = [document.text for document in documents]
    size = sum(map(len, texts))
    if size > _MOST_AT_ONCE:
        sample = max(texts, key=len)[:_SAMPLE]
        tokens = size * count(sample) // len(sample)
        raise ContextOverflowError(tokens + limit - room, 0, limit)
