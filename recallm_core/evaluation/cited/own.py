"""A user's own questions: JSON Lines, each line checked; bad lines are reported and left out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recallm_core.documents.document import Document
from recallm_core.errors import RecallmError
from recallm_core.evaluation.cited.items import UNSCORED
from recallm_core.evaluation.items import Item

EXPECTED = (
    '{"question": "...", "documents": ["..." or {"text": "...", "title": "...", "id": "..."}], '
    '"answers": ["..."]}'
)
_MOST_SHOWN = 60


class OwnRowsError(RecallmError):
    """A file of questions can't be used."""


@dataclass(frozen=True, slots=True)
class OwnRows:
    """The questions of a file, and what is wrong with the lines that were left out."""

    items: tuple[Item, ...]
    bad: tuple[str, ...]


def read_own(path: Path, n: int | None = None) -> OwnRows:
    """Reads questions: ``answers`` empty where the documents hold none, left out where unknown.

    Args:
        path: A file of JSON Lines.
        n: Questions at most.

    Raises:
        OwnRowsError: No line is usable.
        OSError: The file can't be read.
    """
    items: list[Item] = []
    bad: list[str] = []
    for number, line in _lines(path):
        if n is not None and len(items) == n:
            break
        try:
            items.append(_item(number, line))
        except (ValueError, RecursionError, RecallmError) as error:
            bad.append(f"line {number} of {path.name} is left out: {_short(error)}")
    if not items:
        first = bad[0] if bad else "it has no lines"
        raise OwnRowsError(f"{path} has no usable question ({first}); each line must be {EXPECTED}")
    return OwnRows(tuple(items), tuple(bad))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line


def _short(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error)


def _item(number: int, line: bytes) -> Item:
    row = json.loads(line.decode("utf-8-sig"))
    _require(isinstance(row, dict), "an object", row)
    question, answers, entries = row.get("question"), row.get("answers"), row.get("documents")
    _require(_is_text(question), 'a non-empty text "question"', question)
    _require(isinstance(entries, list) and entries, 'a non-empty list "documents"', entries)
    _require(
        answers is None or (isinstance(answers, list) and all(map(_is_text, answers))),
        '"answers" to be a list of non-empty texts',
        answers,
    )
    documents = tuple(_document(place, value) for place, value in enumerate(entries))
    _require(
        len({d.id for d in documents}) == len(documents),
        "ids that differ",
        [d.id for d in documents],
    )
    name = f"{number}-{row['id']}" if _is_text(row.get("id")) else str(number)
    group = UNSCORED if answers is None else ""
    return Item(name, documents, question, tuple(answers or ()), -1, group)


def _document(place: int, value: Any) -> Document:
    fields = {"text": value} if isinstance(value, str) else value
    _require(isinstance(fields, dict), "each document to be a text or an object", value)
    unknown = sorted(set(fields) - {"text", "title", "id"})
    _require(not unknown, 'no other fields of a document than "text", "title", "id"', unknown)
    _require(_is_text(fields.get("text")), 'a non-empty "text" in each document', value)
    for name in ("title", "id"):
        rule = f'"{name}" of a document to be a text'
        _require(fields.get(name) is None or _is_text(fields[name]), rule, fields.get(name))
    return Document(fields["text"], fields.get("id") or f"d{place}", fields.get("title"))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _require(holds: object, expected: str, got: object) -> None:
    if not holds:
        shown = repr(got)
        cut = shown if len(shown) <= _MOST_SHOWN else shown[:_MOST_SHOWN] + "..."
        raise ValueError(f"expected {expected}, got {cut}")
