"""The reward of an attempt, as a pure function of its trace and its problem.

R = .2 format + .4 (answer / 2 + retrieval / 2) + .4 (sqrt((answer + .01)(retrieval + .01)) - .01),
times what is left of it when the response is too long (arXiv 2604.09494, and its authors' code).
Retrieval is measured on character ranges, not on text: a span counts where it was copied from, and
at every other place of the documents where the same words stand.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from recallm_core.answers.trace import RecallSpan
from recallm_core.documents.document import Location
from recallm_core.train.grpo.answers import (
    ANSWER_LINE,
    answer_score,
    cited_references,
    final_answer,
    ranked_ids,
    uncited_text,
)
from recallm_core.train.grpo.response import Response
from recallm_core.train.tasks.families.problem import Gold, Problem
from recallm_core.train.tasks.training_example import Quote

_FORMAT, _MEAN, _PRODUCT = 0.2, 0.4, 0.4
_SMOOTH = 0.01


@dataclass(frozen=True, slots=True)
class RewardRules:
    """The settings of a reward; each switch is one of the paper's ablations.

    Attributes:
        overlap: Off: quotes are worth the same wherever they stand.
        penalties: Off: marks left open, short spans and too many spans cost nothing.
        label_overlap: Off: demonstrations of the right label needn't be quoted (in-context
            learning counts as quoted always, the authors' own default).
        density_threshold: Spans in 1,024 tokens from which on more of them cost.
        density_half_life: So many more halve the reward.
        response_tokens: Longest response.
        overlong_tokens: Over the last so many of them the reward falls to nothing; 0: it doesn't.
    """

    overlap: bool = True
    penalties: bool = True
    label_overlap: bool = True
    density_threshold: float = 4.0
    density_half_life: float = 4.0
    response_tokens: int = 5120
    overlong_tokens: int = 1024


@dataclass(frozen=True, slots=True)
class RewardParts:
    """A reward and what it is made of, each from 0 to 1."""

    format: float
    answer: float
    overlap: float
    usage: float
    density: float
    retrieval: float
    overlong: float
    total: float

    def to_dict(self) -> dict[str, float]:
        """Returns the parts by name."""
        return asdict(self)


def reward(response: Response, problem: Problem, rules: RewardRules | None = None) -> RewardParts:
    """Returns the reward of an attempt at a problem."""
    rules = rules or RewardRules()
    form = format_score(response, problem)
    answer = answer_score(final_answer(response.trace.answer), problem.key)
    overlap = overlap_score(response.spans, problem, rules)
    usage = usage_score(response, problem) if rules.penalties else 1.0
    density = density_score(response, problem, rules) if rules.penalties else 1.0
    retrieval = overlap * usage * density
    overlong = overlong_share(response.tokens, rules)
    total = combine(form, answer, retrieval) * overlong
    return RewardParts(form, answer, overlap, usage, density, retrieval, overlong, total)


def combine(form: float, answer: float, retrieval: float) -> float:
    """Returns the weighted sum of format, the mean of the other two, and their smoothed product."""
    product = max(0.0, math.sqrt((answer + _SMOOTH) * (retrieval + _SMOOTH)) - _SMOOTH)
    return _FORMAT * form + _MEAN * (answer + retrieval) / 2 + _PRODUCT * product


def format_score(response: Response, problem: Problem) -> float:
    """Returns whether thinking ends once, and one line "Answer: ..." follows, with words in it.

    Half of it is, for rankings, how many of the ranked ids there are, and for citations whether
    something is cited, and something said.
    """
    text = response.trace.answer
    answer = final_answer(text)
    once = response.thinking_ends == 1 and len(ANSWER_LINE.findall(text)) == 1
    if not (once and answer):
        return 0.0
    if problem.key.kind == "ranking":
        ids, known = ranked_ids(answer), {name for name, _ in problem.key.grades}
        valid = sum(i in known for i in ids)
        return 0.5 + 0.5 * (math.sqrt(valid / len(ids)) if ids else 0.0)
    if problem.key.kind == "cited":
        return 0.5 + 0.5 * bool(cited_references(answer) and uncited_text(answer))
    return 1.0


def overlap_score(
    spans: Iterable[RecallSpan], problem: Problem, rules: RewardRules | None = None
) -> float:
    """Returns how much of the gold evidence was quoted; 1 where there is none to quote."""
    rules, spans, scoring = rules or RewardRules(), tuple(spans), problem.scoring
    free = problem.family == "in_context_learning" and not rules.label_overlap
    if not rules.overlap or free or scoring.overlap == "always":
        return 1.0
    if scoring.overlap == "any":
        return float(bool(spans))
    if not problem.golds:
        return 1.0
    scores = sorted(_gold_score(gold, spans, scoring.threshold) for gold in problem.golds)[::-1]
    counted = scores[: scoring.top] if scoring.overlap == "top" else scores
    return sum(counted) / len(counted)


def _gold_score(gold: Gold, spans: tuple[RecallSpan, ...], threshold: float) -> float:
    return max((_span_score(gold, span, threshold) for span in spans), default=0.0)


def _span_score(gold: Gold, span: RecallSpan, threshold: float) -> float:
    """Of the places where a span's words stand, the best: near enough, and showing the label."""
    return max((_place_score(gold, place, threshold) for place in _places(span)), default=0.0)


def _places(span: RecallSpan) -> tuple[Location, ...]:
    return (Location(span.document_id, span.start, span.end), *span.occurrences)


def _place_score(gold: Gold, place: Location, threshold: float) -> float:
    score = min(1.0, range_f1(gold.place, place) / threshold)
    labelled = (
        gold.label is None or _shared_length(gold.label, place) == gold.label.end - gold.label.start
    )
    return score if labelled else score / 2


def range_f1(quote: Quote, place: Location) -> float:
    """Returns twice the characters that two ranges share, over the sum of their lengths."""
    shared = _shared_length(quote, place)
    return 2 * shared / (quote.end - quote.start + place.end - place.start) if shared else 0.0


def document_id(passage: int) -> str:
    """Returns the id that a problem's passage has in its prompt."""
    return f"d{passage}"


def _shared_length(quote: Quote, place: Location) -> int:
    if place.document_id != document_id(quote.passage):
        return 0
    return max(0, min(quote.end, place.end) - max(quote.start, place.start))


def usage_score(response: Response, problem: Problem) -> float:
    """Returns 1 less the marks left open and the spans too short, over the root of all spans."""
    spans = response.spans
    open_marks = abs(response.opened - response.closed)
    short = sum(len(span.text) < problem.scoring.least_characters for span in spans)
    if not open_marks and not short:
        return 1.0
    return max(0.0, 1.0 - (open_marks + short) / math.sqrt(max(1, len(spans))))


def density_score(response: Response, problem: Problem, rules: RewardRules | None = None) -> float:
    """Returns 1, or less where more spans stand in 1,024 tokens than anybody would read."""
    rules = rules or RewardRules()
    beyond = max(0, len(response.spans) - problem.scoring.free_spans)
    density = beyond * 1024 / max(1, response.tokens)
    over = max(0.0, density - rules.density_threshold)
    return float(2.0 ** (-over / rules.density_half_life))


def overlong_share(tokens: int, rules: RewardRules) -> float:
    """Returns what is left of a reward: all of it, until the last stretch of the longest output."""
    if not rules.overlong_tokens:
        return 1.0
    over = tokens - (rules.response_tokens - rules.overlong_tokens)
    return min(1.0, max(0.0, 1.0 - over / rules.overlong_tokens))
