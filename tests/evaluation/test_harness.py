from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recallm_core.errors import RecallmError
from recallm_core.evaluation.harness import TASKS as FOLDER
from recallm_core.evaluation.harness.samples import counter, documents_of, judge, rows
from recallm_core.evaluation.ruler.tasks import TASKS, Texts
from recallm_core.testing import scripted_llm
from tests.evaluation.long_contexts import data_folder


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = data_folder(tmp_path / "data")
    monkeypatch.setenv("RECALLM_DATA", str(folder))
    return folder


def test_there_is_a_file_for_every_task_and_one_for_all() -> None:
    files = {path.name: path.read_text("utf-8") for path in FOLDER.glob("recallm_ruler*.yaml")}
    for name in TASKS:
        text = files[f"recallm_ruler_{name}.yaml"]
        assert f"task: recallm_ruler_{name}\n" in text
        assert f"ruler_task: {name}\n" in text
        assert f"- recallm_ruler_{name}\n" in files["recallm_ruler.yaml"]
    assert len(files) == len(TASKS) + 1


@pytest.mark.usefixtures("data")
def test_the_budgets_of_the_files_are_those_of_the_samples(data: Path) -> None:
    import random

    for name, task in TASKS.items():
        text = (FOLDER / f"recallm_ruler_{name}.yaml").read_text("utf-8")
        (budget,) = re.findall(r"max_gen_toks: (\d+)", text)
        sample = task.make(random.Random(0), 30, 1024, Texts(data))
        assert int(budget) == sample.budget


@pytest.mark.usefixtures("data")
def test_rows_fill_their_length_and_are_judged_as_ruler_does() -> None:
    count = counter("recallm-mini")
    (first, second) = rows("niah_multikey_1", tokenizer="recallm-mini", lengths=(1024,), n=2)
    assert first != second
    for row in (first, second):
        assert 0.95 * 1024 <= count(row["input"]) + 128 <= 1024
        assert row["outputs"][0] in row["input"]
        documents = documents_of(row)
        assert documents is not None
        assert documents[0].text in row["input"]
        assert judge(row, f"It is {row['outputs'][0]}.") == {"score": 1.0, "precision": 1.0}
        assert judge(row, row["input"])["precision"] == 0.25
        assert judge(row, "") == {"score": 0.0, "precision": 0.0}
    assert documents_of({"input": "x"}) is None


def test_what_is_missing_is_named() -> None:
    with pytest.raises(RecallmError, match="no task 'x'; there are niah_single_1"):
        rows("x", tokenizer="recallm-mini")
    with pytest.raises(RecallmError, match="name a model's folder"):
        rows("vt", tokenizer="nowhere")


# in the harness itself


@pytest.fixture
def harness() -> Any:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness isn't installed")
    from recallm_core.evaluation.harness import model

    return model


def request(context: str, doc: Any = None, **settings: Any) -> Any:
    return SimpleNamespace(args=(context, settings), doc=doc)


@pytest.mark.usefixtures("data")
def test_a_row_of_ours_brings_its_documents(harness: Any) -> None:
    (row,) = rows("niah_single_1", tokenizer="recallm-mini", lengths=(1024,), n=1)
    script = "<|start_recall|>One of the special magic numbers<|end_recall|></think>It is 12."
    prompts: list[str] = []

    def said(prompt: str) -> str:
        prompts.append(prompt)
        return script

    lm = harness.RecallmLM(scripted_llm(said))
    (answer,) = lm.generate_until([request(row["input"], row, until=["."])])
    assert answer == "It is 12"
    assert row["input"] not in prompts[0]  # documents and question, apart


def test_of_other_tasks_the_whole_prompt_may_be_quoted(harness: Any) -> None:
    lm = harness.RecallmLM(scripted_llm("<|start_recall|>The sky<|end_recall|></think>The sky."))
    assert lm.generate_until([request("The sky is blue. What is blue?")]) == ["The sky."]
    with pytest.raises(NotImplementedError, match="generate_until"):
        lm.loglikelihood([])


def test_the_harness_runs_our_tasks(harness: Any, data: Path) -> None:
    pytest.importorskip("datasets", reason="lm-evaluation-harness isn't installed")
    import lm_eval
    from lm_eval.tasks import TaskManager

    result = lm_eval.simple_evaluate(
        model=harness.RecallmLM(scripted_llm("</think>It is 12.")),
        tasks=["recallm_ruler_niah_single_1"],
        task_manager=TaskManager(
            include_path=str(FOLDER),
            metadata={"tokenizer": "recallm-mini", "max_seq_lengths": [1024], "n": 2},
        ),
        bootstrap_iters=0,
    )
    assert result["results"]["recallm_ruler_niah_single_1"]["score,none"] == 0
