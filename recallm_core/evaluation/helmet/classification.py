"""Many-shot classification, HELMET's in-context learning: labels are numbers."""

from __future__ import annotations

import hashlib
import random
from functools import cache
from pathlib import Path
from typing import Any

from recallm_core.documents.document import Document
from recallm_core.evaluation.datasets import rows_of
from recallm_core.evaluation.frame.sample import Sample
from recallm_core.evaluation.helmet.places import Make, Place, Rows


def many_shot(name: str) -> Make:
    """Returns what makes samples of a data set of labelled texts."""

    def make(rng: random.Random, size: int, number: int, place: Place) -> Sample:
        train, test, labels = _classes(place.data, name)
        row = test[number % len(test)]
        label_rng = random.Random(hashlib.sha256(row["text"].encode()).hexdigest())
        numbers = label_rng.sample(range(len(labels)), len(labels))
        codes = dict(zip(labels, map(str, numbers), strict=True))
        shots = _balanced_sample(label_rng, train, max(size, 1))
        text = "\n\n".join(f"{shot['text']}\nlabel: {codes[shot['label']]}" for shot in shots)
        return Sample(
            id="",
            documents=(Document(text, "examples", "Examples"),),
            question=f"Which label, by the examples, has this text: {row['text']}",
            answers=(codes[row["label"]],),
            budget=20,
            facts={"shots": len(shots), "labels": len(labels)},
        )

    return make


@cache
def _classes(folder: Path, name: str) -> tuple[Rows, Rows, tuple[str, ...]]:
    """Training rows, test rows balanced over the labels, and the labels."""
    rows = list(rows_of(folder, name))
    train = [row for row in rows if row["split"] == "train"]
    tested: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["split"] == "test":
            tested.setdefault(row["label"], []).append(row)
    rng = random.Random(f"helmet:{name}")
    order = rng.sample(sorted(tested), len(tested))
    deepest = max(map(len, tested.values()), default=0)
    test = [tested[label][n] for n in range(deepest) for label in order if n < len(tested[label])]
    return train, test, tuple(sorted({row["label"] for row in rows}))


def _balanced_sample(rng: random.Random, rows: Rows, count: int) -> list[dict[str, Any]]:
    """As many rows of each label as possible, in random order."""
    by_label: dict[str, list[dict[str, Any]]] = {}
    for row in rng.sample(rows, len(rows)):
        by_label.setdefault(row["label"], []).append(row)
    order = rng.sample(sorted(by_label), len(by_label))
    rounds = range(max(map(len, by_label.values())))
    drawn = [by_label[label][n] for n in rounds for label in order if n < len(by_label[label])]
    return rng.sample(drawn[:count], min(count, len(drawn)))
