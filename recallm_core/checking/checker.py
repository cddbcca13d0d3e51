"""Checking quotes: one text or message at a time, or a text as it comes."""

from __future__ import annotations

from collections.abc import Iterable

from recallm_core.checking.judging import Judge
from recallm_core.checking.quotes import Quote
from recallm_core.checking.reading import read
from recallm_core.checking.report import QuoteReport
from recallm_core.documents import Document, collect


def check_quotes(
    text: str,
    documents: Iterable[Document | str],
    repair: bool = False,
    *,
    min_words: int = 3,
) -> QuoteReport:
    """Checks every quote of any model's text against the documents."""
    given = collect(documents)
    judge = Judge(given, repair=repair, min_words=min_words)
    quotes: tuple[Quote, ...] = tuple(judge.judge_all(read(text)))
    return QuoteReport(text, quotes, {document.id: document for document in given})
