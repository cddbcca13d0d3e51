"""What a local model quotes in the place of quotes that aren't in the documents."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from recallm_core.answers.answer import Answer, Citation
from recallm_core.checking.quotes import Quote
from recallm_core.checking.report import QuoteReport
from recallm_core.documents.document import Document
from recallm_core.inputs.arguments import whole_number
from recallm_core.text.lexical import sentences

_QUESTION = "Which words of the documents bear this out? {sentence}"
_LONGEST = 600  # characters of a sentence around a quote


class Answers(Protocol):
    """What answers from documents with quotes that are verbatim by construction: a ``RecaLLM``."""

    def answer(self, question: str, documents: Collection[Document], /, **settings: Any) -> Answer:
        """The answer to a question."""


@dataclass(frozen=True, slots=True)
class Requote:
    """A quote that isn't sound, and what a model quotes for it.

    Attributes:
        quote: The quote.
        citation: A slice of a document, ``recalled`` under the constraint; None: the model found
            nothing.
    """

    quote: Quote
    citation: Citation | None


def requote(
    report: QuoteReport, llm: Answers, *, max_quotes: int = 20, **settings: Any
) -> tuple[Requote, ...]:
    """Asks a model for the words that the quotes of a report should have had.

    Each quote that isn't sound is put as a question, with the sentence around it; the model can
    only answer with slices of the documents. They are proposals: whether one says what was meant
    is for people to see, so ``report.text`` never has them.

    ```python
    report = check_quotes(text, documents)
    for proposal in requote(report, RecaLLM.load("recallm-mini")):
        print(proposal.quote.text, "->", proposal.citation and proposal.citation.text)
    ```

    Args:
        report: What ``check_quotes`` returned.
        llm: A model that recalls.
        max_quotes: How many are asked for; each is an answer of the model.
        settings: Of ``answer``, such as ``max_new_tokens``.
    """
    count = whole_number("max_quotes", max_quotes)
    documents = tuple(report.sources.values())
    return tuple(
        Requote(
            quote, _recalled_citation(llm.answer(_question(report, quote), documents, **settings))
        )
        for quote in report.problems[:count]
    )


def _question(report: QuoteReport, quote: Quote) -> str:
    return _QUESTION.format(sentence=_sentences_of(report.original, quote)[:_LONGEST])


def _sentences_of(text: str, quote: Quote) -> str:
    """The sentences that a quote stands in; the quote itself where it stands in none."""
    if quote.start is None or quote.end is None:
        return quote.text
    parts = [text[a:b] for a, b in sentences(text) if a < quote.end and quote.start < b]
    return " ".join(parts) or quote.text


def _recalled_citation(answer: Answer) -> Citation | None:
    recalled: Iterable[Citation] = (c for c in answer.citations if c.basis == "recalled")
    return next(iter(recalled), None)
