"""What recallm-mini answers, and in how many seconds, by packed tokens and windows read.

Run as ``python benchmarks/question_budget.py [--questions 12] [--seconds 600] [--settings 3072/12/6
2048/12/6]``. It reads the data from the folder in RECALLM_DATA (default: ../shared/data).

The questions are of the development data, never of the evaluation's: those of squad2 and of
hotpotqa_train_sample, over all paragraphs of both. Some of them trained the reader and the mini,
so the F1 is too good; what is compared are settings, each on the same questions. ``gold in the
pack`` is the share of gold ranges that stand in the prompt whole, F1 that of the answer, and the
seconds are CPU time of one thread, the model and the index loaded, nothing remembered.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

from retrieval_recall import DATA, HEADER, Corpus, hops, recall, rows

from recallm_core import RecaLLM
from recallm_core.documents.document import Document, Location
from recallm_core.evaluation.metrics import word_f1
from recallm_core.evidence import reader_bias
from recallm_core.prompting.params import GenerationParams
from recallm_core.retrieval import CorpusIndex


class Setting(NamedTuple):
    """Tokens that are packed, windows that are read first, and those read again."""

    packed: int
    windows: int
    again: int

    @classmethod
    def read(cls, text: str) -> Setting:
        """Returns a setting that stands as packed/windows/again."""
        packed, windows, again = map(int, text.split("/"))
        return cls(packed, windows, again)


BUDGETS = (2048, 3072, 4096, 8192)
SETTINGS = (
    Setting(3072, 12, 6),
    Setting(3072, 12, 12),
    Setting(3072, 16, 6),
    Setting(2048, 12, 6),
    Setting(4096, 12, 6),
    Setting(8192, 12, 12),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, its evidence and its answer."""

    text: str
    gold: tuple[Location, ...]
    answer: str


class Outcome(NamedTuple):
    """What one answer was worth, and its price."""

    packed: float
    f1: float
    seconds: float


def paragraphs(corpus: Corpus) -> Iterator[Asked]:
    """Yields the answerable questions of squad2."""
    for row in rows("squad2"):
        document = corpus.add(row["title"], row["context"])
        for item in row["qas"]:
            for answer in [] if item["impossible"] else item["answers"][:1]:
                start, end = answer["start"], answer["start"] + len(answer["text"])
                gold = (Location(document.id, start, end),)
                yield Asked(item["question"], gold, answer["text"])


def two_hops(corpus: Corpus) -> Iterator[Asked]:
    """Yields the questions of hotpotqa_train_sample that name something."""
    answers = {row["question"]: row["answer"] for row in rows("hotpotqa_train_sample")}
    for question in hops(corpus, "hotpotqa_train_sample"):
        answer = answers[question.text]
        if answer not in ("yes", "no"):
            yield Asked(question.text, question.gold, answer)


def outcome(llm: RecaLLM, index: CorpusIndex, sample: Asked, setting: Setting) -> Outcome:
    """Returns what a question gives under a setting."""
    reader_bias.READ_WINDOWS, reader_bias.READ_AGAIN = setting.windows, setting.again
    llm.backend.prefix_cache.clear()
    recipe = replace(llm.recipe, pack_tokens=setting.packed)
    fresh = RecaLLM(llm.tokenizer, llm.backend, recipe)
    begun = time.process_time()
    answer = fresh.answer(sample.text, index)
    seconds = time.process_time() - begun
    prompt, _ = fresh._context_builder.prepare(  # what it made is remembered
        [{"role": "user", "content": sample.text}], index, GenerationParams()
    )
    packed = recall(prompt.passages, index.documents, sample.gold)
    return Outcome(packed, word_f1(answer.text, [sample.answer]), seconds)


def packs(index: CorpusIndex, kinds: dict[str, list[Asked]], llm: RecaLLM) -> None:
    """Prints how often the evidence is in the pack, by budget."""
    print("| gold in the pack | " + " | ".join(f"{budget:,}" for budget in BUDGETS) + " |")
    print("|---" * (len(BUDGETS) + 1) + "|")
    for kind, questions in kinds.items():
        shares = [
            statistics.mean(
                recall(
                    index.pack_report(
                        item.text, budget, llm.count_tokens, overhead=HEADER
                    ).passages,
                    index.documents,
                    item.gold,
                )
                for item in questions
            )
            for budget in BUDGETS
        ]
        print(f"| {kind}, {len(questions)} | " + " | ".join(f"{s:.3f}" for s in shares) + " |")


def table(name: str, results: dict[Setting, list[Outcome]]) -> None:
    """Prints the means of each setting, and the differences to the first."""
    first = next(iter(results.values()))
    print(f"\n{name}, {len(first)} questions\n")
    print("| packed | windows | again | gold in the pack | F1 | F1, difference (95 %) | CPU s |")
    print("|---|---|---|---|---|---|---|")
    for setting, outcomes in results.items():
        gains = [a.f1 - b.f1 for a, b in zip(outcomes, first, strict=True)]
        spread = 1.96 * statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
        means = [statistics.mean(column) for column in zip(*outcomes, strict=True)]
        print(
            f"| {setting.packed:,} | {setting.windows} | {setting.again} | {means[0]:.2f} | "
            f"{means[1]:.2f} | {statistics.mean(gains):+.2f} ± {spread:.2f} | {means[2]:.1f} |"
        )


def main() -> int:
    """Prints a table for each kind of question."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--questions", type=int, default=12, help="of each kind")
    parser.add_argument("--packs", type=int, default=100, help="of each kind that are only packed")
    parser.add_argument("--seconds", type=int, default=600, help="no question begins after them")
    parser.add_argument("--settings", type=Setting.read, nargs="+", default=SETTINGS)
    options = parser.parse_args()
    if not (DATA / "squad2.jsonl.gz").exists():
        print(f"no data in {DATA}; set RECALLM_DATA to the folder that has it")
        return 0
    corpus = Corpus()
    kinds = {"squad2": [*paragraphs(corpus)], "hotpotqa_train_sample": [*two_hops(corpus)]}
    documents: list[Document] = list(corpus.documents.values())
    index = CorpusIndex.build(documents)
    results = {kind: {s: list[Outcome]() for s in options.settings} for kind in kinds}
    samples = {kind: random.Random(5).sample(qs, len(qs)) for kind, qs in kinds.items()}
    with RecaLLM.load("recallm-mini") as llm:
        packs(index, {kind: questions[: options.packs] for kind, questions in samples.items()}, llm)
        llm.answer("How tall is it?", ["It is 90 cm tall."])
        deadline = time.monotonic() + options.seconds
        for number in range(options.questions):
            for kind, questions in samples.items():
                if time.monotonic() < deadline:
                    for setting in options.settings:
                        result = outcome(llm, index, questions[number], setting)
                        results[kind][setting].append(result)
                    print(kind, number, flush=True, file=sys.stderr)
    for kind, measured in results.items():
        if measured[options.settings[0]]:
            table(kind, measured)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
