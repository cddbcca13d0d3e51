"""Re-ranking: passages with ids, to be put in order of their use for a question."""

from __future__ import annotations

import random

from recallm_core.train.tasks.families.problem import Family, Gold, Key, Passage, Problem, Scoring
from recallm_core.train.tasks.families.sources import Sources, shuffle_passages
from recallm_core.train.tasks.training_example import Quote

_LAYOUTS = ("[ID: {id}] ", "ID: {id}\n", "Passage {id}: ")
_SCORING = Scoring("top", 0.7, top=2, free_spans=4)
_LONGEST = 900  # characters of one candidate: a span has to be able to show it


def _squad(rng: random.Random, sources: Sources, size: int) -> Problem | None:
    rows = sources.rows("squad2")
    number = rng.randrange(len(rows))
    row = rows[number]
    answerable = [qa for qa in row["qas"] if not qa["impossible"]]
    if not answerable or len(row["context"]) > _LONGEST:
        return None
    qa = rng.choice(answerable)
    answer = min((a["text"] for a in qa["answers"]), key=len)
    if sources.leaks(qa["question"], [row["context"]]):
        return None
    related = _texts(rng, sources, [r for r in rows if r["title"] == row["title"]], answer, 3)
    room = size - sum(map(len, (row["context"], *related)))
    strangers = [r for r in rows if r["title"] != row["title"]]
    others = _texts(rng, sources, strangers, answer, max(3, room // 700))
    grades = [2.0] + [1.0] * len(related) + [0.0] * len(others)
    texts = [row["context"], *related, *others]
    ids = [str(n) for n in rng.sample(range(1, 10 * len(texts)), len(texts))]
    return _problem(rng, qa["question"], list(zip(ids, texts, grades, strict=True)))


def _texts(
    rng: random.Random, sources: Sources, rows: list[dict[str, str]], answer: str, count: int
) -> list[str]:
    """Some paragraphs without the answer."""
    sample = [row["context"] for row in rng.sample(rows, min(len(rows), 2 * count))]
    usable = [
        text
        for text in sample
        if answer not in text and len(text) <= _LONGEST and not sources.leaks("", [text])
    ]
    return usable[:count]


def _problem(
    rng: random.Random, question: str, candidates: list[tuple[str, str, float]]
) -> Problem:
    layout = rng.choice(_LAYOUTS)
    shown: list[Passage] = [("", layout.replace("{id}", i) + text) for i, text, _ in candidates]
    passages, places = shuffle_passages(rng, shown, ())
    golds = []
    for number, (i, _, grade) in enumerate(candidates):
        if grade:
            label = layout.replace("{id}", i).strip()
            place = Quote(places[number], 0, len(shown[number][1]))
            golds.append(Gold(place, Quote(places[number], 0, len(label))))
    best = "ten best" if len(candidates) > 10 else f"{len(candidates)}"
    wording = (
        f"{question}\n\nRank the passages by how much they help to answer this, best first. "
        f"Answer with the {best} ids, as in: 12 > 7 > 3."
    )
    key = Key("ranking", grades=tuple((i, grade) for i, _, grade in candidates))
    return Problem("reranking", "squad", passages, wording, key, tuple(golds), _SCORING)


FAMILY = Family(
    name="reranking",
    what="passages with ids, to be ranked by their use for a question",
    kinds=(("squad", 1.0, _squad),),
    needs=(
        ("squad", ("squad2", "nq_multidoc_eval", "hotpotqa_dev", "quotesum_dev", "clapnq_dev")),
    ),
    stand_in="SQuAD, graded by paragraph and article; the paper takes MS MARCO",
)
