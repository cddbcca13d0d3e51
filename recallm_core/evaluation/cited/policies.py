"""The model with the library, under one evidence policy."""

from __future__ import annotations

import time
from collections.abc import Sequence

from recallm_core.answers.answer import Answer
from recallm_core.answers.trace import AnswerText
from recallm_core.evaluation.frame.records import AnswerRecord, CitationRecord
from recallm_core.evaluation.items import Item
from recallm_core.generator import RecaLLM
from recallm_core.prompting.params import GenerationParams, with_settings


class ByPolicy:
    """Answers as users are answered, in batches.

    Args:
        llm: The model.
        policy: ``auto``, ``first``, ``required`` or ``free``; with a scorer of evidence behind a
            slash where it isn't to be the model's own: ``required/none``.
        params: Other settings.

    Raises:
        ValueError: There is no such policy or scorer.
    """

    def __init__(self, llm: RecaLLM, policy: str, params: GenerationParams) -> None:
        self.name = policy
        self._llm = llm
        evidence, _, prior = policy.partition("/")
        settings = {"evidence": evidence} | ({"prior": prior} if prior else {})
        self._params = with_settings(params, settings)

    def asks(self, item: Item) -> bool:
        """Every question does."""
        return True

    def __call__(self, items: Sequence[Item]) -> list[AnswerRecord]:
        """Returns what came of each question."""
        wall, cpu = time.perf_counter(), time.process_time()
        questions = [(item.question, list(item.documents)) for item in items]
        answers = self._llm.answer_batch(questions, params=self._params)
        share = 1 / len(items)
        seconds = (time.perf_counter() - wall) * share
        cpu_seconds = (time.process_time() - cpu) * share
        return [record_of(answer, seconds, cpu_seconds) for answer in answers]


def record_of(answer: Answer, seconds: float, cpu_seconds: float) -> AnswerRecord:
    """Returns an answer as a row has it.

    Its own words are those between the quotes. Where there are none, or it abstained, the text that
    users read takes their place: a quote as the answer is judged as one.
    """
    words = " ".join(
        " ".join(s.text for s in answer.trace.segments if isinstance(s, AnswerText)).split()
    )
    return AnswerRecord(
        text=answer.text,
        words=answer.text if answer.abstained or not words else words,
        citations=tuple(
            CitationRecord(c.document_id, c.start, c.end, c.text, c.basis) for c in answer.citations
        ),
        quotes=tuple(
            (s.document_id, s.start, s.end) for s in answer.trace.spans if s.section != "thinking"
        ),
        quoted=tuple(s.text for s in answer.trace.spans),
        verbatim=_verbatim(answer),
        abstained=answer.abstained,
        prompt_tokens=answer.usage.prompt_tokens,
        output_tokens=answer.usage.output_tokens,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        finish_reason=answer.finish_reason,
    )


def _verbatim(answer: Answer) -> int:
    """How many spans are the slice of their document that they say."""
    sources = answer.sources
    return sum(sources[s.document_id].text[s.start : s.end] == s.text for s in answer.trace.spans)
