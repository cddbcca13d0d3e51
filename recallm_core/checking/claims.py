"""Sentences without a quote, and what the documents hold of their words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from recallm_core.answers.answer import Citation
from recallm_core.answers.matching import Matcher
from recallm_core.checking.marks import claims_in_brackets
from recallm_core.checking.quotes import Quote
from recallm_core.checking.sources import Sources
from recallm_core.documents.document import DocumentSet, Passage
from recallm_core.text.lexical import sentences, terms

_LEAST = 2  # content words; one alone stands almost everywhere
_MARK = "\0"
_MARKED = re.compile(rf"\s*{_MARK}+")
_REFERENCE = re.compile(r"\[[^\[\]]*\]")


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of a text in its writer's own words.

    That its words stand in a document doesn't show that the document says so.

    Attributes:
        text: The sentence.
        start: First character in the text that was checked.
        end: One past the last.
        citation: The words of the documents that are likest, ``basis="matched"``; None where
            nothing is like it, or a number, a name or a negation differs.
        score: The part of its content words that the citation holds, 0 to 1.
    """

    text: str
    start: int
    end: int
    citation: Citation | None
    score: float


def judged_claims(
    text: str, quotes: Sequence[Quote], documents: DocumentSet, sources: Sources
) -> tuple[Claim, ...]:
    """Returns the sentences of a text that say something without a quote, in order."""
    quoted = [(q.start, q.end) for q in quotes if q.start is not None and q.end is not None]
    passages = [
        Passage(document.id, 0, len(document.text), document.text, document.title)
        for document in documents
    ]
    matcher = Matcher(passages, {document.id: document for document in documents})
    marked = _with_references_marked(text, sources)
    return tuple(
        _claim(text, start, end, words, matcher)
        for start, end in sentences(marked)
        if _says_something(words := _MARKED.sub("", marked[start:end]))
        and not any(start < b and a < end for a, b in quoted)
    )


def _says_something(sentence: str) -> bool:
    """Whether a sentence is more than a heading, a lead-in or a reference."""
    return len(terms(_REFERENCE.sub(" ", sentence))) >= _LEAST


def _claim(text: str, start: int, end: int, words: str, matcher: Matcher) -> Claim:
    citations = matcher.match(words)
    if not citations:
        return Claim(text[start:end], start, end, None, 0.0)
    citation = replace(citations[0], answer_start=start, answer_end=end)
    stems = set(terms(words))
    shared = stems.intersection(terms(citation.text))
    return Claim(text[start:end], start, end, citation, round(len(shared) / len(stems), 4))


def _with_references_marked(text: str, sources: Sources) -> str:
    """A text as long as before, with a mark for each character of a reference."""
    parts: list[str] = []
    at = 0
    for start, end, source in claims_in_brackets(text):
        if sources.is_reference(source):
            parts += (text[at:start], _MARK * (end - start))
            at = end
    return "".join((*parts, text[at:]))
