"""The paired conditions: one dictionary, asked directly and after every kind of beginning."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from recallm_core.evaluation.frame.lengths import Fitter, Meter
from recallm_core.evaluation.frame.sample import Sample
from recallm_core.evaluation.frame.texts import Haystack
from recallm_core.evaluation.thought.dictionaries import Dictionary, dictionary

DIRECT = "direct"
SOLVE = "solve"
REPLAYED = "own trace"
ANOTHER = "another's trace"
FILLER = "filler"
LITERAL = "trace, literal prefix"
PLAIN_LITERAL = "literal prefix"
OPENED = ", span opened"
ABSENT = "absent key"
CONDITIONS: tuple[str, ...] = (DIRECT, SOLVE, REPLAYED, ANOTHER, FILLER, PLAIN_LITERAL, LITERAL)
CONDITIONS += tuple(name + OPENED for name in (DIRECT, REPLAYED, PLAIN_LITERAL, LITERAL))
CONDITIONS += (ABSENT,)
TRACED = (REPLAYED, ANOTHER, FILLER, LITERAL, REPLAYED + OPENED, LITERAL + OPENED)
_OUT = 32
_ROOM = 220  # tokens of a trace that the length has to leave room for


def dose(tokens: int) -> str:
    """Returns the name of the condition with a trace of so many tokens."""
    return f"trace of {tokens:,} tokens"


def is_dose(task: str) -> bool:
    """Whether a task is one of those."""
    return task.startswith("trace of ")


@dataclass(frozen=True, slots=True)
class Beginnings:
    """What outputs begin with.

    Attributes:
        traces: The working for a dictionary's equation by its number; the model's own, or made by
            rule. A dictionary without one has no condition that needs it.
        filler: Sentences about something else.
        answer: What leads to the answer: ``Answer: ``, or nothing for a model that still thinks.
    """

    traces: Mapping[int, str]
    filler: Haystack
    answer: str = "Answer: "


def dictionaries(length: int, n: int, *, seed: int, meter: Meter) -> list[Dictionary]:
    """Returns dictionaries that fill a length together with a trace.

    Raises:
        LengthError: The length is too short.
    """
    fitter = Fitter(meter)
    sizes: list[Dictionary] = []
    for number in range(n):

        def make(size: int, number: int = number) -> Sample:
            return _direct(dictionary(number, max(2, size), seed), length)

        fitted = fitter.largest_fitting(make, length)
        sizes.append(dictionary(number, int(fitted.facts["pairs"]), seed))
    return sizes


def _direct(entry: Dictionary, length: int) -> Sample:
    """The question by key, with room for a trace."""
    return _sample(entry, length, DIRECT, direct_question(entry), budget=_OUT + _ROOM)


def direct_question(entry: Dictionary) -> str:
    """Returns the question that names the key."""
    return f"What is the value of key {entry.key}?"


def solve_question(problem: str) -> str:
    """Returns the question whose key has to be worked out."""
    return f"Solve {problem} for x. What is the value of key x?"


def samples(
    entries: Sequence[Dictionary],
    length: int,
    begin: Beginnings,
    meter: Meter,
    doses: Sequence[int] = (),
    names: Sequence[str] = CONDITIONS,
) -> list[Sample]:
    """Returns every dictionary under every condition, those of one dictionary together."""
    return [
        sample
        for entry in entries
        for sample in _all(entry, length, begin, meter, doses)
        if sample.task in names or is_dose(sample.task)
    ]


def _all(
    entry: Dictionary, length: int, begin: Beginnings, meter: Meter, doses: Sequence[int]
) -> Iterator[Sample]:
    question = direct_question(entry)
    yield _sample(entry, length, SOLVE, solve_question(entry.problem), budget=_OUT)
    yield _absent(entry, length)
    for name, words, opens in _beginnings_without_trace(entry, begin):
        yield _sample(entry, length, name, question, words, opens=opens)
    if entry.number in begin.traces:
        for name, words, opens in _beginnings_with_trace(entry, begin, meter):
            yield _sample(entry, length, name, question, words, opens=opens)
        for tokens in doses:
            words = _trace_of_length(entry, begin, meter, tokens) + " " + begin.answer
            yield _sample(entry, length, dose(tokens), question, words)


def _beginnings_without_trace(
    entry: Dictionary, begin: Beginnings
) -> Iterator[tuple[str, str, bool]]:
    for name, words in ((DIRECT, begin.answer), (PLAIN_LITERAL, entry.before)):
        yield name, words, False
        yield name + OPENED, words, True


def _beginnings_with_trace(
    entry: Dictionary, begin: Beginnings, meter: Meter
) -> Iterator[tuple[str, str, bool]]:
    trace = begin.traces[entry.number]
    yield REPLAYED, f"{trace} {begin.answer}", False
    yield REPLAYED + OPENED, f"{trace} {begin.answer}", True
    yield LITERAL, f"{trace}\n{entry.before}", False
    yield LITERAL + OPENED, f"{trace}\n{entry.before}", True
    size = meter.count(trace)
    filler = _filler_text(begin.filler, size, meter)
    yield FILLER, f"{filler} The key is {entry.key}. {begin.answer}", False
    other = _other(entry, begin.traces)
    if other:
        yield ANOTHER, f"{other} {begin.answer}", False


def _other(entry: Dictionary, traces: Mapping[int, str]) -> str:
    """Another dictionary's trace, about this one's key where it states its own."""
    numbers = sorted(number for number in traces if number != entry.number)
    if not numbers:
        return ""
    other = next((n for n in numbers if n > entry.number), numbers[0])
    trace = traces[other]
    stated = re.findall(r"-?\d+", trace)
    last = stated[-1] if stated else ""
    key = str(entry.key)
    return re.sub(rf"(?<![\d-]){re.escape(last)}(?!\d)", key, trace) if last else trace


def _filler_text(text: Haystack, tokens: int, meter: Meter) -> str:
    """The first words of a text that are about as many tokens."""
    words = max(1, tokens * 2 // 3)
    for _ in range(6):
        filler = " ".join(text.take(words))
        used = meter.count(filler)
        if abs(used - tokens) <= 3:
            break
        words = max(1, round(words * tokens / max(1, used)))
    return filler


def _trace_of_length(entry: Dictionary, begin: Beginnings, meter: Meter, tokens: int) -> str:
    """The trace with solved other equations before it; of a long one, the end."""
    trace = begin.traces[entry.number]
    numbers = [n for n in sorted(begin.traces) if n != entry.number]
    parts = [trace]
    turn = 0
    while numbers and meter.count(" ".join(parts)) < tokens and turn < _MOST_PARTS:
        parts.insert(0, begin.traces[numbers[(entry.number + turn) % len(numbers)]])
        turn += 1
    words = " ".join(parts).split(" ")
    while len(words) > 1 and meter.count(" ".join(words)) > tokens:
        over = meter.count(" ".join(words)) - tokens
        words = words[max(1, over // 3) :]
    return " ".join(words)


_MOST_PARTS = 1000


def _absent(entry: Dictionary, length: int) -> Sample:
    """The equation whose key isn't there."""
    question = solve_question(entry.absent_problem)
    facts = {"key": entry.absent}
    return _sample(entry, length, ABSENT, question, answers=(), facts=facts)


def _sample(
    entry: Dictionary,
    length: int,
    task: str,
    question: str,
    words: str = "",
    *,
    opens: bool = False,
    budget: int = _OUT,
    answers: tuple[str, ...] | None = None,
    facts: Mapping[str, int] | None = None,
) -> Sample:
    known = {
        "dictionary": entry.number,
        "pairs": len(entry.pairs),
        "shape": entry.shape,
        "key": entry.key,
        "depth": entry.depth,
    }
    name = re.sub(r"[^a-z0-9]+", "-", task)
    return Sample(
        id=f"{length}-{entry.number}-{name}",
        documents=(entry.document,),
        question=question,
        answers=(entry.value,) if answers is None else answers,
        group=task,
        reasoning=words,
        opens=opens,
        length=length,
        budget=budget,
        facts=known | dict(facts or {}),
    )
