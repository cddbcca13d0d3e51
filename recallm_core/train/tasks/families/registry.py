"""All families by name, and how a problem of one is drawn."""

from __future__ import annotations

import random
from collections.abc import Mapping

from recallm_core.errors import RecallmError
from recallm_core.train.tasks.families import (
    aggregation,
    citation_qa,
    in_context_learning,
    long_document_qa,
    multi_hop_qa,
    reasoning_retrieval,
    recall,
    reranking,
    short_context_math,
    single_hop_qa,
)
from recallm_core.train.tasks.families.problem import Family, Problem
from recallm_core.train.tasks.families.sources import Sources

FAMILIES: Mapping[str, Family] = {
    module.FAMILY.name: module.FAMILY
    for module in (
        recall,
        reasoning_retrieval,
        short_context_math,
        in_context_learning,
        long_document_qa,
        aggregation,
        reranking,
        citation_qa,
        multi_hop_qa,
        single_hop_qa,
    )
}
_TRIES = 200


def family(name: str) -> Family:
    """Returns a family by its name.

    Raises:
        RecallmError: There is none of that name.
    """
    if name not in FAMILIES:
        raise RecallmError(f"no family is called {name!r}; there are {', '.join(sorted(FAMILIES))}")
    return FAMILIES[name]


def available(drawn: Family, sources: Sources) -> list[str]:
    """Returns the sets of a family whose files are there."""
    needs = dict(drawn.needs)
    return [name for name, _, _ in drawn.kinds if sources.has(needs.get(name, ()))]


def draw_problem(name: str, rng: random.Random, sources: Sources, size: int) -> Problem:
    """Returns a problem of a family, of about ``size`` characters.

    Raises:
        RecallmError: The data folder lacks what the family reads.
    """
    drawn = family(name)
    names = available(drawn, sources)
    if not names:
        files = sorted({file for _, files in drawn.needs for file in files})
        raise RecallmError(
            f"the family {name!r} reads {', '.join(files)} (.jsonl.gz) and {sources.folder} lacks "
            "some of them; set RECALLM_DATA to the folder that has them, or leave the family out"
        )
    kinds = [(share, draw) for kind, share, draw in drawn.kinds if kind in names]
    for _ in range(_TRIES):
        _, draw = rng.choices(kinds, [share for share, _ in kinds])[0]
        problem = draw(rng, sources, size)
        if problem is not None:
            return problem
    raise RecallmError(f"the family {name!r} gave no problem of {size:,} characters in {_TRIES}")
