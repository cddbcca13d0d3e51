"""The baseline to beat: the best BM25 sentence, and a piece of it by the question's type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recallm_core.evidence.answer_types import typed_candidates
from recallm_core.evidence.sentence_scorer import sentence_prior


@dataclass(frozen=True, slots=True)
class Guess:
    """The sentence that the baseline picks, and its answer.

    Attributes:
        passage: Number of the passage.
        start: First character of the sentence.
        end: One past its last character.
        answer: A piece of the sentence, or all of it.
    """

    passage: int
    start: int
    end: int
    answer: str


def heuristic_answer(
    question: str, texts: Sequence[str], titles: Sequence[str | None] | None = None
) -> Guess | None:
    """Returns the baseline's answer, or None where no text has a sentence.

    The sentence is the likeliest of ``sentence_prior``; the answer is the first match of the
    patterns of the question's type that the question doesn't hold itself.
    """
    prior = sentence_prior(question, texts, titles)
    scored = [(log, -n, -a, b) for n, row in enumerate(prior) for a, b, log in row]
    if not scored:
        return None
    _, passage, start, end = max(scored)
    sentence = texts[-passage][-start:end]
    first, last = next(typed_candidates(question, sentence), (0, len(sentence)))
    return Guess(-passage, -start, end, sentence[first:last])
