"""No source of examples shares a question, or twelve words in a row, with evaluation rows."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from recallm_core.train.tasks.curriculum import FROM_DATA, FROM_TEXT, GENERATED, Curriculum
from recallm_core.train.tasks.datasets import TRAINING_FILES, LeakCheck, data_folder, read_pool
from recallm_core.train.tasks.training_example import TrainingExample

EVALUATION = ("nq_multidoc_eval", "hotpotqa_dev", "quotesum_dev", "clapnq_dev")
SOURCES = (*GENERATED, *FROM_TEXT, *FROM_DATA)
SECRET = "one two three four five six seven eight nine ten eleven twelve thirteen"


def leaking(example: TrainingExample, check: LeakCheck) -> bool:
    return check.leaks(example.question, [text for _, text in example.passages])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_source_shares_anything_with_the_real_evaluation_rows() -> None:
    folder = data_folder()
    if not (folder / "squad2.jsonl.gz").is_file():
        pytest.skip("no data folder; set RECALLM_DATA")
    pool, check = read_pool(folder), LeakCheck(folder)
    for name in SOURCES:
        source = Curriculum({name: 1.0}, pool=pool)
        for seed in range(150):
            example = source.draw(random.Random(seed), 2500)
            assert not leaking(example, check), (name, example.question)


def write(folder: Path, name: str, *rows: dict[str, Any]) -> None:
    with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (*TRAINING_FILES, *EVALUATION):
        write(tmp_path, name)
    write(tmp_path, "nq_multidoc_eval", {"question": "Who won?", "gold": {"text": SECRET}})
    names = [a + b for a in ("Ann", "Bob", "Cleo", "Dirk") for b in ("berg", "man", "son", "ley")]
    said = [
        f"{n} Stone won the long race in Oslo on 3 May {1900 + i}." for i, n in enumerate(names)
    ]
    facts = [
        {"context": f"{s} It rained.", "question": f"Which race did {n} win?", "answer": "race"}
        | {"start": s.index("race")}
        for n, s in zip(names, said, strict=True)
    ]
    leaked = [
        {"context": f"So: {SECRET}.", "question": "How many?", "answer": "one", "start": 4},
        {"context": "Ann won.", "question": "Who WON", "answer": "Ann", "start": 0},
    ]
    write(tmp_path, "squad1_train_sample", *facts, *leaked)
    texts = [
        {"title": n, "text": f"{s} {said[0]} {n} lives by the sea."}
        for n, s in zip(names, said, strict=True)
    ]
    write(tmp_path, "wiki_passages", *texts, {"title": "x", "text": f"{SECRET}. " * 3})
    missing = {"question": "Who swam?", "impossible": True, "answers": []}
    write(tmp_path, "squad2", {"title": "Race", "context": said[1], "qas": [missing]})
    return tmp_path


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "hops"])
def test_what_evaluation_uses_reaches_no_example(folder: Path, name: str) -> None:
    check = LeakCheck(folder)
    source = Curriculum({name: 1.0}, pool=read_pool(folder))
    for seed in range(40):
        example = source.draw(random.Random(seed), 600)
        assert not leaking(example, check)
    assert check.leaks("who won", [])
    assert check.leaks("", [f"and {SECRET}"])
