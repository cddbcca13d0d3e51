"""Recall: one key, or several needles, among thousands of characters that look alike."""

from __future__ import annotations

import random

from recallm_core.train.tasks import keyed
from recallm_core.train.tasks.families.problem import Family, Key, Problem, Scoring, from_lesson
from recallm_core.train.tasks.families.sources import Sources

_ONE, _SEVERAL = Scoring(), Scoring(free_spans=6, least_characters=7)


def _retrieval(rng: random.Random, _: Sources, size: int) -> Problem:
    lesson = keyed.key_value(rng, size=size)
    return from_lesson(lesson, "recall", Key("values", ((str(lesson.answer),),)), _ONE)


def _needles(rng: random.Random, _: Sources, size: int) -> Problem:
    lesson = keyed.multi_needle(rng, size=size, needles=rng.randint(2, 6))
    values = tuple((value,) for value in str(lesson.answer).split(", "))
    return from_lesson(lesson, "recall", Key("values", values), _SEVERAL)


FAMILY = Family(
    name="recall",
    what="one key, or several, to look up among others",
    kinds=(("retrieval", 0.5, _retrieval), ("multi_needle", 0.5, _needles)),
)
