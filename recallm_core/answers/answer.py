"""From recall spans to citations of the caller's own text, each checked by slicing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal

from recallm_core.answers.trace import ToolCall, Trace
from recallm_core.documents.document import Document, Location

Basis = Literal["recalled", "pointed", "matched"]


@dataclass(frozen=True, slots=True)
class Part:
    """The piece of a citation that lies in one retrieved chunk (member) of a merged passage."""

    start: int
    end: int
    text: str
    member_id: str | None = None


@dataclass(frozen=True, slots=True)
class Citation:
    """A quote: ``document.text[start:end] == text``, in code points.

    Attributes:
        document_id: The document quoted.
        start: First character in the document.
        end: One past the last.
        text: The quote.
        answer_start: First character of ``answer.text`` that it supports; None: the whole answer.
        answer_end: One past the last.
        occurrences: Every place where the supplied texts hold this quote, this one included.
        parts: The quote divided over the retrieved chunks its passage was merged from.
        title: The document's title.
        lines: 1-based first and last line in the source file.
        page: 1-based page, for paged sources.
        source: Path or URL of the source, where known.
        utf16_range: The range in UTF-16 units (browsers, JavaScript).
        utf8_range: The range in UTF-8 bytes.
        basis: How it came to be: ``recalled`` (copied under the constraint), ``pointed`` (the model
            named a numbered sentence) or ``matched`` (the answer's words were found in it after
            the fact). The text is exact in each.
        place: The part of the source that holds it, for people, in formats with parts other than
            pages: ``sheet Fees, row 12``.
    """

    document_id: str
    start: int
    end: int
    text: str
    answer_start: int | None = None
    answer_end: int | None = None
    occurrences: tuple[Location, ...] = ()
    parts: tuple[Part, ...] = ()
    title: str | None = None
    lines: tuple[int, int] | None = None
    page: int | None = None
    source: str | None = None
    utf16_range: tuple[int, int] | None = None
    utf8_range: tuple[int, int] | None = None
    basis: Basis = "recalled"
    place: str | None = None

    @property
    def ambiguous(self) -> bool:
        """Whether the quote stands in more than one place."""
        return len(self.occurrences) > 1


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens spent. ``cached_tokens`` is the part of the prompt that a cache spared."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    recall_tokens: int = 0
    answer_tokens: int = 0

    @property
    def output_tokens(self) -> int:
        """All generated tokens."""
        return self.reasoning_tokens + self.recall_tokens + self.answer_tokens


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with its evidence.

    Attributes:
        text: What the model answered, without thinking and without marks; of an abstention, the
            recipe's phrase that says so (under a response schema, the JSON all the same).
        citations: The quotes that support it, in the order of the text they support; none of an
            abstention.
        abstained: Whether the documents hold no answer, as the model said or showed.
        trace: The whole output in order.
        usage: Tokens spent.
        finish_reason: ``stop``, ``length`` (cut off, also where the model went round in circles),
            ``tool_calls`` or ``cancelled``.
        tool_calls: Tools that the model wants called.
        question: What was asked.
        model: Which model answered.
        sources: The documents that the model could quote from, by id.
        cut_call: Text of a tool call that the output was cut off in.
        support: How well the evidence fits the question, from 0 to 1; None without a prior. With
            the prior ``reader``, the probability that an answer of one quote is right; of an answer
            in words, that the documents hold one.
        nearest: Of an abstention, the evidence that came nearest: what would have been cited, else
            what was recalled. It answers nothing.
    """

    text: str
    citations: tuple[Citation, ...]
    abstained: bool
    trace: Trace
    usage: Usage
    finish_reason: str
    tool_calls: tuple[ToolCall, ...] = ()
    question: str = ""
    model: str = ""
    sources: Mapping[str, Document] = field(default_factory=dict, repr=False, compare=False)
    cut_call: str | None = None
    support: float | None = None
    nearest: tuple[Citation, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return _restore, (values | {"sources": dict(self.sources)},)

    def __str__(self) -> str:
        """Returns the answer with its numbered quotes, as the command prints them."""
        from recallm_core.rendering.terminal import to_text

        return to_text(self)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data with stable keys, ready for JSON; sources are named, not copied."""
        from recallm_core.rendering import to_dict

        return to_dict(self)

    def to_html(self) -> str:
        """Returns one self-contained page: the answer beside its sources, quotes marked."""
        from recallm_core.rendering import to_html

        return to_html(self)

    def to_markdown(self) -> str:
        """Returns Markdown with the quotes as footnotes; nothing in them is markup."""
        from recallm_core.rendering import to_markdown

        return to_markdown(self)

    def to_web_annotations(self) -> dict[str, Any]:
        """Returns the citations as one W3C Web Annotation page, for tools that mark sources."""
        from recallm_core.rendering import to_web_annotations

        return to_web_annotations(self)

    def to_csl_json(self) -> list[dict[str, Any]]:
        """Returns the cited documents as CSL-JSON items, for Zotero, pandoc and their like."""
        from recallm_core.rendering import to_csl_json

        return to_csl_json(self)

    def _repr_html_(self) -> str:
        from recallm_core.rendering import to_html_fragment

        return to_html_fragment(self)


def _restore(values: dict[str, Any]) -> Answer:
    """A copy of an answer; its sources are read-only again."""
    return Answer(**{**values, "sources": MappingProxyType(values["sources"])})
