"""The scorers of evidence by name; another one is a module and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recallm_core.evidence.protocol import ScorerFactory


@dataclass(frozen=True, slots=True)
class Entry:
    """One scorer.

    Attributes:
        factory: Its ``ScorerFactory`` as ``module:name``; imported when it is first used.
        threshold: The field of a recipe with the least fit of an answer.
        full: What that field counts as a perfect fit.
    """

    factory: str
    threshold: str = "min_answerable"
    full: float = 1.0


SCORERS: Mapping[str, Entry] = {
    "sentences": Entry("recallm_core.evidence.sentence_bias:sentences", "min_support", full=2.0),
    "reader": Entry("recallm_core.evidence.reader_bias:reader"),
}

PRIORS = ("none", *SCORERS)
"""What a setting ``prior`` may be."""


def scorer_factory(name: str) -> ScorerFactory:
    """Returns what makes a scorer for passages.

    Args:
        name: One of ``SCORERS``.
    """
    module, _, attribute = SCORERS[name].factory.partition(":")
    factory: ScorerFactory = getattr(import_module(module), attribute)
    return factory


def least_fit(name: str, recipe: object) -> float:
    """Returns what a recipe asks of ``Evidence.fit``; 0: nothing.

    Args:
        name: The scorer; one that isn't known asks for nothing.
        recipe: Has the thresholds as attributes.
    """
    entry = SCORERS.get(name)
    return 0.0 if entry is None else getattr(recipe, entry.threshold) / entry.full
