"""How often evidence that is matched to an answer afterwards is the right one, and how often none.

Run as ``python benchmarks/matching.py [--choose] [--rows FILE ...]``. It reads three sets of
answers from the folder in RECALLM_DATA (default: ../shared/data), with what each of them is from:
quotesum_dev (people's, made of quotes), clapnq_dev (people's, in their own words) and
nq_multidoc_eval (short ones, as small models give them). Each answer is matched to its own passages
among those of other questions; then to those of other questions alone, where everything that is
cited is wrong; then to what is left of its own without what is right to cite: other passages that
were found for the same question, or the rest of the same passage (clapnq). That is the hardest
case, and not all that is cited there is wrong: the rest of a passage often says the same in part.

A question is in one half or the other. ``--choose`` prints the half that ``matching.THRESHOLD`` and
the weights were chosen on, over a grid of thresholds; without it, the other half is printed.

FILE is the ``rows.jsonl`` of ``recallm eval cited --baseline``: what a model wrote to three
paragraphs without us. A sentence of it that holds the right answer is to be matched to the
paragraph that answers.

Right, for quotesum: the cited passage is one that the annotator's quotes in this sentence are from.
For clapnq: the cited text overlaps a sentence that the annotator selected for the answer. For the
short answers and the models': the cited passage is the gold one.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recallm_core.answers.answer import Citation
from recallm_core.answers.matching import THRESHOLD, Matcher
from recallm_core.documents.document import Document, Passage
from recallm_core.evaluation.cited.items import suite_items
from recallm_core.evaluation.cited.words import contains
from recallm_core.text.lexical import sentences

DATA = Path(os.environ.get("RECALLM_DATA", "../shared/data"))
FOREIGN = 10  # passages of other questions beside an answer's own
GRID = (0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7)
_QUOTE = re.compile(r"\[ (\d+) (.*?) \]", re.DOTALL)


@dataclass(frozen=True)
class Case:
    """An answer, its passages, and for each of its sentences what is right to cite."""

    key: str
    question: str
    answer: str
    passages: tuple[Passage, ...]
    right: tuple[tuple[int, int, frozenset[tuple[str, int, int]]], ...]

    @property
    def rest(self) -> list[Passage]:
        """Its passages without everything that is right to cite."""
        out = []
        for passage in self.passages:
            text = passage.text
            for _, _, right in self.right:
                for name, start, end in right:
                    if name == passage.document_id:
                        text = text.replace(passage.text[start:end], "")
            if text.strip():
                out.append(replace(passage, end=len(text), text=text))
        return out


@dataclass
class Counts:
    """Sentences of answers: how many, cited, rightly cited; and cited where nothing right is."""

    all: int = 0
    cited: int = 0
    right: int = 0
    foreign: int = 0
    rest: int = 0

    def row(self) -> str:
        """Precision, recall and false alarms."""
        precision = self.right / self.cited if self.cited else 0.0
        shares = (self.right / self.all, self.foreign / self.all, self.rest / self.all)
        return f"{self.all:5,} | {precision:.3f} | " + " | ".join(f"{s:.3f}" for s in shares)


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of a data set."""
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def quotesum() -> Iterator[Case]:
    """Answers made of quotes; a sentence without one is left out."""
    for row in rows("quotesum_dev"):
        passages = tuple(
            Passage(f"{row['qid']}/{s['n']}", 0, len(s["text"]), s["text"], title=s["title"])
            for s in row["sources"]
        )
        answer, quotes = plain(row["answer_marked"])
        right = []
        for start, end in sentences(answer):
            numbers = {n for at, n in quotes if start <= at < end}
            whole = frozenset(
                (p.document_id, 0, p.end)
                for p, s in zip(passages, row["sources"], strict=True)
                if s["n"] in numbers
            )
            if whole:
                right.append((start, end, whole))
        if right:
            yield Case(row["qid"], row["question"], answer, passages, tuple(right))


def plain(marked: str) -> tuple[str, list[tuple[int, int]]]:
    """An answer without its marks, and where in it which source is quoted."""
    out, quotes, size, last = [], [], 0, 0
    for match in _QUOTE.finditer(marked):
        between = marked[last : match.start()]
        size += len(between)
        quotes.append((size, int(match[1])))
        out += [between, match[2]]
        size += len(match[2])
        last = match.end()
    return "".join([*out, marked[last:]]), quotes


def clapnq() -> Iterator[Case]:
    """Answers in words, with the sentences that they were written from."""
    for row in rows("clapnq_dev"):
        passages = tuple(
            Passage(f"{row['id']}/{n}", 0, len(p["text"]), p["text"], title=p["title"])
            for n, p in enumerate(row["passages"])
        )
        for given in row["answers"] if row["answerable"] else ():
            selected = frozenset(
                (p.document_id, at, at + len(text.strip()))
                for text in given["selected_sentences"]
                for p in passages
                for at in [p.text.find(text.strip())]
                if at >= 0
            )
            right = tuple((a, b, selected) for a, b in sentences(given["answer"]))
            if selected and right:
                yield Case(row["id"], row["question"], given["answer"], passages, right)


def short() -> Iterator[Case]:
    """Short answers, as small models give them, with the passages that a search found beside."""
    for row in rows("nq_multidoc_eval"):
        found = [row["gold"], *row["distractors"][:FOREIGN]]
        passages = tuple(
            Passage(f"{row['id']}/{n}", 0, len(p["text"]), p["text"], title=p["title"])
            for n, p in enumerate(found)
        )
        answer = row["answers"][0]
        gold = frozenset({(passages[0].document_id, 0, passages[0].end)})
        yield Case(row["id"], row["question"], answer, passages, ((0, len(answer), gold),))


def written(path: Path) -> Iterator[Case]:
    """What a model wrote: its sentences that hold the right answer."""
    asked = {item.id: item for name in ("nq", "squad2") for item in suite_items(name, DATA, 100, 0)}
    with path.open(encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    for row in lines:
        item = asked.get(row["id"])
        if item is None or row["condition"] != "without us":
            continue
        passages = tuple(
            Passage(f"{item.id}/{n}", 0, len(d.text), d.text, title=d.title)
            for n, d in enumerate(item.documents)
        )
        gold = passages[item.gold]
        to_cite = frozenset({(gold.document_id, 0, gold.end)})
        right = tuple(
            (start, end, to_cite)
            for start, end in sentences(row["text"])
            if contains(row["text"][start:end], item.answers)
        )
        if right:
            passages = (gold, *(p for p in passages if p is not gold))
            yield Case(item.id, item.question, row["text"], passages, right)


def is_right(citation: Citation, right: frozenset[tuple[str, int, int]]) -> bool:
    """Whether a citation overlaps what is right to cite."""
    return any(
        citation.document_id == name and citation.start < end and start < citation.end
        for name, start, end in right
    )


def measure(cases: Sequence[Case], pool: Sequence[Case], threshold: float) -> Counts:
    """Matches the answers, among foreign passages and to foreign passages alone."""
    counts = Counts()
    chance = random.Random(7)
    for case in cases:
        others = [each for each in chance.sample(pool, FOREIGN + 6) if each.key != case.key]
        foreign = [each.passages[0] for each in others][:FOREIGN]
        found = matched(case, [*foreign[:5], *case.passages, *foreign[5:]], threshold)
        wrong = matched(case, foreign, threshold)
        near = matched(case, [*foreign, *case.rest], threshold)
        for start, end, right in case.right:
            counts.all += 1
            counts.cited += (start, end) in found
            counts.right += (start, end) in found and is_right(found[start, end], right)
            counts.foreign += (start, end) in wrong
            counts.rest += (start, end) in near
    return counts


def matched(
    case: Case, passages: Sequence[Passage], threshold: float
) -> dict[tuple[int | None, int | None], Citation]:
    """The citation of each sentence that has one."""
    documents = {p.document_id: Document(p.text, p.document_id) for p in passages}
    matcher = Matcher(passages, documents, question=case.question, threshold=threshold)
    return {(c.answer_start, c.answer_end): c for c in matcher.match(case.answer)}


SETS = (("quotesum_dev", quotesum), ("clapnq_dev", clapnq), ("nq_multidoc_eval", short))


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--choose", action="store_true", help="the half to choose on, as a grid")
    parser.add_argument("--rows", type=Path, nargs="+", default=[], help="of recallm eval cited")
    args = parser.parse_args()
    choose = args.choose
    heads = ("answers", "threshold", "sentences", "precision", "recall", "cited: all foreign")
    print(f"| {' | '.join(heads)} | right ones removed |")
    print("|---|---|---|---|---|---|---|")
    for name, load in SETS:
        every = list(load())
        half = [case for case in every if zlib.crc32(case.key.encode()) % 2 != choose]
        for threshold in GRID if choose else (THRESHOLD,):
            print(f"| {name} | {threshold} | {measure(half, every, threshold).row()} |", flush=True)
    foreign = list(short()) if args.rows else []
    for path in args.rows:
        counts = measure(list(written(path)), foreign, THRESHOLD)
        print(f"| {path.parent.name} | {THRESHOLD} | {counts.row()} |", flush=True)


if __name__ == "__main__":
    main()
