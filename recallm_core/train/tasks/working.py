"""Working before the first quote: what a model loses the value behind, unless it was shown how not.

The words are given, not learnt: a row teaches what follows them, which is to open a quote, and not
to write sums that nobody asked for.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace

from recallm_core.train.tasks.keyed import equation
from recallm_core.train.tasks.training_example import Quote, TrainingExample

MOST_SENTENCES = 16
BEHIND = " behind working"
"""What the name of a task ends with then."""
_WORKED_OUT = ("compute_then_retrieve",)
_WHOLE = re.compile(r"(?<![\w.,-])-?\d{1,9}(?![\w.,]*\w)")
_JOINTS = ("{}.", "Then {}.", "Next, {}.", "After that {}.")
_PLAN = (
    "Let me think about what is being asked here.",
    "It helps to say first what would count as an answer.",
    "A date, a name, a number or a whole sentence could be meant.",
    "The wording of the question may differ from that of the documents.",
    "Two documents could speak of similar things, so I have to be careful.",
    "I shouldn't trust my memory for this.",
    "What matters is what stands in the documents, not what I believe.",
    "Some of them may have nothing to do with it.",
    "If one sentence settles it, the others needn't be read twice.",
    "It may be said only once, near the end.",
    "A value that looks right can belong to another entry.",
    "So I compare the names letter by letter.",
    "Numbers are easily mixed up, these above all.",
    "I go through them in order and stop where it is said.",
    "Perhaps there is more than one place that says so.",
    "Once I have the place, the rest follows.",
)


def with_working(example: TrainingExample, rng: random.Random) -> TrainingExample:
    """Returns an example whose thinking begins with one to sixteen sentences of working.

    Few sentences are as likely as many (log-uniform). Half of the time the quote follows on them
    directly, without the words that led to it, unless these work out what is to be quoted. An
    example that quotes nothing stays as it is.
    """
    if not example.evidence or example.working:
        return example
    count = round(MOST_SENTENCES ** rng.random())
    sentences = rng.choice(_KINDS)(rng, example.question, count)
    thinking = example.thinking
    if rng.random() < 0.5 and example.task not in _WORKED_OUT:
        first = next(n for n, part in enumerate(thinking) if isinstance(part, Quote))
        thinking = thinking[first:]
    words = rng.choice((" ", "\n")).join(sentences) + rng.choice((" ", "\n"))
    return replace(example, thinking=thinking, working=words, task=example.task + BEHIND)


def _sums(rng: random.Random, _: str, count: int) -> list[str]:
    """Sums, each going on with the result of the one before."""
    total = rng.randint(2, 99)
    sentences: list[str] = []
    for _number in range(count):
        operator, operand = rng.choice("+-*"), rng.randint(2, 12)
        before = total
        total = {"+": total + operand, "-": total - operand, "*": total * operand}[operator]
        joint = rng.choice(_JOINTS) if sentences else _JOINTS[0]
        sentences.append(joint.format(f"{before} {operator} {operand} = {total}"))
        total = total if abs(total) < 10_000 else rng.randint(2, 99)
    return sentences


def _equations(rng: random.Random, question: str, count: int) -> list[str]:
    """Equations, solved; the last one for a number of the question, where it has one."""
    named = _WHOLE.findall(question)
    solution = int(named[-1]) if named else rng.randint(-100, 99)
    sentences: list[str] = []
    while len(sentences) < count:
        problem, steps = equation(rng, solution)
        sentences = [f"Take {problem}.", *(_ended(step) for step in steps), *sentences]
        solution = rng.randint(-100, 99)
    return sentences[-count:]


def _ended(step: str) -> str:
    return step if step.endswith(".") else f"{step}."


def _plan(rng: random.Random, _: str, count: int) -> list[str]:
    """Thoughts on how to go about it, as they stand."""
    return [_PLAN[n] for n in sorted(rng.sample(range(len(_PLAN)), count))]


_KINDS: tuple[Callable[[random.Random, str, int], list[str]], ...] = (_sums, _equations, _plan)
