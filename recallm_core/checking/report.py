"""The report of a check: every quote with its verdict, and the text, repaired where it can be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

from recallm_core.answers.answer import Answer, Citation, Usage
from recallm_core.answers.trace import AnswerText, Trace
from recallm_core.checking.claims import Claim
from recallm_core.checking.quotes import VERDICTS, Quote
from recallm_core.checking.repairing import ranges_after_repair, repair_text, shift_range
from recallm_core.documents.document import Document


@dataclass(frozen=True)
class QuoteReport:
    """What a check found.

    ``quote.start`` and ``quote.end`` count in ``original``; ``report.text`` is the text to use.
    Whether a claim *follows* from a quote isn't checked.

    Attributes:
        original: The text that was checked, untouched.
        quotes: Its quotes, in order.
        claims: Its sentences without a quote, where they were asked for.
        sources: The documents, by id.
    """

    original: str
    quotes: tuple[Quote, ...]
    claims: tuple[Claim, ...] = ()
    sources: Mapping[str, Document] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def text(self) -> str:
        """The text with its repairs; the original where there are none."""
        return repair_text(self.original, self.quotes)

    @property
    def repairs(self) -> int:
        """How many quotes were put right in ``text``."""
        return sum(quote.replacement is not None for quote in self.quotes)

    @property
    def problems(self) -> tuple[Quote, ...]:
        """The quotes that are neither exact nor the same words in other writing."""
        return tuple(quote for quote in self.quotes if not quote.sound)

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    @property
    def unsupported(self) -> tuple[Claim, ...]:
        """The sentences whose words no document holds; empty where they weren't asked for."""
        return tuple(claim for claim in self.claims if claim.citation is None)

    @property
    def counts(self) -> dict[str, int]:
        """How many quotes have each verdict."""
        counted = Counter(quote.verdict for quote in self.quotes)
        return {verdict: counted[verdict] for verdict in VERDICTS}

    @cached_property
    def answer(self) -> Answer:
        """The text as an answer that cites its sound quotes, and what was found for its claims."""
        places = zip(self.quotes, ranges_after_repair(self.quotes), strict=True)
        cited = tuple(
            replace(quote.citation, answer_start=start, answer_end=end)
            for quote, (start, end) in places
            if quote.sound and quote.citation is not None
        )
        words = tuple(
            replace(claim.citation, answer_start=start, answer_end=end)
            for claim in self.claims
            if claim.citation is not None
            for start, end in [shift_range(self.quotes, claim.start, claim.end)]
        )
        return Answer(
            text=self.text,
            citations=tuple(sorted((*cited, *words), key=_order)),
            abstained=False,
            trace=Trace((AnswerText(self.text),)),
            usage=Usage(),
            finish_reason="stop",
            sources=MappingProxyType(dict(self.sources)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data with stable keys, ready for JSON; sources are named, not copied."""
        from recallm_core.checking.showing import to_dict

        return to_dict(self)

    def to_json(self) -> str:
        """Returns ``to_dict`` as JSON that is safe to show in a terminal."""
        from recallm_core.rendering.data import to_json

        return to_json(self.to_dict())

    def to_markdown(self) -> str:
        """Returns Markdown: the counts, then each problem; nothing in a quote is markup."""
        from recallm_core.checking.showing import to_markdown

        return to_markdown(self)

    def to_text(self) -> str:
        """Returns plain lines, as the command prints them."""
        from recallm_core.checking.showing import to_text

        return to_text(self)

    def to_html(self) -> str:
        """Returns one self-contained page: the text with its quotes marked by verdict."""
        from recallm_core.checking.page import to_html

        return to_html(self)

    def __str__(self) -> str:
        return self.to_text()


def _order(citation: Citation) -> tuple[int, int]:
    start, end = citation.answer_start, citation.answer_end
    return (1 << 62, 0) if start is None or end is None else (start, end)
