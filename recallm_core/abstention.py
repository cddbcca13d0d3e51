"""Whether an answer is one: what the model said, what it showed, and how well that fits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recallm_core.citations import Citation
from recallm_core.embedding import default_embedder
from recallm_core.lexical import terms
from recallm_core.prior import support
from recallm_core.prompt import Prompt
from recallm_core.reader_prior import ReaderScorer
from recallm_core.trace import AnswerText, RecallSpan, Trace


def says_nothing(trace: Trace, phrases: Sequence[str]) -> bool:
    """Whether the model says, in its own words, that the documents hold no answer."""
    own = "\0".join(s.text for s in trace.segments if isinstance(s, AnswerText))
    folded = _folded(own)
    return any(_folded(phrase) in folded for phrase in phrases if _folded(phrase))


def _folded(text: str) -> str:
    return " ".join(text.replace("\u2019", "'").casefold().rstrip(" .!").split())


def evidence_support(prompt: Prompt, trace: Trace) -> float | None:
    """Returns how well the evidence fits the question; None where nothing measures that.

    With the prior ``reader``: the probability that what was read holds an answer, given what was
    recalled before the last recall; None where the reader doesn't know the language. With
    ``sentences``: ``prior.support`` of what was recalled while thinking, from about 0 to 2.
    """
    if prompt.params.recall_in == "none" or not terms(prompt.question) or prompt.sentences is None:
        return None
    spans = [s for s in trace.segments if isinstance(s, RecallSpan) and s.section == "thinking"]
    texts = [span.text for span in spans]
    scorer = prompt.sentences.scorer
    if isinstance(scorer, ReaderScorer):
        if not scorer.knows(prompt.question, texts[:-1]):
            return None
        readings = scorer.readings(prompt.question, texts[:-1])
        odds = max((reading.answerable for reading in readings), default=-np.inf)
        return float(1 / (1 + np.exp(-odds)))
    title = prompt.passages[spans[-1].passage].title if spans else None
    return support(prompt.question, texts, title, embedder=default_embedder())


def abstained(
    prompt: Prompt,
    trace: Trace,
    citations: Sequence[Citation],
    *,
    said: bool,
    fit: float | None,
) -> bool:
    """Whether an answer counts as none, by the policy of the params.

    Args:
        prompt: What was asked.
        trace: The output.
        citations: What supports the answer.
        said: Whether the model says so.
        fit: ``evidence_support``.
    """
    if not trace.answer:
        return True
    policy = prompt.params.abstain_policy
    unsupported = not citations and prompt.params.recall_in != "none"
    least = _least(prompt)
    unsupported = unsupported or bool(least and fit is not None and fit < least)
    return (said and policy != "unsupported") or (unsupported and policy != "said")


def _least(prompt: Prompt) -> float:
    """What the model's recipe asks for, on the scale of the prior in use; 0: nothing."""
    by_reader = prompt.params.prior == "reader"
    return prompt.recipe.min_answerable if by_reader else prompt.recipe.min_support
