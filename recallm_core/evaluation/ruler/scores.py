"""RULER's scores, and precision beside them: an answer that lists everything isn't right."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from recallm_core.evaluation.cited.words import words_of
from recallm_core.evaluation.frame.records import AnswerRecord
from recallm_core.evaluation.frame.sample import Sample
from recallm_core.evaluation.items import Item
from recallm_core.evaluation.ruler.tasks import TASKS, Task


def answer_scores(item: Item, answer: AnswerRecord) -> dict[str, float]:
    """Returns the figures of an answer.

    ``score`` is RULER's, over the text that a user reads; ``words`` the same over the model's own
    words, ``quoted`` over its spans. ``precision``: how much of what the answer offers is wanted.
    """
    assert isinstance(item, Sample)
    task = TASKS[item.task]
    figures = {
        "score": string_match(task, answer.text, item.answers),
        "words": string_match(task, answer.words, item.answers),
        "precision": precision(task, answer.text, item.answers),
        "quoted": string_match(task, "\n".join(answer.quoted), item.answers),
        "truncated": float(answer.finish_reason == "length"),
        "abstained": float(bool(answer.abstained)),
        "fill": (answer.prompt_tokens + item.budget) / item.length if item.length else 0.0,
    }
    return figures


def string_match(task: Task, text: str, golds: Sequence[str]) -> float:
    """Returns RULER's score: the share of gold strings in the text, or whether any is there."""
    folded = text.casefold()
    hits = [gold.casefold() in folded for gold in golds]
    if not hits:
        return 0.0
    return float(any(hits)) if task.any_gold else sum(hits) / len(hits)


def precision(task: Task, text: str, golds: Sequence[str]) -> float:
    """Returns the share of what an answer offers that is wanted; 0 where it offers nothing.

    Values count once each; where any gold answer is enough, words are compared with the likest.
    """
    if not task.candidate:
        return max((_word_precision(text, gold) for gold in golds), default=0.0)
    offered = set(re.findall(task.candidate, text.casefold()))
    values = {gold.casefold() for gold in golds}
    return len(offered & values) / len(offered) if offered else 0.0


def _word_precision(text: str, gold: str) -> float:
    words = Counter(words_of(text))
    shared = words & Counter(words_of(gold))
    return shared.total() / words.total() if words else 0.0
