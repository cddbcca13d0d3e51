"""The results of a run as JSON lines: appended one by one, so that a run can stop anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recallm_core.errors import RecallmError
from recallm_core.evaluation.answering import Outcome
from recallm_core.evaluation.conditions import Condition
from recallm_core.evaluation.items import Item
from recallm_core.evaluation.metrics import exact_match, holds, word_f1

Row = dict[str, Any]
Key = tuple[str, str, str, str]


class RunError(RecallmError):
    """A run folder can't be gone on with: it belongs to other settings, or is damaged."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row belongs: suite, condition, item and the item's content."""

    suite: str
    condition: Condition
    item: Item

    @property
    def key(self) -> Key:
        """What makes it one row among all."""
        return (self.suite, self.condition.name, self.item.id, self.item.digest)


def scored_row(place: Place, outcome: Outcome) -> Row:
    """Returns a result as it is written: scores, and what they were computed from.

    ``hit`` is 1 where a quote from the gold document holds a gold answer; ``found`` where the
    answer's text holds one, whatever else it says.
    """
    item = place.item
    gold = item.gold_id if item.answerable else ""
    quoted = [quote.text for quote in outcome.evidence if quote.exact and quote.document == gold]
    scores = {
        "em": exact_match(outcome.answer, item.answers),
        "f1": word_f1(outcome.answer, item.answers),
        "hit": max((holds(text, item.answers) for text in quoted), default=0.0),
        "found": holds(outcome.answer, item.answers),
    }
    plain = asdict(outcome)
    return head(place) | plain | (scores if item.answerable else {})


def failed_row(place: Place, error: Exception) -> Row:
    """Returns a row that says why there is no result; a resumed run tries it again."""
    return head(place) | {"error": f"{type(error).__name__}: {error}"}


def head(place: Place) -> Row:
    """Returns what tells a row from others, and what was asked."""
    item = place.item
    return {
        "suite": place.suite,
        "condition": place.condition.name,
        "id": item.id,
        "digest": item.digest,
        "group": item.group,
        "answerable": item.answerable,
        "question": item.question,
        "answers": list(item.answers),
        **item.more(),
    }


def key_of(row: Row) -> Key:
    """Returns the key of a written row."""
    return (row["suite"], row["condition"], row["id"], row["digest"])


class RowFile:
    """Appends rows to a file and knows which are there; later rows replace earlier ones.

    Args:
        path: The file; a last line that was cut off by a kill is dropped.

    Raises:
        RunError: A line before the last isn't a row.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[Key, Row] = {}
        for row in self._read():
            self._rows[key_of(row)] = row

    def _read(self) -> Iterator[Row]:
        if not self._path.is_file():
            return
        data = self._path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            with self._path.open("r+b") as file:
                file.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                row = json.loads(line)
                key_of(row)
            except (ValueError, KeyError, TypeError) as error:
                raise RunError(
                    f"line {number} of {self._path} isn't a row ({error}); give another --out, or "
                    "delete that line"
                ) from error
            yield row

    def done(self, place: Place) -> bool:
        """Whether there is a result, and not just a failure."""
        row = self._rows.get(place.key)
        return row is not None and "error" not in row

    def get(self, place: Place) -> Row | None:
        """Returns the row of a place."""
        return self._rows.get(place.key)

    def append(self, row: Row) -> None:
        """Writes a row, whole or not at all as far as the system allows."""
        line = json.dumps(row, ensure_ascii=False) + "\n"
        with self._path.open("ab") as file:
            file.write(line.encode("utf-8"))
        self._rows[key_of(row)] = json.loads(line)  # as a resumed run will read it
