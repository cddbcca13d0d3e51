"""What the order of the packed passages does to the answers of recallm-mini.

    python benchmarks/passage_orders.py [--model recallm-mini] [--rows 60] [--budget 1500]

Each question of nq_multidoc_eval gets a collection of its own: the gold passage and its 29
distractors as six documents of five passages. The pack is the same for each order but for the
order; the model reads its passages as they come. Needs the data folder (RECALLM_DATA).
Intervals are 95 %, by bootstrap; differences are over the same questions.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from mini_quality import overlap

from recallm_core import Document, RecaLLM
from recallm_core.packing import Order
from recallm_core.retrieval import CorpusIndex
from recallm_core.train.tasks.datasets import data_folder, read_rows

ORDERS: tuple[Order, ...] = get_args(Order)
DOCUMENTS = 6


def collection(row: Any, number: int) -> list[Document]:
    """The passages of a question, shuffled, as a few longer documents."""
    passages = [row["gold"], *row["distractors"]]
    random.Random(number).shuffle(passages)
    return [
        Document("\n\n".join(each["text"] for each in passages[n::DOCUMENTS]), id=f"d{n}")
        for n in range(DOCUMENTS)
    ]


def packed(index: CorpusIndex, llm: RecaLLM, question: str, budget: int, order: Order) -> list[Any]:
    """The passages as documents, in the order that the pack gives them."""
    report = index.pack_report(
        question, budget, llm.count_tokens, tokens_key="model", order=order, gap_tokens=0
    )
    return [Document(each.text, id=f"{each.document_id}:{each.start}") for each in report.passages]


def asked(llm: RecaLLM, row: Any, number: int, budget: int) -> list[tuple[float, float, float]]:
    """For each order: F1, whether a quote holds an answer, and where the first answer stands."""
    index = CorpusIndex.build(collection(row, number))
    found = []
    for order in ORDERS:
        documents = packed(index, llm, row["question"], budget, order)
        answer = llm.answer(row["question"], documents)
        quotes = " ".join(citation.text for citation in answer.citations).casefold()
        holding = [
            place
            for place, each in enumerate(documents)
            if any(a.casefold() in each.text.casefold() for a in row["answers"])
        ]
        place = holding[0] / max(1, len(documents) - 1) if holding else np.nan
        f1 = max(overlap(answer.text, each) for each in row["answers"])
        found.append((f1, float(any(a.casefold() in quotes for a in row["answers"])), place))
    return found


def interval(values: Sequence[float] | Any) -> str:
    """Mean with its interval."""
    held = np.asarray(values)
    held = held[~np.isnan(held)]
    picks = np.random.default_rng(0).integers(0, len(held), (2000, len(held)))
    low, high = np.percentile(held[picks].mean(1), [2.5, 97.5])
    return f"{held.mean():.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    """Prints one row per order."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="recallm-mini")
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--budget", type=int, default=1500)
    options = parser.parse_args()
    folder: Path = data_folder()
    torch.set_num_threads(1)
    rows = list(read_rows(folder, "nq_multidoc_eval"))[: options.rows]
    with RecaLLM.load(options.model) as llm:
        values = np.array([asked(llm, row, n, options.budget) for n, row in enumerate(rows)])
    print(f"{len(values)} questions, packs of {options.budget:,} tokens\n")
    print("| order | F1 | quoted an answer | F1 less document order's | first answer stands at |")
    print("|---|---|---|---|---|")
    for n, order in enumerate(ORDERS):
        cells = [values[:, n, 0], values[:, n, 1], values[:, n, 0] - values[:, 0, 0]]
        print(f"| {order} | {' | '.join(map(interval, cells))} | {interval(values[:, n, 2])} |")


if __name__ == "__main__":
    main()
