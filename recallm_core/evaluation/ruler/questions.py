"""The two tasks that ask about real paragraphs: SQuAD and HotpotQA among others."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from recallm_core.documents.document import Document
from recallm_core.evaluation.datasets import rows_of
from recallm_core.evaluation.frame.sample import Sample
from recallm_core.train.tasks.datasets import read_rows

_OUT = 32


@dataclass(frozen=True, slots=True)
class SourceQuestion:
    """A question with what answers it, and what is put beside it first.

    Attributes:
        question: As in the data.
        answers: Any of them is right.
        own: The paragraphs that answer it, each (title, text).
        near: Paragraphs that come first as distractors.
    """

    question: str
    answers: tuple[str, ...]
    own: tuple[tuple[str, str], ...]
    near: tuple[tuple[str, str], ...]


def make(
    rng: random.Random, size: int, pool: Sequence[SourceQuestion], fill: Sequence[Any]
) -> Sample:
    """Returns a question among paragraphs that hold ``size`` words beside its own.

    Args:
        rng: Chooses the question, the distractors and all places.
        size: Words of distractors; the last one is cut.
        pool: Questions.
        fill: Paragraphs of other articles.
    """
    question = rng.choice(pool)
    order = random.Random(rng.random())
    texts = [*question.own, *_cut(_distractors(question, fill, order), size)]
    rng.shuffle(texts)
    gold = texts.index(question.own[0])
    return Sample(
        id="",
        documents=tuple(Document(text, f"d{n}", title) for n, (title, text) in enumerate(texts)),
        question=question.question,
        answers=question.answers,
        gold=gold,
        budget=_OUT,
        facts={"depth": 100 * gold / max(1, len(texts) - 1), "documents": len(texts)},
    )


def _distractors(
    question: SourceQuestion, fill: Sequence[tuple[str, str]], rng: random.Random
) -> Iterator[tuple[str, str]]:
    """The paragraphs that come first, then others, each once."""
    yield from rng.sample(question.near, len(question.near))
    taken = {text for _, text in (*question.own, *question.near)}
    for index in rng.sample(range(len(fill)), len(fill)):
        if fill[index][1] not in taken:
            yield fill[index]


def _cut(pairs: Iterator[tuple[str, str]], words: int) -> Iterator[tuple[str, str]]:
    """The first paragraphs, up to a number of words."""
    for title, text in pairs:
        if words <= 0:
            return
        yield title, " ".join(text.split()[:words])
        words -= len(text.split())


@cache
def squad(folder: Path) -> tuple[SourceQuestion, ...]:
    """Returns the answerable questions of SQuAD 2.0; paragraphs of their article come first.

    Raises:
        MissingDataError: The folder has no such file.
    """
    rows = list(rows_of(folder, "squad2"))
    articles: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        articles.setdefault(row["title"], []).append((row["title"], row["context"]))
    return tuple(
        SourceQuestion(
            qa["question"], _golds(qa), ((row["title"], row["context"]),), _near(articles, row)
        )
        for row in rows
        for qa in row["qas"]
        if not qa["impossible"] and qa["answers"]
    )


def _golds(qa: dict[str, Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(answer["text"] for answer in qa["answers"]))


def _near(
    articles: dict[str, list[tuple[str, str]]], row: dict[str, Any]
) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in articles[row["title"]] if pair[1] != row["context"])


@cache
def hotpot(folder: Path) -> tuple[SourceQuestion, ...]:
    """Returns the questions of HotpotQA, the ten paragraphs that come with each beside it.

    Raises:
        MissingDataError: The folder has no such file.
    """
    return tuple(_hotpot(row) for row in rows_of(folder, "hotpotqa_dev"))


def _hotpot(row: dict[str, Any]) -> SourceQuestion:
    pairs = [(p["gold"], (p["title"], "".join(p["sentences"]).strip())) for p in row["paragraphs"]]
    gold_paragraphs = tuple(pair for gold, pair in pairs if gold)
    near = tuple(pair for gold, pair in pairs if not gold)
    return SourceQuestion(row["question"], (row["answer"],), gold_paragraphs, near)


@cache
def paragraphs(folder: Path, kind: str) -> tuple[tuple[str, str], ...]:
    """Returns paragraphs to fill up with, each once: of the same data, then of Wikipedia.

    Raises:
        MissingDataError: The folder has no such file.
    """
    questions = squad(folder) if kind == "squad" else hotpot(folder)
    pairs = [pair for question in questions for pair in (*question.own, *question.near)]
    if (folder / "wiki_passages.jsonl.gz").is_file():
        pairs += [(row["title"], row["text"]) for row in read_rows(folder, "wiki_passages")]
    return tuple(dict.fromkeys(pairs))
