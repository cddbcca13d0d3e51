"""Which example comes when: every example of a run follows from the seed and its number alone."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence

from recallm_core.errors import RecallmError
from recallm_core.train.tasks import facts, keyed, plain_text
from recallm_core.train.tasks.datasets import Pool
from recallm_core.train.tasks.tasks import SIZES, Mixture, Size
from recallm_core.train.tasks.training_example import Quote, Split, TrainingExample, from_example
from recallm_core.train.tasks.working import with_working

Passage = tuple[str, str]
Make = Callable[[random.Random, int], TrainingExample | None]

GENERATED: Mapping[str, Callable[..., TrainingExample]] = {
    "one_fact": facts.one_fact,
    "two_hop": facts.two_hop,
    "absent": facts.absent,
    "key_value": keyed.key_value,
    "multi_needle": keyed.multi_needle,
    "compute_then_retrieve": keyed.compute_then_retrieve,
}
FROM_TEXT: Mapping[str, Callable[..., TrainingExample | None]] = {
    "cloze": plain_text.cloze,
    "sentence_with": plain_text.sentence_with,
    "next_sentence": plain_text.next_sentence,
}
FROM_DATA = ("fact", "hops", "missing")
OWN = "own"
TASKS = (*GENERATED, *FROM_TEXT, *FROM_DATA, OWN)
_TRIES = 200


class Curriculum:
    """Draws examples of many kinds and lengths.

    Args:
        weights: Share of each task by name.
        pool: The data folder's questions and passages, for ``fact``, ``hops`` and ``missing``.
        texts: Plain passages for ``cloze``, ``sentence_with`` and ``next_sentence``; the pool's
            where there are none.
        examples: Training examples of the user's, for ``own``.
        split: Of the made-up documents.

    Raises:
        RecallmError: A task is unknown, or lacks its source.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        pool: Pool | None = None,
        texts: Sequence[Passage] = (),
        examples: Sequence[TrainingExample] = (),
        split: Split = "train",
    ) -> None:
        self._split = split
        self._pool = pool
        self._texts = tuple(texts) or (pool.passages if pool else ())
        self._examples = examples
        self._makers = {name: self._maker(name) for name, share in weights.items() if share > 0}
        if not self._makers:
            raise RecallmError(f"no task has a share above 0; known tasks are {sorted(TASKS)}")
        self._names = sorted(self._makers)
        self._shares = [weights[name] for name in self._names]

    def _maker(self, name: str) -> Make:
        if name in GENERATED:
            make = GENERATED[name]
            return lambda rng, size: make(rng, size=size, split=self._split)
        if name in FROM_TEXT:
            self._need(name, self._texts, "plain text: set data = true, or texts = [folders]")
            quoted = FROM_TEXT[name]
            return lambda rng, size: quoted(rng, self._texts, size=size)
        if name in FROM_DATA:
            self._need(name, self._pool, "the data folder: set data = true and RECALLM_DATA")
            mixture = Mixture(self._pool, {name: 1.0})
            return lambda rng, size: self._from_data(rng, size, mixture)
        if name == OWN:
            self._need(name, self._examples, "your own examples: set lessons = [JSON-lines files]")
            return lambda rng, size: rng.choice(self._examples)
        raise RecallmError(f"unknown task {name!r}; known are {sorted(TASKS)}")

    @staticmethod
    def _need(name: str, source: object, what: str) -> None:
        if not source:
            raise RecallmError(f"the task {name!r} needs {what}; or leave it out of [tasks]")

    def draw(self, rng: random.Random, size: int, *, is_worked: bool = False) -> TrainingExample:
        """Returns one example of about ``size`` characters.

        Args:
            rng: Decides which.
            size: Of its documents.
            is_worked: Whether working stands before its first quote; never in one of yours.

        Raises:
            RecallmError: No source gives an example.
        """
        for _ in range(_TRIES):
            name = rng.choices(self._names, self._shares)[0]
            example = self._makers[name](rng, size)
            if example is not None:
                return with_working(example, rng) if is_worked and name != OWN else example
        raise RecallmError(f"the tasks {self._names} gave no example in {_TRIES} tries")

    def _from_data(self, rng: random.Random, size: int, mixture: Mixture) -> TrainingExample:
        drawn = mixture.draw(rng, _nearest_size(size))
        return self._pad(from_example(drawn, seed=rng.randrange(100)), rng, size)

    def _pad(self, example: TrainingExample, rng: random.Random, size: int) -> TrainingExample:
        """Adds passages without the answer before and after, up to ``size`` characters."""
        room = size - sum(len(text) for _, text in example.passages)
        before: list[Passage] = []
        after: list[Passage] = []
        for _ in range(_TRIES):
            if room < 200 or example.answer is None or not self._texts:
                break
            title, text = rng.choice(self._texts)
            text = text[:room]
            if example.answer.casefold() not in text.casefold():
                rng.choice((before, after)).append((title, text))
                room -= len(text)
        return _move(example, before, after)


def _move(
    example: TrainingExample, before: Sequence[Passage], after: Sequence[Passage]
) -> TrainingExample:
    by = len(before)

    def shift(quote: Quote) -> Quote:
        return Quote(quote.passage + by, quote.start, quote.end)

    return TrainingExample(
        (*before, *example.passages, *after),
        example.question,
        tuple(p if isinstance(p, str) else shift(p) for p in example.thinking),
        example.answer,
        example.task,
        None if example.answer_at is None else shift(example.answer_at),
        example.reason,
    )


def _nearest_size(characters: int) -> Size:
    for name, top in (("tiny", 300), ("short", 900), ("paragraph", 3000), ("several", 9000)):
        if characters < top:
            return SIZES[name]
    return SIZES["long"]


def drawn_size(rng: random.Random, low: int, high: int) -> int:
    """Returns a length between two bounds, short ones as likely as long ones (log-uniform)."""
    return round(math.exp(rng.uniform(math.log(low), math.log(high))))
