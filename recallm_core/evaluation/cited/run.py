"""Asks the questions of all suites and reads the answers back with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recallm_core.evaluation.cited.scores import answer_scores
from recallm_core.evaluation.frame.records import AnswerRecord, Way
from recallm_core.evaluation.frame.run import Cell, Progress, Say, ask, place, span
from recallm_core.evaluation.items import Item
from recallm_core.evaluation.rows import Row, RowFile, RunError

__all__ = ["Answers", "Key", "Progress", "Say", "ask_all", "span"]

Key = tuple[str, str]


@dataclass(slots=True)
class Answers:
    """What a run found.

    Attributes:
        records: Questions and answers by suite and way, in the order of the questions.
        notes: What was left out, and why.
        failures: Rows without an answer.
    """

    records: dict[Key, list[tuple[Item, AnswerRecord]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failures: list[Row] = field(default_factory=list)


def ask_all(
    ways: Sequence[Way],
    suites: Mapping[str, Sequence[Item]],
    folder: Path,
    say: Say,
    *,
    batch: int = 8,
) -> Answers:
    """Asks what isn't in the folder yet, and returns everything.

    Args:
        ways: The ways to answer.
        suites: Questions by suite.
        folder: Has ``rows.jsonl``, or gets it.
        say: Is told how it goes, a line at a time.
        batch: Questions asked at once.

    Raises:
        RunError: A row of the folder is damaged.
    """
    cells = [_cell(name, items) for name, items in suites.items()]
    result = ask(ways, cells, folder, say, batch=batch, score=answer_scores)
    return _collect_answers(ways, suites, result.file)


def _cell(name: str, items: Sequence[Item]) -> Cell:
    return Cell(name, name, len(items), lambda: items)


def _collect_answers(
    ways: Sequence[Way], suites: Mapping[str, Sequence[Item]], file: RowFile
) -> Answers:
    answers = Answers()
    for suite, way, item in _questions(ways, suites):
        _collect(answers, (suite, way.name), item, file.get(place(suite, way, item)))
    return answers


def _questions(
    ways: Sequence[Way], suites: Mapping[str, Sequence[Item]]
) -> Iterator[tuple[str, Way, Item]]:
    for suite, items in suites.items():
        for way in ways:
            for item in items:
                if way.asks(item):
                    yield suite, way, item


def _collect(answers: Answers, key: Key, item: Item, row: Row | None) -> None:
    if row is None or "error" in row:
        answers.failures.append(row or {"error": "it was never asked"})
        return
    try:
        answer = AnswerRecord.from_row(row)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"the row of {item.id} ({', '.join(key)}) can't be read ({error}); delete its line, "
            "or give another --out"
        ) from error
    answers.records.setdefault(key, []).append((item, answer))
