"""What the tasks of this folder call: their rows, and how an answer is judged."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from recallm_core.evaluation.harness import samples


def dataset(**settings: Any) -> dict[str, Any]:
    """Returns the rows of a task; ``--metadata`` gives tokenizer, lengths, number and seed."""
    from datasets import Dataset
    from datasets.table import InMemoryTable

    model = settings.get("tokenizer") or settings.get("pretrained") or settings.get("model")
    rows = samples.rows(
        settings["ruler_task"],
        tokenizer=str(model),
        lengths=settings.get("max_seq_lengths", (4096,)),
        n=settings.get("n", 100),
        seed=settings.get("seed", 0),
        haystack=settings.get("haystack"),
    )
    name = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
    return {"test": Dataset(InMemoryTable.from_pylist(rows), fingerprint=name)}


def judge(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Returns RULER's score of an answer, and its precision."""
    return samples.judge(doc, results[0])
