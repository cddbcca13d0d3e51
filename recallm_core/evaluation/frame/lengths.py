"""Lengths by the model's own tokenizer: contexts that fill a number of tokens, and no more."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import Protocol

from recallm_core.errors import RecallmError
from recallm_core.evaluation.frame.sample import Sample
from recallm_core.generator import RecaLLM
from recallm_core.prompting.builder import PromptBuilder
from recallm_core.prompting.params import GenerationParams

ENOUGH = 0.985  # of the length: the search ends here
LEAST = 0.95  # of the length: below it, a row isn't of that length
_TRIES = 24
_UNITS = {"": 1, "k": 1024, "m": 1024 * 1024}
_BARE = GenerationParams(recall_in="thinking+answer", prior="none")


class LengthError(RecallmError):
    """A task can't be as long, or as short, as it was asked for."""


def parse_lengths(text: str) -> tuple[int, ...]:
    """Reads lengths between commas: ``1k,4k`` or ``1024,4096``."""
    return tuple(dict.fromkeys(_parse(part) for part in text.split(",")))


def _parse(text: str) -> int:
    match = re.fullmatch(r"\s*(\d+)\s*([km]?)\s*", text.casefold())
    if match is None or int(match.group(1)) < 1:
        raise argparse.ArgumentTypeError(f"must be lengths such as 1k,4k or 2048, got {text!r}")
    return int(match.group(1)) * _UNITS[match.group(2)]


def shown_length(tokens: int) -> str:
    """Returns a length as people write it: ``4K``, ``1,500``."""
    return f"{tokens // 1024}K" if tokens % 1024 == 0 else f"{tokens:,}"


class Meter:
    """Counts what a sample takes of a model's context length.

    Args:
        llm: The model.
        thought: Tokens for reasoning and evidence that come on top of a sample's length.
    """

    def __init__(self, llm: RecaLLM, thought: int = 0) -> None:
        self.context_length = llm.backend.window
        self._thought = thought
        self._builder = PromptBuilder(llm.tokenizer, llm.recipe, vocab_size=llm.backend.vocab_size)

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return self._builder.count(text)

    def tokens(self, sample: Sample) -> int:
        """Tokens of prompt and answer, an upper bound by a few tokens a document."""
        builder = self._builder
        empty = builder.build(sample.turns(), (), _BARE)
        shown = sum(
            builder.count(document.text)
            + builder.overhead(document.title, len(sample.documents), document.id)
            for document in sample.documents
        )
        begun = builder.count(sample.reasoning) if sample.reasoning else 0
        return len(empty.token_ids) + shown + begun + sample.budget

    def room(self, length: int) -> int:
        """Tokens that a sample of a length may take: thought has to fit the context, too."""
        return min(length, self.context_length - self._thought)

    def check(self, lengths: Sequence[int]) -> None:
        """Refuses what the model can't read, before anything runs.

        Raises:
            LengthError: A length is above the model's context length.
        """
        above = [shown_length(length) for length in lengths if length > self.context_length]
        tight = [shown_length(length) for length in lengths if self.room(length) < LEAST * length]
        if above:
            raise LengthError(
                f"lengths {', '.join(above)} are above the model's context length of "
                f"{self.context_length:,} tokens; ask for shorter ones"
            )
        if tight:
            raise LengthError(
                f"at {', '.join(tight)} the context of {self.context_length:,} tokens has no room "
                f"for {self._thought} tokens of thought; give a smaller --thought, or "
                "shorter lengths"
            )


class Counts(Protocol):
    """What a fitter asks of a meter."""

    def tokens(self, sample: Sample) -> int:
        """Tokens of prompt and answer."""

    def room(self, length: int) -> int:
        """Tokens that a sample of a length may take."""


class Fitter:
    """Makes samples as long as asked for; where the last search ended, the next one begins."""

    def __init__(self, meter: Counts) -> None:
        self._meter = meter
        self._size = 0

    def whole(self, sample: Sample) -> Sample:
        """Returns a sample whose length is given, if it can be read whole.

        Raises:
            LengthError: It is longer than the model's context.
        """
        used = self._meter.tokens(sample)
        if used > self._meter.room(used):
            raise LengthError(
                f"a sample takes {used:,} tokens, more than the model's context length"
            )
        return sample

    def largest_fitting(self, make: Callable[[int], Sample], length: int) -> Sample:
        """Returns the sample of the size that fills a length best.

        Args:
            make: Makes a sample of a size: sentences, pairs or words.
            length: Tokens of prompt and answer.

        Raises:
            LengthError: Even the smallest sample is longer.
        """
        room = self._meter.room(length)
        low, high = 0, 0  # sizes that fit, and that don't; 0: none is known
        size = self._size or max(1, room // 25)
        best: Sample | None = None
        for _ in range(_TRIES):
            sample = make(size)
            used = self._meter.tokens(sample)
            if used <= room:
                low, best = size, sample
            else:
                high = size
            if (best is sample and used >= ENOUGH * room) or high == low + 1:
                break
            size = _next(size * room / max(1, used), low, high)
        if best is None:
            raise LengthError(
                f"a sample takes {used:,} tokens at least, and {length:,} were asked for"
            )
        self._size = low
        return best


def _next(estimate: float, low: int, high: int) -> int:
    """The next size to try: where it ought to be, but always between what is known."""
    if not high:
        return max(low + 1, int(estimate))
    middle = (low + high) // 2
    size = int(estimate) if low < estimate < high else middle
    return max(low + 1, min(size, high - 1))
