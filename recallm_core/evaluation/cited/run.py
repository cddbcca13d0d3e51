"""Asks every question in every way and writes each answer; what is written isn't asked again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from recallm_core.errors import RecallmError
from recallm_core.evaluation.cited.told import Told, Way
from recallm_core.evaluation.conditions import Condition
from recallm_core.evaluation.items import Item
from recallm_core.evaluation.rows import Place, Row, RowFile, RunError, failed, head

Say = Callable[[str], None]
Key = tuple[str, str]


@dataclass(slots=True)
class Answers:
    """What a run found.

    Attributes:
        told: Questions and answers by suite and way, in the order of the questions.
        notes: What was left out, and why.
        failures: Rows without an answer.
    """

    told: dict[Key, list[tuple[Item, Told]]] = field(default_factory=dict)
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
    file = RowFile(folder / "rows.jsonl")
    work = list(_batches(ways, suites, file, batch))
    progress = Progress(sum(len(places) for _, places in work), say)
    for way, places in work:
        for row in _asked(way, places):
            file.append(row)
        progress.advance(f"{places[0].suite}, {way.name}", len(places))
    return _collected(ways, suites, file)


def _batches(
    ways: Sequence[Way], suites: Mapping[str, Sequence[Item]], file: RowFile, size: int
) -> Iterator[tuple[Way, tuple[Place, ...]]]:
    """What is left to ask; questions of like length together, so that little is padding."""
    for suite, way, asked in _pairs(ways, suites):
        places = [_place(suite, way, item) for item in asked]
        left = sorted((p for p in places if not file.done(p)), key=_size)
        for first in range(0, len(left), size):
            yield way, tuple(left[first : first + size])


def _pairs(
    ways: Sequence[Way], suites: Mapping[str, Sequence[Item]]
) -> Iterator[tuple[str, Way, list[Item]]]:
    for suite, items in suites.items():
        for way in ways:
            yield suite, way, [item for item in items if way.asks(item)]


def _place(suite: str, way: Way, item: Item) -> Place:
    return Place(suite, Condition(way.name, "model"), item)


def _size(place: Place) -> int:
    return sum(len(document.text) for document in place.item.documents)


def _asked(way: Way, places: Sequence[Place]) -> list[Row]:
    """The rows of a batch; where it fails, each question is asked by itself."""
    try:
        told = way([place.item for place in places])
    except RecallmError as error:
        if len(places) == 1:
            return [failed(places[0], error)]
        return [row for place in places for row in _asked(way, [place])]
    return [head(place) | asdict(each) for place, each in zip(places, told, strict=True)]


def _collected(ways: Sequence[Way], suites: Mapping[str, Sequence[Item]], file: RowFile) -> Answers:
    answers = Answers()
    for suite, way, items in _pairs(ways, suites):
        for item in items:
            _collect(answers, (suite, way.name), item, file.get(_place(suite, way, item)))
    return answers


def _collect(answers: Answers, key: Key, item: Item, row: Row | None) -> None:
    if row is None or "error" in row:
        answers.failures.append(row or {"error": "it was never asked"})
        return
    try:
        told = Told.from_row(row)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"the row of {item.id} ({', '.join(key)}) can't be read ({error}); delete its line, "
            "or give another --out"
        ) from error
    answers.told.setdefault(key, []).append((item, told))


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

    def advance(self, what: str, count: int) -> None:
        """Counts answers and says so."""
        self._done += count
        each = (self._clock() - self._began) / self._done
        left = each * (self._total - self._done)
        self._say(
            f"{self._done} of {self._total} answers ({what}), {each:.1f} s each, {span(left)} left"
        )


def span(seconds: float) -> str:
    """Returns a time in words: ``50 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
