"""The thirteen tasks by name, and their samples at a length."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from recallm_core.evaluation.frame.lengths import Fitter, Meter
from recallm_core.evaluation.frame.sample import Sample
from recallm_core.evaluation.frame.texts import Haystack, haystack
from recallm_core.evaluation.ruler import questions
from recallm_core.evaluation.ruler.needles import Needles
from recallm_core.evaluation.ruler.tracing import common_words, frequent_words, variables


@dataclass(frozen=True, slots=True)
class Texts:
    """Where text comes from.

    Attributes:
        data: The data folder.
        folder: The user's own text for haystacks, or None.
    """

    data: Path
    folder: Path | None = None

    def hay(self) -> Haystack:
        """The text that needles are hidden in.

        Raises:
            MissingDataError: There is none.
        """
        return haystack(self.folder, self.data)


Make = Callable[[random.Random, int, int, Texts], Sample]
_NO_TEXT = Haystack("none", ("",))


def _needles(needles: Needles) -> Make:
    def make(rng: random.Random, size: int, length: int, texts: Texts) -> Sample:
        return needles.make(rng, size, texts.hay() if needles.hay == "text" else _NO_TEXT)

    return make


def _squad(rng: random.Random, size: int, length: int, texts: Texts) -> Sample:
    fill = questions.paragraphs(texts.data, "squad")
    return questions.make(rng, size, questions.squad(texts.data), fill)


def _hotpot(rng: random.Random, size: int, length: int, texts: Texts) -> Sample:
    fill = questions.paragraphs(texts.data, "hotpot")
    return questions.make(rng, size, questions.hotpot(texts.data), fill)


@dataclass(frozen=True, slots=True)
class Task:
    """One task.

    Attributes:
        name: As in RULER.
        make: Makes a sample from a generator of chance, a size and the length aimed at.
        any_gold: Whether one of the gold strings is enough; else all are wanted.
        candidate: What in an answer counts as a value offered (a pattern over its lower-cased
            text); empty: its words.
    """

    name: str
    make: Make
    any_gold: bool = False
    candidate: str = ""


_NUMBER, _UUID = r"\b\d{7}\b", r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
_WORD = r"\b[a-z]{4,10}\b"
_TASKS = (
    Task("niah_single_1", _needles(Needles("noise")), candidate=_NUMBER),
    Task("niah_single_2", _needles(Needles()), candidate=_NUMBER),
    Task("niah_single_3", _needles(Needles(values="uuids")), candidate=_UUID),
    Task("niah_multikey_1", _needles(Needles(hidden=4)), candidate=_NUMBER),
    Task("niah_multikey_2", _needles(Needles("needles")), candidate=_NUMBER),
    Task("niah_multikey_3", _needles(Needles("needles", "uuids", "uuids")), candidate=_UUID),
    Task("niah_multivalue", _needles(Needles(each=4)), candidate=_NUMBER),
    Task("niah_multiquery", _needles(Needles(hidden=4, asked=4)), candidate=_NUMBER),
    Task("vt", lambda rng, size, length, texts: variables(rng, size), candidate=r"\b[a-z]{5}\b"),
    Task("cwe", lambda rng, size, length, texts: common_words(rng, size, length), candidate=_WORD),
    Task("fwe", lambda rng, size, length, texts: frequent_words(rng, size, length),
         candidate=r"\b[a-z]{6}\b"),
    Task("qa_1", _squad, any_gold=True),
    Task("qa_2", _hotpot, any_gold=True),
)  # fmt: skip
TASKS: Mapping[str, Task] = {task.name: task for task in _TASKS}
NEEDLES = tuple(name for name in TASKS if name.startswith("niah"))
NEED_TEXT = tuple(
    name for name in NEEDLES if not name.endswith(("single_1", "multikey_2", "multikey_3"))
)


def samples(
    task: Task, length: int, n: int, *, seed: int, meter: Meter, texts: Texts
) -> list[Sample]:
    """Returns the samples of a task at a length, the same ones for the same seed.

    Args:
        task: One of ``TASKS``.
        length: Tokens of prompt and answer.
        n: How many.
        seed: Makes them.
        meter: Counts tokens.
        texts: What needles are hidden in, and what is asked about.

    Raises:
        LengthError: The length is too short for the task.
        MissingDataError: A text that the task needs isn't there.
    """
    return fitted_samples(task, length, n, seed=seed, fitter=Fitter(meter), texts=texts)


def fitted_samples(
    task: Task, length: int, n: int, *, seed: int, fitter: Fitter, texts: Texts
) -> list[Sample]:
    """Returns the samples of a task as ``samples`` does, fitted in another way."""
    return [_sample(task, length, number, seed, fitter, texts) for number in range(n)]


def _sample(
    task: Task, length: int, number: int, seed: int, fitter: Fitter, texts: Texts
) -> Sample:
    name = f"{task.name}-{length}-{number}"

    def make(size: int) -> Sample:
        rng = random.Random(f"ruler:{seed}:{name}")
        return replace(task.make(rng, size, length, texts), id=name, group=task.name, length=length)

    return fitter.largest_fitting(make, length)
