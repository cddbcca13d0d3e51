"""What recallm-mini answers, and in how many seconds, by packed tokens and windows read.

Run as ``python benchmarks/question_budget.py [--questions 12] [--seconds 600] [--settings 3072/12/6
2048/12/6] [--held-out] [--rows FILE]``. It reads the data from the folder in RECALLM_DATA (default:
../shared/data).

The questions are of the development data: those of squad2 and of hotpotqa_train_sample, over all
paragraphs of both. Some of them trained the reader and the mini, so the F1 is too good; what is
compared are settings, each on the same questions. ``--held-out`` asks those of nq_multidoc_eval and
hotpotqa_dev instead, over 22,000 passages: to confirm what was chosen, not to choose. ``gold in the
pack`` is the share of gold ranges that stand in the prompt whole, ``hit`` whether a citation in a
gold document holds the answer, F1 that of the answer, and the seconds are CPU time of one thread,
the model and the index loaded, nothing remembered. A setting that packs 0 tokens packs as many as
the context holds. ``--rows`` appends a line for each answer; questions that it has are left out.
``--differing`` asks only the questions of whose evidence one setting packs more than another.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

from retrieval_recall import DATA, HEADER, Corpus, hops, natural_questions, recall, rows

from recallm_core import RecaLLM
from recallm_core.documents.document import Document, Location
from recallm_core.evaluation.metrics import holds, word_f1
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

    def __str__(self) -> str:
        return f"{self.packed}/{self.windows}/{self.again}"


BUDGETS = (2048, 3072, 4096, 8192, 15_360)
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
    answers: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Tells a question from others."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


class Outcome(NamedTuple):
    """What one answer was worth, and its price."""

    packed: float
    hit: float
    f1: float
    seconds: float
    tokens: int

    def row(self, kind: str, setting: Setting, sample: Asked) -> str:
        """Returns it as a line of rows, without texts."""
        scores = {"packed": self.packed, "hit": self.hit, "f1": self.f1}
        return json.dumps(
            {
                "suite": kind,
                "condition": str(setting),
                "id": sample.digest,
                "digest": sample.digest,
                "scores": {name: round(value, 4) for name, value in scores.items()},
                "prompt_tokens": self.tokens,
                "cpu_seconds": round(self.seconds, 2),
            }
        )


def paragraphs(corpus: Corpus) -> Iterator[Asked]:
    """Yields the answerable questions of squad2."""
    for row in rows("squad2"):
        document = corpus.add(row["title"], row["context"])
        for item in row["qas"]:
            for answer in [] if item["impossible"] else item["answers"][:1]:
                start, end = answer["start"], answer["start"] + len(answer["text"])
                gold = (Location(document.id, start, end),)
                yield Asked(item["question"], gold, (answer["text"],))


def two_hops(corpus: Corpus, name: str) -> Iterator[Asked]:
    """Yields the questions of a file of HotpotQA that name something."""
    answers = {row["question"]: row["answer"] for row in rows(name)}
    for question in hops(corpus, name):
        answer = answers[question.text]
        if answer not in ("yes", "no"):
            yield Asked(question.text, question.gold, (answer,))


def passages(corpus: Corpus) -> Iterator[Asked]:
    """Yields the questions of nq_multidoc_eval."""
    answers = {row["question"]: row["answers"] for row in rows("nq_multidoc_eval")}
    for question in natural_questions(corpus):
        yield Asked(question.text, question.gold, tuple(answers[question.text]))


def kinds_of(corpus: Corpus, *, held_out: bool) -> dict[str, list[Asked]]:
    """Returns the questions by where they come from, and fills the corpus."""
    if not held_out:
        return {
            "squad2": [*paragraphs(corpus)],
            "hotpotqa_train_sample": [*two_hops(corpus, "hotpotqa_train_sample")],
        }
    kinds = {
        "nq_multidoc_eval": [*passages(corpus)],
        "hotpotqa_dev": [*two_hops(corpus, "hotpotqa_dev")],
    }
    for row in rows("wiki_passages"):
        corpus.add(row["title"], row["text"])
    return kinds


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
    sources = {place.document_id for place in sample.gold}
    quotes = (c.text for c in answer.citations if c.document_id in sources)
    hit = max((holds(quote, sample.answers) for quote in quotes), default=0.0)
    f1 = word_f1(answer.text, sample.answers)
    return Outcome(packed, hit, f1, seconds, len(prompt.token_ids))


def share_packed(index: CorpusIndex, sample: Asked, llm: RecaLLM, budget: int) -> float:
    """Returns the share of a question's gold ranges that a pack of a budget holds."""
    report = index.pack_report(sample.text, budget, llm.count_tokens, overhead=HEADER)
    return recall(report.passages, index.documents, sample.gold)


def packs(index: CorpusIndex, kinds: dict[str, list[Asked]], llm: RecaLLM) -> None:
    """Prints how often the evidence is in the pack, by budget, and how that differs by question."""
    if not any(kinds.values()):
        return
    print("| gold in the pack | " + " | ".join(f"{budget:,}" for budget in BUDGETS) + " |")
    print("|---" * (len(BUDGETS) + 1) + "|")
    for kind, questions in kinds.items():
        shares = [
            [share_packed(index, item, llm, budget) for budget in BUDGETS] for item in questions
        ]
        columns = [*zip(*shares, strict=True)]
        cells = (f"{statistics.mean(column):.3f}{lost(column, columns[-1])}" for column in columns)
        print(f"| {kind}, {len(questions)} | " + " | ".join(cells) + " |")


def lost(one: Sequence[float], other: Sequence[float]) -> str:
    """Returns in how many questions one pack has less than the other, and in how many more."""
    pairs = [*zip(one, other, strict=True)]
    less, more = sum(a < b for a, b in pairs), sum(a > b for a, b in pairs)
    return f" ({less} less, {more} more)" if less or more else ""


def differing(
    index: CorpusIndex, questions: list[Asked], llm: RecaLLM, settings: Sequence[Setting]
) -> list[Asked]:
    """Returns the questions of whose evidence not all settings pack the same."""
    budgets = {setting.packed or BUDGETS[-1] for setting in settings}
    return [q for q in questions if len({share_packed(index, q, llm, b) for b in budgets}) > 1]


def table(name: str, results: dict[Setting, list[Outcome]]) -> None:
    """Prints the means of each setting, and the differences to the first."""
    first = next(iter(results.values()))
    print(f"\n{name}, {len(first)} questions\n")
    print(
        "| packed | windows | again | tokens | gold in the pack | less the first's | hit | "
        "less the first's | F1 | less the first's | CPU s |"
    )
    print("|---" * 11 + "|")
    for setting, outcomes in results.items():
        pairs = [*zip(outcomes, first, strict=True)]
        cells = [
            f"{statistics.mean(before):.2f} | {gain([a[n] - b[n] for a, b in pairs])}"
            for n, before in enumerate([*zip(*outcomes, strict=True)][:3])
        ]
        tokens, seconds = (statistics.mean(o[n] for o in outcomes) for n in (4, 3))
        print(
            f"| {setting.packed:,} | {setting.windows} | {setting.again} | {tokens:,.0f} | "
            f"{' | '.join(cells)} | {seconds:.1f} |"
        )


def ids_of(file: Path | None) -> set[str]:
    """Returns which questions a file of rows has."""
    if file is None or not file.exists():
        return set()
    return {json.loads(line)["id"] for line in file.read_text("utf-8").splitlines()}


def gain(differences: list[float]) -> str:
    """Returns the mean of some differences, with its 95 % interval."""
    count = len(differences)
    spread = 1.96 * statistics.stdev(differences) / count**0.5 if count > 1 else 0.0
    return f"{statistics.mean(differences):+.3f} ± {spread:.3f}"


def main() -> int:
    """Prints a table for each kind of question."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--questions", type=int, default=12, help="of each kind")
    parser.add_argument("--packs", type=int, default=100, help="of each kind that are only packed")
    parser.add_argument("--seconds", type=int, default=600, help="no question begins after them")
    parser.add_argument("--settings", type=Setting.read, nargs="+", default=SETTINGS)
    parser.add_argument("--held-out", action="store_true", help="the evaluation's questions")
    parser.add_argument("--rows", type=Path, help="gets a line for each answer")
    parser.add_argument("--differing", action="store_true", help="only where packs differ")
    options = parser.parse_args()
    if not (DATA / "squad2.jsonl.gz").exists():
        print(f"no data in {DATA}; set RECALLM_DATA to the folder that has it")
        return 0
    corpus = Corpus()
    kinds = kinds_of(corpus, held_out=options.held_out)
    documents: list[Document] = list(corpus.documents.values())
    index = CorpusIndex.build(documents)
    results = {kind: {s: list[Outcome]() for s in options.settings} for kind in kinds}
    known = ids_of(options.rows)
    samples = {
        kind: [q for q in random.Random(5).sample(qs, len(qs)) if q.digest not in known]
        for kind, qs in kinds.items()
    }
    with RecaLLM.load("recallm-mini") as llm:
        packs(index, {kind: several[: options.packs] for kind, several in samples.items()}, llm)
        if options.differing:
            samples = {
                kind: differing(index, several, llm, options.settings)
                for kind, several in samples.items()
            }
        llm.answer("How tall is it?", ["It is 90 cm tall."])
        deadline = time.monotonic() + options.seconds
        for number in range(options.questions):
            for kind, questions in samples.items():
                if number < len(questions) and time.monotonic() < deadline:
                    for setting in options.settings:
                        result = outcome(llm, index, questions[number], setting)
                        results[kind][setting].append(result)
                        if options.rows:
                            with options.rows.open("a", encoding="utf-8") as file:
                                file.write(result.row(kind, setting, questions[number]) + "\n")
                    print(kind, number, flush=True, file=sys.stderr)
    for kind, measured in results.items():
        if measured[options.settings[0]]:
            table(kind, measured)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
