"""What a model makes of its instructions: wordings of the prompt, on the same questions.

    RECALLM_DATA=... python benchmarks/wordings.py --model MODEL --out runs/wordings

Every wording is asked the same questions under the same evidence policy; only the words differ.
Differences to the wording that is shipped are paired, with 95 % intervals of the bootstrap. The
seed isn't that of `recallm eval cited`, whose questions a wording must not be chosen on.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from recallm_core import GenerationParams, RecaLLM
from recallm_core.evaluation.cited.items import suite_items
from recallm_core.evaluation.cited.policies import ByPolicy
from recallm_core.evaluation.cited.run import Answers, ask_all
from recallm_core.evaluation.cited.scores import answer_scores
from recallm_core.evaluation.frame.statistics import difference_of
from recallm_core.prompting.recipe import (
    IN_MARKS,
    LEAD_IN,
    SYSTEM_PROMPTED,
    SYSTEM_TRAINED,
    Recipe,
)
from recallm_core.train.tasks.datasets import data_folder

SHIPPED = "shipped"
PLAIN = "Quote the documents between {open} and {close}, and answer the question in a few words."
SHORT = """\
Quote what answers the question, between {open} and {close}, and answer as short as you can. If \
the documents don't hold it, write: {abstain}"""
LONG = SYSTEM_TRAINED.replace("Do all of this inside the thinking block. After it, ", "Then ")
WORDINGS = {
    SHIPPED: {"system": SYSTEM_PROMPTED},
    "one sentence": {"system": PLAIN},
    "short": {"system": SHORT},
    "as for trained models": {"system": LONG},
    "question again": {"lead_in": "\n\nTo the question, in short:", "lead_out": ""},
    "in marks": {"lead_in": IN_MARKS[0], "lead_out": IN_MARKS[1]},
    "without marks": {"lead_in": LEAD_IN, "lead_out": ""},
}
COLUMNS = ("cited", "hit", "right", "f1", "words", "cpu_seconds")


class ByWording(ByPolicy):
    """The library's answers, with a recipe's words changed."""

    def __init__(self, llm: RecaLLM, name: str, recipe: Recipe, params: GenerationParams) -> None:
        super().__init__(RecaLLM(llm.tokenizer, llm.backend, recipe), "first", params)
        self.name = name


def main() -> None:
    """Prints a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--suites", default="nq,squad2")
    parser.add_argument("--n", type=int, default=32)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", default=",".join(WORDINGS), help="names of wordings")
    parser.add_argument("--out", type=Path, required=True, help="keeps rows; goes on with them")
    args = parser.parse_args()
    suites = {s: suite_items(s, data_folder(), args.n, args.seed) for s in args.suites.split(",")}
    for model in args.model:
        llm = RecaLLM.load(model)
        params = GenerationParams(temperature=0.0, max_new_tokens=256)
        ways = [
            ByWording(llm, name, replace(llm.recipe, **WORDINGS[name]), params)
            for name in args.only.split(",")
        ]
        folder = args.out / llm.name
        folder.mkdir(parents=True, exist_ok=True)
        show(llm.name, ask_all(ways, suites, folder, print))
        llm.close()


def show(name: str, answers: Answers) -> None:
    """Prints the shares of every wording, and how far it is from the one that is shipped."""
    scores = {
        key: {item.id: answer_scores(item, answer) for item, answer in pairs}
        for key, pairs in answers.records.items()
    }
    print(f"\n{name}\n\n| suite | wording | n | " + " | ".join(COLUMNS) + " | F1, to shipped |")
    print("| --- | --- | --- |" + " --- |" * (len(COLUMNS) + 1))
    for (suite, wording), rows in scores.items():
        means = [sum(row[c] for row in rows.values()) / len(rows) for c in COLUMNS]
        cells = " | ".join(f"{mean:.2f}" for mean in means)
        shipped = scores.get((suite, SHIPPED), {})
        pairs = [(row["f1"], shipped[i]["f1"]) for i, row in rows.items() if i in shipped]
        difference = difference_of(pairs) if wording != SHIPPED else None
        gap = None if difference is None else difference.gap
        told = f"{gap.mean:+.2f} ({gap.low:+.2f} to {gap.high:+.2f})" if gap else "-"
        print(f"| {suite} | {wording} | {len(rows)} | {cells} | {told} |", flush=True)


if __name__ == "__main__":
    main()
