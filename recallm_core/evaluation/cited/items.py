"""The questions: a paragraph that answers, among others that don't, from the data folder."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from recallm_core.documents.document import Document
from recallm_core.evaluation.cited.words import contains
from recallm_core.evaluation.datasets import MissingDataError
from recallm_core.evaluation.items import Item
from recallm_core.train.tasks.datasets import is_held_out, read_rows

_OTHERS = 2
WITHOUT = "-unanswerable"
UNSCORED = "unscored"  # the group of a user's questions without gold answers
Text = tuple[str, str]  # title and text
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """A question with the paragraph that answers it and three that hold no gold answer."""

    id: str
    question: str
    answers: tuple[str, ...]
    gold: Text
    others: tuple[Text, ...]


def suite_items(name: str, folder: Path, n: int, seed: int) -> list[Item]:
    """Returns the questions of a suite, the same for the same seed.

    An unanswerable suite has the questions of the answerable one, without their paragraphs.

    Args:
        name: One of ``SUITES``.
        folder: The data folder.
        n: Questions at most.
        seed: Chooses questions, distractors and places.

    Raises:
        MissingDataError: The folder has no such file.
    """
    base = name.removesuffix(WITHOUT)
    cases = islice(SUITES[base](folder, seed), n)
    return [_item(case, seed, missing=name != base) for case in cases]


def _item(case: Case, seed: int, *, missing: bool) -> Item:
    """Places the paragraphs; ``missing`` leaves the one that answers out."""
    rng = random.Random(f"cited:{seed}:{case.id}")
    texts = list(case.others) if missing else [case.gold, *case.others[:_OTHERS]]
    rng.shuffle(texts)
    documents = tuple(Document(text, f"p{n}", title) for n, (title, text) in enumerate(texts))
    if missing:
        return Item(case.id + WITHOUT, documents, case.question, (), -1)
    return Item(case.id, documents, case.question, case.answers, texts.index(case.gold))


def _shuffled_rows(folder: Path, name: str, seed: int) -> list[Row]:
    if not (folder / f"{name}.jsonl.gz").is_file():
        raise MissingDataError(
            f"no {name}.jsonl.gz in {folder}; set RECALLM_DATA, or give --data, the folder that "
            "has it, or a JSONL file of your own questions"
        )
    rows = list(read_rows(folder, name))
    random.Random(f"cited:{seed}:{name}").shuffle(rows)
    return rows


def _clean(texts: Iterable[Text], answers: tuple[str, ...]) -> tuple[Text, ...]:
    """The first texts that hold no gold answer."""
    return tuple(islice((t for t in texts if not contains(t[1], answers)), _OTHERS + 1))


def natural_questions(folder: Path, seed: int) -> Iterator[Case]:
    """Yields Natural Questions, each with the distractors that BM25 likes best."""
    for row in _shuffled_rows(folder, "nq_multidoc_eval", seed):
        answers = tuple(row["answers"])
        others = _clean(((d["title"], d["text"]) for d in row["distractors"]), answers)
        gold = (row["gold"]["title"], row["gold"]["text"])
        yield Case(str(row["id"]), row["question"], answers, gold, others)


def squad(folder: Path, seed: int) -> Iterator[Case]:
    """Yields answerable questions of the SQuAD 2.0 paragraphs that training never saw."""
    rows = _shuffled_rows(folder, "squad2", seed)
    yield from _squad_like([row for row in rows if is_held_out(row["context"])], rows, seed)


def xquad(language: str) -> Callable[[Path, int], Iterator[Case]]:
    """Returns what yields questions of the XQuAD paragraphs in a language."""

    def cases(folder: Path, seed: int) -> Iterator[Case]:
        rows = [r for r in _shuffled_rows(folder, "xquad_es_zh_ar", seed) if r["lang"] == language]
        yield from _squad_like(rows, rows, seed)

    return cases


def _squad_like(paragraphs: list[Row], rows: list[Row], seed: int) -> Iterator[Case]:
    """Yields a question of each paragraph, then a second one of each, and so on."""
    rngs = [random.Random(f"cited:{seed}:{row['id']}") for row in paragraphs]
    questions = [
        rng.sample(qas, len(qas))
        for row, rng in zip(paragraphs, rngs, strict=True)
        for qas in [_answerable(row)]
    ]
    for turn in zip_longest(*questions):
        for row, rng, qa in zip(paragraphs, rngs, turn, strict=True):
            if qa is not None:
                yield _squad_case(row, qa, rows, rng)


def _answerable(row: Row) -> list[Row]:
    return [qa for qa in row["qas"] if not qa.get("impossible") and qa["answers"]]


def _squad_case(row: Row, qa: Row, rows: list[Row], rng: random.Random) -> Case:
    answers = tuple(dict.fromkeys(answer["text"] for answer in qa["answers"]))
    elsewhere = [(r["title"], r["context"]) for r in rows if r["title"] != row["title"]]
    rng.shuffle(elsewhere)
    gold = (row["title"], row["context"])
    return Case(str(qa["id"]), qa["question"], answers, gold, _clean(elsewhere, answers))


SUITES: dict[str, Callable[[Path, int], Iterator[Case]]] = {
    "nq": natural_questions,
    "squad2": squad,
    "xquad-es": xquad("es"),
    "xquad-zh": xquad("zh"),
    "xquad-ar": xquad("ar"),
}
NAMES = tuple(name + end for name in SUITES for end in ("", WITHOUT))
DEFAULT = ("nq", "squad2", "nq" + WITHOUT, "squad2" + WITHOUT)
