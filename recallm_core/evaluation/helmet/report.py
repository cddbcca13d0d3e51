"""What a HELMET-style run says: scores by category and task, and what was rebuilt how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recallm_core.evaluation.frame.compare import shown_gap
from recallm_core.evaluation.frame.lengths import shown_length
from recallm_core.evaluation.frame.report import by_groups, cell, figures
from recallm_core.evaluation.frame.results import group_by, mean, of_way, score_pairs, values, ways
from recallm_core.evaluation.frame.statistics import difference_of, shown_p
from recallm_core.evaluation.helmet.tasks import TASKS
from recallm_core.evaluation.report import table
from recallm_core.evaluation.rows import Row

MEASURES: tuple[str, ...] = ("score", "answers", "quote_recall", "quote_precision", "declined")
MEASURES += ("abstained", "truncated", "output_tokens")
TITLE = "HELMET-style (rebuilt): Recall 4/4, RAG 2/4, ICL 2/5, Re-rank-like, Cite-like, LongQA-like"
DEVIATIONS = (
    "Lengths are tokens by this model's own tokenizer; HELMET fixes numbers of passages, pairs "
    "and shots. Scores aren't comparable with HELMET's.",
    "RAG: Natural Questions with BM25's distractors and HotpotQA's own, filled up with "
    "paragraphs of SQuAD, HotpotQA and Wikipedia, not KILT's retrieval; no solved examples. "
    "TriviaQA and PopQA are left out.",
    "ICL: BANKING77 and CLINC150; TREC and NLU are left out. Labels are numbers, permuted for "
    "each text; examples are balanced over labels.",
    "Re-rank-like: a SQuAD question over paragraphs; its own counts 2, others of its article 1, "
    "the rest 0. NDCG@10 with linear gain. Not MS MARCO.",
    "Cite-like: QuoteSum and ClapNQ over their own sources. No judge: the quotes that people "
    "chose against those cited, in characters. *score* is the mean of the share of answers that "
    "are there and of quote recall; of a question without an answer, whether it was declined.",
    "LongQA-like: sentences of the 18F handbook with a number or name left out, made by rule.",
    "Summ needs a judge: left out.",
    "The recall tasks share their rules with `recallm eval ruler`.",
)


def parts(rows: Sequence[Row], about: Mapping[str, Any]) -> list[str]:
    """Returns the parts of the report."""
    return [
        f"{TITLE}. Data: {about.get('helmet')}. In per cent, with 95 % intervals.\n",
        _categories(rows),
        _against(rows),
        *(_tasks(rows, way) for way in ways(rows)),
        _quote_table(rows),
        "## How this was rebuilt\n\n" + "\n".join(f"- {line}" for line in DEVIATIONS) + "\n",
    ]


def category_means(rows: Sequence[Row]) -> dict[str, float]:
    """Returns the mean of each category: of its tasks' means over all lengths."""
    tasks = group_by(rows, lambda row: row["task"])
    means: dict[str, list[float]] = {}
    for name, some in tasks.items():
        numbers = values(some, "score")
        means.setdefault(TASKS[name].category, []).append(sum(numbers) / len(numbers))
    return {category: sum(numbers) / len(numbers) for category, numbers in means.items()}


def _categories(rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(task.category for task in TASKS.values()))
    by_way = {way: category_means(of_way(rows, way)) for way in ways(rows)}
    shown = [name for name in names if any(name in means for means in by_way.values())]
    body = [
        [way, *(f"{100 * means[name]:.1f}" if name in means else "-" for name in shown)]
        for way, means in by_way.items()
    ]
    return "## By category\n\n" + table(["way", *shown], body)


def _against(rows: Sequence[Row]) -> str:
    names = ways(rows)
    body = []
    for other in names[1:]:
        pairs = score_pairs(of_way(rows, names[0]), of_way(rows, other), "score", lambda r: r["id"])
        difference = difference_of(pairs)
        if difference is not None:
            gap = [shown_gap(difference), shown_p(difference.p)]
            body.append([f"{names[0]} - {other}", str(len(pairs)), *gap])
    head = ["ways", "n", "difference (95 %)", "McNemar p"]
    return "## Pair by pair\n\n" + table(head, body) if body else ""


def _tasks(rows: Sequence[Row], way: str) -> str:
    way_rows = of_way(rows, way)
    lengths = sorted({row["length"] for row in way_rows})
    groups = group_by(way_rows, lambda row: (row["task"], row["length"]))
    body = []
    for name, task in TASKS.items():
        cells = [groups.get((name, length), []) for length in lengths]
        if any(cells):
            sizes = "/".join(map(str, sorted({len(some) for some in cells if some})))
            shown = [cell(mean(some, "score")) for some in cells]
            body.append([task.category, name, sizes, *shown])
    head = [shown_length(length) if length else "as it is" for length in lengths]
    return f"## By task: {way}\n\n" + table(["category", "task", "n", *head], body)


def _quote_table(rows: Sequence[Row]) -> str:
    cited = [row for row in rows if TASKS[row["task"]].metric == "quotes"]
    groups = {
        f"{task}, {way}": some
        for (task, way), some in group_by(cited, lambda r: (r["task"], r["condition"])).items()
    }
    if not groups:
        return ""
    shown = {"answers": "answers", "quote recall": "quote_recall"}
    shown |= {"quote precision": "quote_precision", "rightly declined": "declined"}
    return "## Cite-like: answers and quotes\n\n" + by_groups(groups, shown, "task")


def data(rows: Sequence[Row]) -> dict[str, Any]:
    """Returns all figures as plain values."""
    result: dict[str, Any] = {}
    for way in ways(rows):
        way_rows = of_way(rows, way)
        tasks: dict[str, Any] = {}
        for (task, length), some in group_by(way_rows, lambda r: (r["task"], r["length"])).items():
            tasks.setdefault(task, {})[str(length)] = figures(some, MEASURES)
        result[way] = {"categories": category_means(way_rows), "tasks": tasks}
    return {"ways": result}
