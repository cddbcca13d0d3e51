"""How HELMET-style answers are judged: substrings, labels, rankings, and quotes without a judge."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recallm_core.evaluation.frame.records import AnswerRecord
from recallm_core.evaluation.frame.ways import after_prefix
from recallm_core.evaluation.helmet.tasks import TASKS
from recallm_core.evaluation.items import Item

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_ID = r"\[?(?:ID)?\s*:?\s*\d+\]?"
_RANKING = re.compile(rf"(?:{_ID}\s*>\s*)+{_ID}", re.IGNORECASE)
_CUT = 10
Ranges = dict[str, set[int]]


def normal(text: str) -> str:
    """Returns a text as HELMET compares it: lower case, no punctuation, no articles."""
    bare = "".join(c for c in text.casefold() if c not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def substring(text: str, golds: Iterable[str]) -> float:
    """Returns 1 where a gold answer stands in the text, both in their normal form."""
    return float(any(normal(gold) in normal(text) for gold in golds if normal(gold)))


def answer_scores(item: Item, answer: AnswerRecord) -> dict[str, float]:
    """Returns the figures of an answer; ``score`` is what the task's category averages."""
    task, facts = TASKS[item.group], item.more()["facts"]
    figures = {
        "truncated": float(answer.finish_reason == "length"),
        "abstained": float(bool(answer.abstained)),
    }
    if task.metric == "quotes":
        return figures | _quotes(item, answer, facts["quotes"])
    return figures | {"score": _score(task.metric, answer, item.answers, facts)}


def _score(
    metric: str, answer: AnswerRecord, golds: Sequence[str], facts: Mapping[str, Any]
) -> float:
    if metric == "ranking":
        return ndcg(ranking(answer.text), facts["grades"])
    if metric == "label":
        numbers = re.findall(r"\d+", answer.words)
        return float(numbers[:1] == list(golds))
    if metric == "all":
        folded = answer.text.casefold()
        return sum(gold.casefold() in folded for gold in golds) / len(golds)
    return max(substring(answer.text, golds), substring(after_prefix(answer.text), golds))


def ranking(text: str) -> list[str]:
    """Returns the ids of the longest ``a > b > ...`` of a text, each once."""
    runs = [re.findall(r"\d+", run) for run in _RANKING.findall(text)]
    longest = max(runs, key=len, default=[])
    return list(dict.fromkeys(longest))


def ndcg(ranked: Sequence[str], grades: Mapping[str, int], cut: int = _CUT) -> float:
    """Returns NDCG at ``cut`` with linear gain, as trec_eval's ndcg_cut; unknown ids gain 0."""
    best = _gain(sorted(grades.values(), reverse=True)[:cut])
    return _gain([grades.get(name, 0) for name in ranked[:cut]]) / best if best else 0.0


def _gain(grades: Sequence[int]) -> float:
    return sum(grade / math.log2(place + 2) for place, grade in enumerate(grades))


def _quotes(item: Item, answer: AnswerRecord, gold: Sequence[Sequence[str]]) -> dict[str, float]:
    """Quotes against those that people chose, in characters; answers by substring.

    Where the documents hold no answer, only abstaining is right.
    """
    if not item.answers:
        return {"declined": float(bool(answer.abstained)), "score": float(bool(answer.abstained))}
    quoted = _quoted_ranges(item, gold)
    cited: Ranges = {}
    for citation in answer.citations:
        cited.setdefault(citation.document, set()).update(range(citation.start, citation.end))
    recall = _coverage(quoted, cited)
    share = sum(substring(answer.text, [a]) for a in item.answers) / len(item.answers)
    figures = {"answers": share, "quote_recall": recall}
    if answer.citations:
        figures["quote_precision"] = _coverage(cited, quoted)
    return figures | {"score": (share + recall) / 2}


def _quoted_ranges(item: Item, gold: Sequence[Sequence[str]]) -> Ranges:
    """The characters that people quoted, by document."""
    texts = {document.id: document.text for document in item.documents}
    quoted: Ranges = {}
    for name, text in gold:
        start = texts.get(name, "").find(text)
        if start >= 0:
            quoted.setdefault(name, set()).update(range(start, start + len(text)))
    return quoted


def _coverage(ranges: Ranges, others: Ranges) -> float:
    total = sum(map(len, ranges.values()))
    shared = sum(len(places & others.get(name, set())) for name, places in ranges.items())
    return shared / total if total else 0.0
