"""Natural Questions over many passages, the one that answers at each of several positions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from recallm_core.documents.document import Document
from recallm_core.evaluation.cited.words import contains
from recallm_core.evaluation.datasets import MissingDataError, rows_of
from recallm_core.evaluation.frame.lengths import LengthError, Meter
from recallm_core.evaluation.frame.sample import Sample
from recallm_core.train.tasks.datasets import read_rows

ORACLE, CLOSED = "gold alone", "closed book"
PUBLISHED = {10: (0, 4, 9), 20: (0, 4, 9, 14, 19), 30: (0, 4, 9, 14, 19, 24, 29)}
_EVEN = 5
_OUT = 100
_FILE = "nq_multidoc_eval"
Text = tuple[str, str]


def places(documents: int) -> tuple[int, ...]:
    """Returns the positions of the gold passage: the published ones, else five even ones."""
    last = documents - 1
    even = tuple(dict.fromkeys(round(last * step / (_EVEN - 1)) for step in range(_EVEN)))
    return PUBLISHED.get(documents, even)


def task_name(documents: int) -> str:
    """Returns the task's name in rows."""
    return f"{documents} documents"


def questions(folder: Path, n: int, seed: int) -> list[dict[str, Any]]:
    """Returns the questions, the same for the same seed.

    Raises:
        MissingDataError: The folder has no such file.
    """
    rows = list(rows_of(folder, _FILE))
    random.Random(f"positions:{seed}").shuffle(rows)
    return rows[:n]


@cache
def _wiki(folder: Path) -> tuple[Text, ...]:
    if not (folder / "wiki_passages.jsonl.gz").is_file():
        return ()
    return tuple((row["title"], row["text"]) for row in read_rows(folder, "wiki_passages"))


def samples(
    rows: Sequence[dict[str, Any]], documents: int, position: int, *, folder: Path, meter: Meter
) -> list[Sample]:
    """Returns every question with the gold passage at one position.

    Distractors stand in the order in which BM25 ranks them, then passages of Wikipedia.

    Raises:
        LengthError: A prompt doesn't fit the model's context length: nothing is cut silently.
        MissingDataError: There are fewer passages than asked for.
    """
    placed = [_sample_at(row, documents, position, folder) for row in rows]
    longest = max(map(meter.tokens, placed))
    if longest > meter.room(longest):
        raise LengthError(
            f"{documents} documents take {longest:,} tokens, more than the model's context length "
            f"of {meter.context_length:,} leaves; ask for fewer documents"
        )
    return placed


def _sample_at(row: dict[str, Any], documents: int, position: int, folder: Path) -> Sample:
    texts = _distractors(row, documents - 1, folder)
    texts.insert(position, _gold(row))
    facts = {"position": position, "documents": documents, "question": str(row["id"])}
    name = f"{row['id']}-{documents}-{position}"
    return _sample(row, name, task_name(documents), texts, position, facts)


def _gold(row: dict[str, Any]) -> Text:
    return row["gold"]["title"], row["gold"]["text"]


def _distractors(row: dict[str, Any], count: int, folder: Path) -> list[Text]:
    texts = [(d["title"], d["text"]) for d in row["distractors"][:count]]
    if len(texts) < count:
        rng = random.Random(f"positions:fill:{row['id']}")
        taken = {text for _, text in (*texts, _gold(row))}
        pool = _wiki(folder)
        for index in rng.sample(range(len(pool)), len(pool)):
            if len(texts) == count:
                break
            text = pool[index][1]
            if text not in taken and not contains(text, row["answers"]):
                texts.append(pool[index])
    if len(texts) < count:
        raise MissingDataError(
            f"there are {len(texts)} passages beside the gold one, {count} were asked for; set "
            "RECALLM_DATA to a folder that has wiki_passages.jsonl.gz, or ask for fewer documents"
        )
    return texts


def controls(rows: Sequence[dict[str, Any]], kind: str) -> list[Sample]:
    """Returns every question over the gold passage alone, or over nothing."""
    name = kind.replace(" ", "-")
    return [
        _sample(
            row,
            f"{row['id']}-{name}",
            kind,
            [_gold(row)] if kind == ORACLE else [],
            0,
            {"question": str(row["id"])},
        )
        for row in rows
    ]


def _sample(
    row: dict[str, Any],
    name: str,
    task: str,
    texts: Sequence[Text],
    position: int,
    facts: dict[str, Any],
) -> Sample:
    documents = tuple(Document(text, f"p{n}", title) for n, (title, text) in enumerate(texts))
    question = row["question"].rstrip("?") + "?"
    return Sample(
        id=name,
        documents=documents,
        question=question[0].upper() + question[1:],
        answers=tuple(row["answers"]),
        gold=position,
        group=task,
        budget=_OUT,
        facts=facts,
    )
