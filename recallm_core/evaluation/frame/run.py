"""Asks every question in every way and writes each answer; what is written isn't asked again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from recallm_core.errors import RecallmError
from recallm_core.evaluation.conditions import Condition
from recallm_core.evaluation.frame.lengths import LengthError
from recallm_core.evaluation.frame.records import AnswerRecord, Way
from recallm_core.evaluation.items import Item
from recallm_core.evaluation.rows import Place, Row, RowFile, failed_row, head

Say = Callable[[str], None]
Score = Callable[[Item, AnswerRecord], Mapping[str, float]]
FILE = "rows.jsonl"


@dataclass(frozen=True, slots=True)
class Cell:
    """Questions that are made, asked and forgotten together.

    Attributes:
        suite: The suite, as rows name it.
        name: What a person is told is being asked.
        n: How many questions there will be.
        make: Makes them; the same ones each time.
    """

    suite: str
    name: str
    n: int
    make: Callable[[], Sequence[Item]]


@dataclass(frozen=True, slots=True)
class RunResult:
    """What is there once all was asked: the rows, and which cells can't be made and why."""

    file: RowFile
    left_out: tuple[str, ...] = ()


def ask(
    ways: Sequence[Way],
    cells: Sequence[Cell],
    folder: Path,
    say: Say,
    *,
    batch: int = 8,
    score: Score | None = None,
) -> RunResult:
    """Asks what isn't in the folder yet; a cell that is too short for its task is left out.

    Args:
        ways: The ways to answer.
        cells: The questions.
        folder: Has ``rows.jsonl``, or gets it.
        say: Is told how it goes, a line at a time.
        batch: Questions asked at once.
        score: Judges each answer; its figures are written into the row.

    Raises:
        RunError: A row of the folder is damaged.
    """
    file = RowFile(folder / FILE)
    progress = Progress(sum(cell.n for cell in cells) * len(ways), say)
    left_out: list[str] = []
    for cell in cells:
        items = _items_of(cell, left_out, say)
        work = list(_batches(ways, cell.suite, items, file, batch))
        progress.skip(cell.n * len(ways) - sum(len(places) for _, places in work))
        for way, places in work:
            for row in _ask(way, places, score):
                file.append(row)
            progress.advance(f"{cell.name}, {way.name}", len(places))
    return RunResult(file, tuple(left_out))


def _items_of(cell: Cell, left_out: list[str], say: Say) -> Sequence[Item]:
    try:
        return cell.make()
    except LengthError as error:
        left_out.append(f"{cell.name}: {error}")
        say(f"left out: {left_out[-1]}")
        return ()


def place(suite: str, way: Way, item: Item) -> Place:
    """Returns where the row of a question and a way belongs."""
    return Place(suite, Condition(way.name, "model"), item)


def _batches(
    ways: Sequence[Way], suite: str, items: Sequence[Item], file: RowFile, size: int
) -> Iterator[tuple[Way, tuple[Place, ...]]]:
    """What is still to ask; questions of like length together, so that little is padding."""
    for way in ways:
        places = [place(suite, way, item) for item in items if way.asks(item)]
        open_ones = sorted((p for p in places if not file.done(p)), key=_size)
        for first in range(0, len(open_ones), size):
            yield way, tuple(open_ones[first : first + size])


def _size(place: Place) -> int:
    return sum(len(document.text) for document in place.item.documents)


def _ask(way: Way, places: Sequence[Place], score: Score | None) -> list[Row]:
    """The rows of a batch; where it fails, each question is asked by itself."""
    try:
        answers = way([place.item for place in places])
    except RecallmError as error:
        if len(places) == 1:
            return [failed_row(places[0], error)]
        return [row for place in places for row in _ask(way, [place], score)]
    return [_row(place, answer, score) for place, answer in zip(places, answers, strict=True)]


def _row(place: Place, answer: AnswerRecord, score: Score | None) -> Row:
    scores = {} if score is None else {"scores": dict(score(place.item, answer))}
    return head(place) | asdict(answer) | scores


class Progress:
    """Says how many answers there are, and how long the rest will take.

    Args:
        total: Answers to come.
        say: Is told.
        clock: Gives seconds.
    """

    def __init__(
        self, total: int, say: Say, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._total = total
        self._say = say
        self._clock = clock
        self._done = 0
        self._began = clock()

    def skip(self, count: int) -> None:
        """Takes answers off that needn't be asked for."""
        self._total -= count

    def advance(self, what: str, count: int) -> None:
        """Counts answers and says so."""
        self._done += count
        pace = (self._clock() - self._began) / self._done
        rest = pace * (self._total - self._done)
        self._say(
            f"{self._done} of {self._total} answers ({what}), {pace:.1f} s each, {span(rest)} left"
        )


def span(seconds: float) -> str:
    """Returns a time in words: ``50 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
