"""The weights of a quoted answer's confidence, fitted to answers that training knows nothing of.

    RECALLM_DATA=... python -m recallm_core.evaluation.confidence --rows runs/confidence.jsonl

The weights go to the shipped reader's folder, or to ``--out``.

recallm-mini is asked the questions of every 12th paragraph, which no reader was trained on; an
answer with at least half of the words right counts as right. Rows go to a file as they come, and a
run that was stopped goes on. What is printed is of rows that the weights weren't fitted to.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recallm_core.documents.document import Document
from recallm_core.evaluation.metrics import auroc, word_f1
from recallm_core.evidence.answer_confidence import FILE, Confidence, Signals
from recallm_core.evidence.reader import BUILT_IN
from recallm_core.evidence.reader_bias import ReaderEvidence
from recallm_core.generator import RecaLLM
from recallm_core.text.lexical import BM25, terms
from recallm_core.train.tasks.datasets import Fact, Pool, data_folder, read_pool

Floats = NDArray[np.float64]
Row = dict[str, Any]

_HELD_OUT = 400  # of the facts that training leaves out, every second one: about 500
_FOLDS = 10
_STEPS = 200
_PRIOR = 0.01  # how much a large weight costs, against the mean loss of a row
_LEVELS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_NAMES = tuple(field.name for field in fields(Signals))


class Questions:
    """The held-out questions, each over its passage and two others that share its words.

    Args:
        pool: What was read of the data folder.
    """

    def __init__(self, pool: Pool) -> None:
        self.facts = pool.held_out
        self._passages = pool.passages
        self._index = BM25([terms(f"{title} {text}") for title, text in pool.passages])

    def documents(self, number: int) -> list[Document]:
        """Returns the documents of a question, its passage at each of three places in turn."""
        fact = self.facts[number]
        pairs = [*islice(self._others(fact), 2)]
        pairs.insert(number % 3, (fact.title, fact.text))
        return [Document(text, f"p{n}", title or None) for n, (title, text) in enumerate(pairs)]

    def _others(self, fact: Fact) -> Iterator[tuple[str, str]]:
        order = np.argsort(-self._index.scores(terms(fact.question)), kind="stable")
        for at in order.tolist():
            text = self._passages[at][1]
            if not fact.answer or fact.answer.casefold() not in text.casefold():
                yield self._passages[at]


def answered_row(llm: RecaLLM, number: int, fact: Fact, documents: list[Document]) -> Row:
    """Returns what came of a question: whether the answer is right, and what speaks for it.

    Args:
        llm: The model, with the prior ``reader``.
        number: The question's.
        fact: The question.
        documents: What it is asked over.
    """
    answer = llm.answer(fact.question, documents)
    prompt, _ = llm.prepare([{"role": "user", "content": fact.question}], documents)
    starts = {passage.document_id: passage.start for passage in prompt.passages}
    places = [
        (span.passage, span.start - starts[span.document_id], span.end - starts[span.document_id])
        for span in answer.trace.spans
    ]
    signals = None
    if len(places) > 1 and isinstance(prompt.evidence, ReaderEvidence):
        signals = prompt.evidence.signals(places[:-1], places[-1])
    golds = [fact.answer] if fact.answer else []
    return {
        "number": number,
        "answerable": bool(golds),
        "f1": word_f1(answer.trace.answer, golds),
        "signals": None if signals is None else asdict(signals),
    }


def fit(values: Floats, right: Floats) -> Floats:
    """Returns logistic weights, none of them negative, and the base as the last.

    Args:
        values: One row of signals an answer.
        right: 1.0 where it is right.
    """
    weights = np.zeros(values.shape[1] + 1)
    design = np.column_stack([values, np.ones(len(values))])
    penalty = _PRIOR * np.append(np.ones(values.shape[1]), 0.0)
    for _ in range(_STEPS):
        expected = 1 / (1 + np.exp(-design @ weights))
        slope = design.T @ (expected - right) / len(right) + penalty * weights
        spread = (design * (expected * (1 - expected))[:, None]).T @ design / len(right)
        curvature = spread + np.diag(penalty + 1e-9)
        weights = weights - 0.5 * np.linalg.solve(curvature, slope)
        weights[:-1] = np.maximum(weights[:-1], 0.0)
    return weights


def confidence_of(weights: Floats) -> Confidence:
    """Returns the weights by name."""
    signals = dict(zip(_NAMES, weights[:-1].tolist(), strict=True))
    return Confidence(base=float(weights[-1]), **signals)


def unseen_probabilities(rows: Sequence[Row]) -> list[float]:
    """Returns each row's probability by weights that were fitted to the other folds."""
    values, right = _arrays(rows)
    folds = np.array([row["number"] for row in rows]) * _FOLDS // (rows[-1]["number"] + 1)
    weights = {int(n): confidence_of(fit(values[folds != n], right[folds != n])) for n in {*folds}}
    return [
        weights[int(n)].probability(Signals(**row["signals"]))
        for n, row in zip(folds, rows, strict=True)
    ]


def _arrays(rows: Sequence[Row]) -> tuple[Floats, Floats]:
    values = np.array([[row["signals"][name] for name in _NAMES] for row in rows])
    return values, np.array([float(row["f1"] >= 0.5) for row in rows])


def lines_of(rows: Sequence[Row]) -> Iterator[str]:
    """Yields the figures of some rows, by the probabilities of weights not fitted to them."""
    new = unseen_probabilities(rows)
    old = [row["signals"]["fit"] for row in rows]
    _, right = _arrays(rows)
    for name, part in (
        ("all", np.ones(len(rows), dtype=np.bool_)),
        ("answerable", np.array([row["answerable"] for row in rows])),
    ):
        yield (
            f"{name}: {part.sum()} answers, {right[part].mean():.2f} right, AUROC of the fit "
            f"{_auroc(old, right, part):.3f}, of the confidence {_auroc(new, right, part):.3f}"
        )
    levels = np.digitize(new, _LEVELS[1:-1])
    for level, low in enumerate(_LEVELS[:-1]):
        if (levels == level).any():
            share = right[levels == level].mean()
            yield f"{low:.1f} and more: {(levels == level).sum()} answers, {share:.2f} right"


def _auroc(scores: Sequence[float], right: Floats, part: NDArray[np.bool_]) -> float:
    values = np.asarray(scores)
    return auroc(values[part & (right > 0)].tolist(), values[part & (right == 0)].tolist())


def _read(path: Path) -> dict[int, Row]:
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    return {row["number"]: row for row in map(json.loads, lines)}


def _answer_all(path: Path, count: int) -> list[Row]:
    """Answers what isn't in the file yet, and returns its rows."""
    questions = Questions(read_pool(data_folder(), held_out=_HELD_OUT))
    numbers = random.Random("confidence").sample(range(len(questions.facts)), count)
    llm, rows = RecaLLM.load("recallm-mini"), _read(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as out:
        for number in (n for n in numbers if n not in rows):
            documents = questions.documents(number)
            rows[number] = answered_row(llm, number, questions.facts[number], documents)
            out.write(json.dumps(rows[number]) + "\n")
            out.flush()
    return [rows[n] for n in sorted(numbers) if rows[n]["signals"] is not None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Answers, fits and writes; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=Path, required=True, help="file of rows, gone on with")
    parser.add_argument("--out", type=Path, default=BUILT_IN, help="folder of the reader")
    parser.add_argument("--questions", type=int, default=240)
    options = parser.parse_args(arguments)
    rows = _answer_all(options.rows, options.questions)
    weights = confidence_of(fit(*_arrays(rows)))
    values = {name: round(value, 4) for name, value in asdict(weights).items()}
    (options.out / FILE).write_text(json.dumps(values, indent=1) + "\n", "utf-8")
    sys.stdout.writelines(f"{line}\n" for line in lines_of(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
