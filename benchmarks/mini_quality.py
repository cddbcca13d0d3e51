"""What recallm-mini gets right: questions over pages, NQ with distractors, look-ups, two hops.

    python benchmarks/mini_quality.py [--model recallm-mini] [--rows 200] [--json figures.json]

Natural questions and look-ups need the data folder (RECALLM_DATA); without it they are left out.
The baseline beside the model is the best BM25 sentence with an answer-type pattern
(recallm_core/evaluation/heuristic.py). Intervals are 95 %, by bootstrap over the questions.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from recallm_core import Document, GenerationParams, RecaLLM
from recallm_core.errors import RecallmError
from recallm_core.evaluation.heuristic import heuristic_answer
from recallm_core.train.readers import data_folder, read_rows
from recallm_core.train.tasks import SIZES, lookup
from recallm_core.train.templates import two_hop

HANDBOOK = Path(__file__).resolve().parents[1] / "recallm_core" / "evaluation" / "handbook"


@dataclass(frozen=True, slots=True)
class Item:
    """A question; ``gold`` is the number of the document that answers it, -1 where none does."""

    documents: tuple[Document, ...]
    question: str
    answers: tuple[str, ...]
    gold: int = 0


def handbook(field: str, *, all_pages: bool = False, missing: bool = False) -> list[Item]:
    """The committed questions: over their own page, or over all six pages."""
    pages = {p.stem: Document(p.read_text("utf-8"), p.stem, p.stem) for p in HANDBOOK.glob("*.md")}
    items = []
    for line in (HANDBOOK / "questions.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        if bool(row["answers"]) == missing:
            continue
        names = sorted(pages) if all_pages else [row["page"]]
        documents = tuple(pages[name] for name in names)
        gold = names.index(row["page"])
        items.append(Item(documents, row[field], tuple(row["answers"]), gold))
    return items


def natural_questions(rows: int) -> list[Item]:
    """The gold passage and two distractors, the gold one at each place in turn."""
    items = []
    for number, row in enumerate(read_rows(data_folder(), "nq_multidoc_eval")):
        if len(items) == rows:
            break
        passages = [(d["title"], d["text"]) for d in row["distractors"][:2]]
        passages.insert(number % 3, (row["gold"]["title"], row["gold"]["text"]))
        documents = tuple(Document(t, f"{n}", title) for n, (title, t) in enumerate(passages))
        items.append(Item(documents, row["question"], tuple(row["answers"]), number % 3))
    return items


def key_values(keys: int, rows: int) -> list[Item]:
    """JSON objects of random keys and values, one pair a line."""
    items = []
    for row in read_rows(data_folder(), "kv_retrieval"):
        if row["n_keys"] == keys and len(items) < rows:
            text = "{\n" + ",\n".join(f' "{k}": "{v}"' for k, v in row["pairs"]) + "\n}"
            question = f'What is the value of "{row["key"]}"?'
            items.append(Item((Document(text, "kv"),), question, (row["value"],)))
    return items


def generated(kind: str, rows: int) -> list[Item]:
    """Two-hop questions or look-ups from a seed that no training run uses."""
    rng = random.Random(f"held-out:{kind}")
    items = []
    for _ in range(rows):
        example = two_hop(rng, 1) if kind == "two_hop" else lookup(rng, SIZES["paragraph"])
        assert example.answer is not None
        text = example.passages[0][1]
        answer = text[example.answer[1] : example.answer[2]]
        items.append(Item((Document(text, "page"),), example.question, (answer,)))
    return items


def normal(text: str) -> list[str]:
    """Lower case, without articles and punctuation around words."""
    words = re.sub(r"[^\w\s%$€£:.,/#@-]", " ", text.casefold()).split()
    words = [word.strip(".,:") for word in words]
    return [word for word in words if word and word not in ("a", "an", "the")]


def overlap(text: str, answer: str) -> float:
    """F1 of the words of two answers."""
    a, b = normal(text), normal(answer)
    shared = sum((Counter(a) & Counter(b)).values())
    return 2 * shared / (len(a) + len(b)) if shared else 0.0


def scores(item: Item, answer: str, evidence: Sequence[tuple[str, str]]) -> tuple[float, ...]:
    """Exact match, F1, and whether the evidence holds an answer in the right document."""
    exact = any(normal(answer) == normal(a) for a in item.answers)
    gold = item.documents[item.gold].id
    hit = any(a.casefold() in t.casefold() for d, t in evidence if d == gold for a in item.answers)
    return float(exact), max(overlap(answer, a) for a in item.answers), float(hit)


def by_model(llm: RecaLLM, items: Sequence[Item], params: GenerationParams) -> dict[str, object]:
    """Runs the model; every quote is checked against its document."""
    rows, quotes, wrong, abstained, tokens = [], 0, 0, 0, 0
    began = time.perf_counter()
    for item in items:
        answer = llm.answer(item.question, list(item.documents), params=params)
        texts = {d.id: d.text for d in item.documents}
        quotes += len(answer.citations)
        wrong += sum(texts[c.document_id][c.start : c.end] != c.text for c in answer.citations)
        abstained += answer.abstained
        tokens += answer.usage.output_tokens
        recalled = [(c.document_id, c.text) for c in answer.citations]
        rows.append(scores(item, answer.text, recalled))
    seconds = time.perf_counter() - began
    extra = {"quotes": quotes, "not verbatim": wrong, "abstained": abstained}
    return table(rows) | extra | {"tokens/s": round(tokens / seconds, 1)}


def by_heuristic(items: Sequence[Item]) -> dict[str, object]:
    """The baseline on the same questions; its hit is that of the words' prior alone."""
    rows = []
    for item in items:
        texts = [d.text for d in item.documents]
        guess = heuristic_answer(item.question, texts, [d.title for d in item.documents])
        assert guess is not None
        evidence = (item.documents[guess.passage].id, texts[guess.passage][guess.start : guess.end])
        rows.append(scores(item, guess.answer, [evidence]))
    return table(rows)


def table(rows: Sequence[tuple[float, ...]]) -> dict[str, object]:
    """Means with their intervals."""
    values = np.array(rows)
    picks = np.random.default_rng(0).integers(0, len(values), (2000, len(values)))
    low, high = np.percentile(values[picks].mean(1), [2.5, 97.5], axis=0)
    found: dict[str, object] = {"n": len(values)}
    for column, name in enumerate(("EM", "F1", "hit")):
        mean = values[:, column].mean()
        found[name] = f"{mean:.2f} ({low[column]:.2f}-{high[column]:.2f})"
    return found


def suites(rows: int) -> Iterator[tuple[str, list[Item]]]:
    """All sets of questions that can be had."""
    yield "easy", handbook("question")
    yield "paraphrased", handbook("paraphrase")
    yield "easy, six pages", handbook("question", all_pages=True)
    yield "two hops, new entities", generated("two_hop", min(rows, 100))
    yield "look-up, 12 keys", generated("lookup", min(rows, 100))
    try:
        yield "NQ, gold + 2", natural_questions(rows)
        yield "key-value, 75 keys", key_values(75, min(rows, 20))
        yield "key-value, 140 keys", key_values(140, min(rows, 20))
    except RecallmError as error:
        print(f"left out: {error}")


def main() -> None:
    """Prints one line per set and condition."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="recallm-mini")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--no-prior", action="store_true", help="also without the prior")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    with RecaLLM.load(arguments.model) as llm:
        for name, items in suites(arguments.rows):
            ways = [("model", GenerationParams())]
            if arguments.no_prior:
                ways.append(("model, no prior", GenerationParams(prior="none")))
            for way, params in ways:
                found.append({"set": name, "by": way} | by_model(llm, items, params))
                print(found[-1], flush=True)
            found.append({"set": name, "by": "heuristic"} | by_heuristic(items))
            print(found[-1], flush=True)
        missing = handbook("question", missing=True)
        said = sum(llm.answer(i.question, list(i.documents)).abstained for i in missing)
        found.append({"set": "not in the page", "n": len(missing), "abstained": said})
        print(found[-1])
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
