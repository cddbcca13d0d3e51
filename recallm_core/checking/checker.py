"""Checking the quotes of a text or a message against documents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from recallm_core.checking.claims import Claim, judged_claims
from recallm_core.checking.judging import Judge
from recallm_core.checking.messages import read_any
from recallm_core.checking.report import QuoteReport
from recallm_core.documents.document import Document


def check_quotes(
    text: Any,
    documents: Iterable[Document | str] | None = None,
    repair: bool = False,
    *,
    claims: bool = False,
    min_words: int = 3,
) -> QuoteReport:
    """Checks every quote of any model's text, or of a framework's message, against documents.

    Quotes are read from quotation marks of many languages, Markdown block quotes, ``<quote>``,
    ``<q>`` and ``<cite>`` tags, fields of JSON, and the citations in a message's data. ``[2]``
    beside a quote says that it is from the second document; names beside it count as well. Each
    is looked for character by character, then word by word whatever the writing, then nearly.
    Linear in the text and the documents; nothing is loaded or asked.

    Args:
        text: A text, or a message: see ``checking.messages`` for the shapes that are known.
        documents: What can be quoted, in the order that the text counts them in; None takes what
            the message brings along (source nodes, a chain's context).
        repair: Whether ``report.text`` has the documents' own words for quotes that only
            drifted: never across a digit, a name or a negation.
        claims: Whether sentences without a quote are looked up as well, by their words; slower.
        min_words: Fewer words in quotation marks count as a quote only if the documents hold
            exactly them, or with a figure or a reference.

    Raises:
        MessageError: ``text`` is neither a text nor a message.
        DocumentError: Something in ``documents`` is no document, or two share an id.
    """
    reading = read_any(text)
    sources = reading.documents if documents is None else documents
    judge = Judge(sources, repair=repair, min_words=min_words)
    quotes = tuple(judge.judge_all(reading.quotes))
    looked_up: tuple[Claim, ...] = ()
    if claims:
        looked_up = judged_claims(reading.text, quotes, judge.documents, judge.references)
    return QuoteReport(reading.text, quotes, looked_up, judge.sources)
