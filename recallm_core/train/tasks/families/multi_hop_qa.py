"""Several hops: the answer follows from two or more passages together."""

from __future__ import annotations

import random
from typing import Any

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

_SCORING = Scoring("all", 0.4, free_spans=4, least_characters=7)


def _hotpot(rng: random.Random, sources: Sources, size: int) -> Problem | None:
    row = sources.draw("hotpotqa_train_sample", rng)
    passages = [(p["title"], "".join(p["sentences"]).strip()) for p in row["paragraphs"]]
    gold = [bool(p["gold"]) for p in row["paragraphs"]]
    return _problem(rng, sources, size, row, "hotpotqa", passages, gold)


def _musique(rng: random.Random, sources: Sources, size: int) -> Problem | None:
    row = sources.draw("musique_train_sample", rng)
    passages = [(p["title"], p["text"].strip()) for p in row["paragraphs"]]
    gold = [bool(p["supporting"]) for p in row["paragraphs"]]
    return _problem(rng, sources, size, row, "musique", passages, gold)


def _problem(
    rng: random.Random,
    sources: Sources,
    size: int,
    row: dict[str, Any],
    kind: str,
    passages: list[Passage],
    gold: list[bool],
) -> Problem | None:
    right = [p for p, is_gold in zip(passages, gold, strict=True) if is_gold and p[1]]
    near = [p for p, is_gold in zip(passages, gold, strict=True) if not is_gold and p[1]]
    if not right or sources.check.leaks(row["question"], [text for _, text in passages]):
        return None
    rng.shuffle(near)
    room = size - sum(len(text) for _, text in right)
    others = []
    for passage in near:
        if len(passage[1]) < room:
            others.append(passage)
            room -= len(passage[1])
    others += sources.distractors(rng, room, (row["answer"],))
    shown, places = shuffle_passages(rng, right, others)
    golds = tuple(Gold(Quote(places[n], 0, len(text))) for n, (_, text) in enumerate(right))
    key = Key("words", ((row["answer"], *row.get("aliases", ())),))
    return Problem("multi_hop_qa", kind, shown, row["question"], key, golds, _SCORING)


def _two_hop(rng: random.Random, _: Sources, size: int) -> Problem:
    lesson = facts.two_hop(rng, size=size, chains=rng.randint(3, 6))
    return from_lesson(lesson, "multi_hop_qa", Key("words", ((str(lesson.answer),),)), _SCORING)


_CHECKED = ("nq_multidoc_eval", "hotpotqa_dev", "quotesum_dev", "clapnq_dev")

FAMILY = Family(
    name="multi_hop_qa",
    what="questions whose answer follows from several passages",
    kinds=(("hotpotqa", 0.25, _hotpot), ("musique", 0.15, _musique), ("two_hop", 0.6, _two_hop)),
    needs=(
        ("hotpotqa", ("hotpotqa_train_sample", *_CHECKED)),
        ("musique", ("musique_train_sample", *_CHECKED)),
    ),
    stand_in="small samples of HotpotQA and MuSiQue, and made-up chains for 2WikiMultihopQA",
)
