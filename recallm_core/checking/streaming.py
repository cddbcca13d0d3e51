"""Quotes checked while a text is still being written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from recallm_core.checking.judging import Judge
from recallm_core.checking.quotes import Quote
from recallm_core.checking.reading import read, read_settled
from recallm_core.checking.report import QuoteReport
from recallm_core.checking.written import WrittenQuote
from recallm_core.documents.document import Document

_SMALL = 4_096  # characters that are cheap to read again with each piece


class QuoteChecker:
    """Checks the quotes of a text that comes in pieces; the documents are read once.

    The quotes of all calls together are those that ``check_quotes`` finds in the whole text. Each
    is handed out as soon as nothing that may follow could change it: where the next words have
    begun, or at the end of its paragraph, block or tag.

    Args:
        documents: What can be quoted, in the order that the text counts them in.
        repair: Whether quotes that drifted get a replacement.
        min_words: As for ``check_quotes``.
    """

    def __init__(
        self,
        documents: Iterable[Document | str],
        *,
        repair: bool = False,
        min_words: int = 3,
    ) -> None:
        self._judge = Judge(documents, repair=repair, min_words=min_words)
        self._quotes: list[Quote] = []
        self._text = ""
        self._rest = ""  # what isn't settled, from the last blank line before it
        self._taken = 0  # quotes of it that were handed out
        self._due = 0  # its length at which it is worth reading again

    def feed(self, piece: str) -> list[Quote]:
        """Returns the quotes that the next piece of the text settles."""
        self._rest += piece
        if len(self._rest) < self._due:
            return []
        base = len(self._text)
        complete, past = read_settled(self._rest, whole=base == 0)
        quotes = self._judge_quotes(complete[self._taken :], base)
        gone = sum((written.start or 0) < past for written in complete)
        self._taken = max(self._taken, len(complete)) - gone
        self._text += self._rest[:past]
        self._rest = self._rest[past:]
        size = len(self._rest)
        self._due = size if size < _SMALL else size + size // 16
        return quotes

    def finish(self) -> list[Quote]:
        """Returns the quotes that are left, as the text is complete."""
        base = len(self._text)
        rest = read(self._rest, whole=base == 0)[self._taken :]
        quotes = self._judge_quotes(rest, base)
        self._text += self._rest
        self._rest, self._taken, self._due = "", 0, 0
        return quotes

    @property
    def report(self) -> QuoteReport:
        """What was found so far; of the whole text, once it is finished."""
        text = self._text + self._rest
        return QuoteReport(text, tuple(self._quotes), (), self._judge.sources)

    def _judge_quotes(self, complete: Iterable[WrittenQuote], base: int) -> list[Quote]:
        quotes = list(self._judge.judge_all(_shift(written, base) for written in complete))
        self._quotes += quotes
        return quotes


def _shift(written: WrittenQuote, base: int) -> WrittenQuote:
    if written.start is None or written.end is None:
        return written
    return replace(written, start=written.start + base, end=written.end + base)
