"""One hop: a question that one passage answers, among others."""

from __future__ import annotations

import random
from collections.abc import Sequence

from recallm_core.train.tasks import facts
from recallm_core.train.tasks.families.problem import (
    Family,
    Gold,
    Key,
    Passage,
    Problem,
    Scoring,
    from_lesson,
)
from recallm_core.train.tasks.families.sources import Sources, shuffle_passages
from recallm_core.train.tasks.training_example import Quote

_SCORING = Scoring("top", 0.4, top=1, free_spans=2, least_characters=7)


def _questions(rng: random.Random, sources: Sources, size: int) -> Problem | None:
    row = sources.draw("nq_oracle_train", rng)
    passage = (row["gold"]["title"], row["gold"]["text"].strip())
    wordings = [a for a in row["answers"] if a in passage[1]]
    return _problem(rng, sources, size, "natural_questions", row["question"], passage, wordings)


def _squad(rng: random.Random, sources: Sources, size: int) -> Problem | None:
    row = sources.draw("squad1_train_sample", rng)
    passage = ("", row["context"].strip())
    return _problem(rng, sources, size, "squad", row["question"], passage, [row["answer"]])


def _problem(
    rng: random.Random,
    sources: Sources,
    size: int,
    kind: str,
    question: str,
    passage: Passage,
    wordings: Sequence[str],
) -> Problem | None:
    if not wordings or not passage[1] or sources.leaks(question, passage[1:]):
        return None
    others = sources.distractors(rng, size - len(passage[1]), wordings)
    shown, places = shuffle_passages(rng, [passage], others)
    golds = (Gold(Quote(places[0], 0, len(passage[1]))),)
    key = Key("words", (tuple(wordings),))
    return Problem("single_hop_qa", kind, shown, question, key, golds, _SCORING)


def _one_fact(rng: random.Random, _: Sources, size: int) -> Problem:
    lesson = facts.one_fact(rng, size=size)
    return from_lesson(lesson, "single_hop_qa", Key("words", ((str(lesson.answer),),)), _SCORING)


_CHECKED = ("nq_multidoc_eval", "hotpotqa_dev", "quotesum_dev", "clapnq_dev")

FAMILY = Family(
    name="single_hop_qa",
    what="questions that one passage answers",
    kinds=(
        ("natural_questions", 0.4, _questions),
        ("squad", 0.3, _squad),
        ("one_fact", 0.3, _one_fact),
    ),
    needs=(
        ("natural_questions", ("nq_oracle_train", *_CHECKED)),
        ("squad", ("squad1_train_sample", *_CHECKED)),
    ),
    stand_in="SQuAD and made-up pages where the paper takes TriviaQA",
)
