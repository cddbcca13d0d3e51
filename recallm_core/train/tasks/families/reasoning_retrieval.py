"""Reasoning, then retrieval: the key is the solution of a small problem.

This is where models that don't recall lose the value: a few lines of calculation are enough.
"""

from __future__ import annotations

import random
import re

from recallm_core.train.tasks import keyed
from recallm_core.train.tasks.families.problem import Family, Key, Problem, Scoring, from_lesson
from recallm_core.train.tasks.families.sources import Sources

_KEY = re.compile(r'"?(-?\d+)')


def _math_retrieval(rng: random.Random, _: Sources, size: int) -> Problem:
    lesson = keyed.compute_then_retrieve(rng, size=size)
    line = _KEY.match(lesson.text(lesson.evidence[0]))
    assert line is not None
    key = Key("solved", ((str(lesson.answer),),), partial=line[1])
    return from_lesson(lesson, "reasoning_retrieval", key, Scoring())


FAMILY = Family(
    name="reasoning_retrieval",
    what="an equation to solve; its solution is the key to look up",
    kinds=(("math_retrieval", 1.0, _math_retrieval),),
)
