from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from recallm_core.errors import RecallmError
from recallm_core.train.tasks.datasets import (
    TRAINING_FILES,
    LeakCheck,
    data_folder,
    read_pool,
    read_rows,
)

EVALUATION = ("nq_multidoc_eval", "hotpotqa_dev", "quotesum_dev", "clapnq_dev", "kv_retrieval")
SECRET = "one two three four five six seven eight nine ten eleven twelve thirteen"


def write(folder: Path, name: str, *rows: dict[str, Any]) -> None:
    with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (*TRAINING_FILES, *EVALUATION):
        write(tmp_path, name)
    write(tmp_path, "nq_multidoc_eval", {"question": "Who won?", "gold": {"text": SECRET}})
    facts = [
        {"context": f"Ann{n} won the race.", "question": q, "answer": f"Ann{n}", "start": 0}
        for n, q in enumerate(["who WON", "Who came first?", "Who ran?"])
    ]
    leaked = {"context": f"So: {SECRET}.", "question": "How many?", "answer": "one", "start": 4}
    write(tmp_path, "squad1_train_sample", *facts, leaked)
    write(tmp_path, "wiki_passages", {"title": "t", "text": SECRET}, {"title": "u", "text": "Ok."})
    return tmp_path


def test_what_evaluation_uses_is_dropped(folder: Path) -> None:
    pool = read_pool(folder)
    questions = {fact.question for fact in (*pool.facts, *pool.held_out)}
    assert questions == {"Who came first?", "Who ran?"}
    assert pool.passages == (("u", "Ok."),)
    assert pool.dropped == 3


def test_no_evaluation_file_is_read_for_training() -> None:
    assert not set(TRAINING_FILES) & set(EVALUATION)


def test_missing_data_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RecallmError, match="RECALLM_DATA"):
        list(read_rows(tmp_path, "squad2"))


@pytest.mark.slow
def test_the_real_pool_shares_nothing_with_evaluation() -> None:
    folder = data_folder()
    if not (folder / "squad2.jsonl.gz").is_file():
        pytest.skip("no data folder; set RECALLM_DATA")
    pool, check = read_pool(folder), LeakCheck(folder)
    for fact in (*pool.facts, *pool.missing, *pool.held_out):
        assert not check.leaks(fact.question, [fact.text])
        assert fact.start < 0 or fact.text[fact.start :].startswith(fact.answer)
    assert not any(check.leaks("", [text]) for _, text in pool.passages)
    held_out = {fact.text for fact in pool.held_out}
    assert not held_out & {fact.text for fact in pool.facts}
