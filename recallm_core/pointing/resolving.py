"""From statements that point at sentences to an answer with checked citations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from recallm_core.answers.answer import Citation
from recallm_core.answers.attribution import cite, in_order
from recallm_core.answers.matching import Matcher
from recallm_core.documents.document import Document, Location, Passage
from recallm_core.pointing.narrowing import narrow
from recallm_core.pointing.numbering import NumberedSentence
from recallm_core.text.lexical import terms


@dataclass(frozen=True, slots=True)
class PlacedStatement:
    """A statement in its place in the answer.

    Attributes:
        start: First character of the answer.
        end: One past the last.
        pointers: The numbers of the sentences that it rests on.
    """

    start: int
    end: int
    pointers: tuple[int, ...]


class Resolver:
    """Makes citations of the sentences that statements point at.

    Args:
        sentences: The numbered sentences.
        passages: The passages that they are from.
        documents: The texts by id.
    """

    def __init__(
        self,
        sentences: Sequence[NumberedSentence],
        passages: Sequence[Passage],
        documents: Mapping[str, Document],
    ) -> None:
        self._sentences = sentences
        self._passages = passages
        self._documents = documents
        self._cited: dict[tuple[int, int, int], Citation] = {}

    def resolve(
        self, answer: str, statements: Sequence[PlacedStatement], *, question: str
    ) -> tuple[Citation, ...]:
        """Returns the citations of an answer, in the order of the text that they support.

        What a statement points at is ``pointed``. Sentences of the answer that nothing is pointed
        at for are ``matched`` to the passages by their words, where these hold them; so are those
        of a statement that shares no word with anything that it points at.

        Raises:
            CitationError: A quote isn't the slice of its document that it claims to be.
        """
        apt = [s for s in statements if self._shares(answer[s.start : s.end], s.pointers)]
        matcher = Matcher(self._passages, self._documents, question=question)
        matched = matcher.match(answer, covered=[(s.start, s.end) for s in apt])
        lost = [s for s in statements if s not in apt and not _any_within(matched, s)]
        pointed = [
            self._cite(number, answer[statement.start : statement.end], statement)
            for statement in (*apt, *lost)
            for number in statement.pointers
        ]
        return in_order([*pointed, *matched], answer)

    def _shares(self, words: str, pointers: Sequence[int]) -> bool:
        """Whether some words share one that matters with a sentence that is pointed at."""
        stems = set(terms(words))
        return any(stems.intersection(terms(self._sentences[n - 1].text)) for n in pointers)

    def cite_sentences(self, numbers: Sequence[int]) -> tuple[Citation, ...]:
        """Returns the citations of whole sentences, for no part of an answer."""
        return tuple(self._cite(number, "", None) for number in dict.fromkeys(numbers))

    def _cite(self, number: int, words: str, statement: PlacedStatement | None) -> Citation:
        sentence = self._sentences[number - 1]
        start, end = narrow(sentence.text, words)
        if (number, start, end) not in self._cited:
            self._cited[number, start, end] = self._citation(sentence, start, end)
        citation = self._cited[number, start, end]
        if statement is None:
            return citation
        return replace(citation, answer_start=statement.start, answer_end=statement.end)

    def _citation(self, sentence: NumberedSentence, start: int, end: int) -> Citation:
        passage = self._passages[sentence.passage]
        begin = passage.start + sentence.start
        return cite(
            Location(passage.document_id, begin + start, begin + end),
            sentence.passage,
            self._passages,
            self._documents,
            text=sentence.text[start:end],
            basis="pointed",
        )


def _any_within(citations: Sequence[Citation], statement: PlacedStatement) -> bool:
    """Whether a citation supports a part of a statement."""
    ranges = ((c.answer_start, c.answer_end) for c in citations)
    return any(
        a is not None and b is not None and a < statement.end and statement.start < b
        for a, b in ranges
    )
