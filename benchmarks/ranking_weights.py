"""Gold recall on training rows under other weights of the ranking than the ones in use.

Run as ``python benchmarks/ranking_weights.py [--questions 150]``. It reads the training data from
the folder in RECALLM_DATA (default: ../shared/data); no row that ``retrieval_recall.py`` asks is in
it, so its tables don't depend on what is chosen here.

The corpus: 16,863 passages of Wikipedia with those of nq_swap, the paragraphs of squad2 and of
hotpotqa_train_sample, and the PEPs that trained the shipped embedder. Its training also saw the
questions of hotpotqa_train_sample, so only the first two kinds are fair to words and vectors alike.
One weight is changed at a time. A figure is the mean over the four kinds of questions of the share
of gold ranges that are in the pack.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from retrieval_recall import (
    DATA,
    HEADER,
    Corpus,
    Question,
    asked_peps,
    counter,
    hops,
    recall,
    rows,
)

from recallm_core.documents.document import Document, Location
from recallm_core.retrieval import CorpusIndex, index, words
from recallm_core.retrieval.ranking import State

BUDGETS = (2048, 8192)
GRID: dict[tuple[Any, str], tuple[float, ...]] = {
    (words, "DOCUMENT_WEIGHT"): (0.5, 1.0, 2.0, 4.0),
    (words, "TITLE_WEIGHT"): (1, 4, 8, 16),
    (index, "_LEXICAL_WEIGHT"): (1.0, 2.0, 4.0),
}


def natural_questions(corpus: Corpus) -> Iterator[Question]:
    """Yields questions whose gold is a passage in which the answer was swapped for another."""
    other = {row["question"] for row in (*rows("nq_multidoc_eval"), *rows("nq_oracle_train"))}
    for row in rows("nq_swap"):
        gold = corpus.add("", row["context"])
        if row["question"] not in other:  # neither evaluated nor trained on
            yield Question("nq", row["question"], (Location(gold.id, 0, len(gold.text)),))


def paragraphs(corpus: Corpus) -> Iterator[Question]:
    """Yields questions whose gold is the answer in a paragraph."""
    for row in rows("squad2"):
        gold = corpus.add(row["title"], row["context"])
        for each in row["qas"]:
            for answer in [] if each["impossible"] else each["answers"][:1]:
                start, end = answer["start"], answer["start"] + len(answer["text"])
                yield Question("squad", each["question"], (Location(gold.id, start, end),))


def training() -> tuple[list[Document], list[Question]]:
    """Returns the corpus and all questions about it."""
    corpus = Corpus()
    questions = [
        *natural_questions(corpus),
        *paragraphs(corpus),
        *hops(corpus, "hotpotqa_train_sample"),
    ]
    for row in rows("wiki_passages"):
        corpus.add(row["title"], row["text"])
    manuals, asked = asked_peps(rows("docs_peps")[0::2])
    return [*corpus.documents.values(), *manuals], [*questions, *asked]


def measure(built: CorpusIndex, asked: dict[str, list[Question]]) -> list[list[float]]:
    """Returns gold recall by kind of question and budget."""
    built._state = State(built._state.parts)  # what was derived under other weights goes
    count = counter(exact=False)
    texts = built.documents
    return [
        [
            statistics.mean(
                recall(
                    built.pack_report(each.text, budget, count, overhead=HEADER).passages,
                    texts,
                    each.gold,
                )
                for each in questions
            )
            for budget in BUDGETS
        ]
        for questions in asked.values()
    ]


def line(label: str, found: Sequence[Sequence[float]]) -> str:
    """Returns a row of the table: the means, then each kind of question."""
    means = [statistics.mean(column) for column in zip(*found, strict=True)]
    cells = [f"{100 * share:.1f}" for row in (means, *found) for share in row]
    return f"| {label} | " + " | ".join(cells) + " |"


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--questions", type=int, default=150, help="per kind, at most")
    options = parser.parse_args()
    if not (DATA / "nq_swap.jsonl.gz").exists():
        print(f"no training data in {DATA}; set RECALLM_DATA to the folder that has it")
        return 0
    documents, questions = training()
    generator = random.Random(13)
    asked: dict[str, list[Question]] = {}
    for each in generator.sample(questions, len(questions)):
        if len(asked.setdefault(each.task, [])) < options.questions:
            asked[each.task].append(each)
    built = CorpusIndex.build(documents)
    columns = [f"{name} {budget:,}" for name in ("mean", *asked) for budget in BUDGETS]
    print("| weights | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
    print(line("in use", measure(built, asked)))
    for (module, name), values in GRID.items():
        used = getattr(module, name)
        for value in values:
            if value != used:
                setattr(module, name, value)
                print(line(f"{name} {value:g}", measure(built, asked)))
                sys.stdout.flush()
        setattr(module, name, used)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
