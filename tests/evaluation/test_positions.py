from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recallm_core import Document, RecaLLM, cli
from recallm_core.evaluation.frame.lengths import LengthError, Meter
from recallm_core.evaluation.frame.records import CitationRecord
from recallm_core.evaluation.frame.sample import Sample
from recallm_core.evaluation.positions.items import (
    CLOSED,
    ORACLE,
    controls,
    places,
    questions,
    samples,
)
from recallm_core.evaluation.positions.report import (
    curve,
    dip,
    dip_difference,
    dip_of,
    slope,
    slope_of,
)
from recallm_core.evaluation.positions.scores import answer_scores
from recallm_core.testing import scripted_llm
from tests.evaluation.long_contexts import data_folder, record


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_folder(tmp_path_factory.mktemp("data"))


@cache
def meter() -> Meter:
    return Meter(scripted_llm(""))


def test_places_are_the_published_ones_else_even() -> None:
    assert places(20) == (0, 4, 9, 14, 19)
    assert places(41) == (0, 10, 20, 30, 40)
    assert places(3) == (0, 1, 2)


@pytest.mark.parametrize("documents", [10, 35])
def test_the_gold_passage_stands_where_it_is_put_and_only_it_answers(
    documents: int, folder: Path
) -> None:
    rows = questions(folder, 3, 0)
    assert rows == questions(folder, 3, 0)
    for position in places(documents):
        made = samples(rows, documents, position, folder=folder, meter=meter())
        for sample in made:
            assert len(sample.documents) == documents
            holding = [n for n, d in enumerate(sample.documents) if sample.answers[0] in d.text]
            assert holding == [position] == [sample.gold]
            assert len({d.text for d in sample.documents}) == documents
    others = [
        [d.text for d in s.documents if d.id != s.gold_id]
        for position in (0, documents - 1)
        for s in samples(rows, documents, position, folder=folder, meter=meter())
    ]
    assert others[: len(rows)] == others[len(rows) :]  # the same distractors, in the same order


def test_a_prompt_above_the_context_length_is_refused(folder: Path) -> None:
    small = Meter(scripted_llm("", window=3000))
    with pytest.raises(LengthError, match="context length of 3,000"):
        samples(questions(folder, 1, 0), 10, 0, folder=folder, meter=small)


def test_controls_have_the_gold_passage_alone_or_nothing(folder: Path) -> None:
    rows = questions(folder, 2, 0)
    assert [len(sample.documents) for sample in controls(rows, ORACLE)] == [1, 1]
    assert [len(sample.documents) for sample in controls(rows, CLOSED)] == [0, 0]


def test_answers_and_quotes_are_judged_apart() -> None:
    gold, other = Document("Ada was keeper.", "p0"), Document("Ada sang.", "p1")
    sample = Sample("a", (gold, other), "Who?", ("Ada",), 0)
    right = answer_scores(
        sample, record("Ada\nor Bea", citations=(CitationRecord("p0", 0, 3, "Ada"),))
    )
    assert (right["score"], right["cites_gold"], right["hit"], right["em"]) == (1, 1, 1, 1)
    elsewhere = answer_scores(
        sample, record("Bea\nAda", citations=(CitationRecord("p1", 0, 3, "Ada"),))
    )
    assert (elsewhere["score"], elsewhere["text"], elsewhere["cites_gold"]) == (0, 1, 0)
    false = answer_scores(sample, record("Ada", citations=(CitationRecord("p0", 0, 3, "Bea"),)))
    assert (false["hit"], false["wrong_slices"]) == (0, 1)
    nothing = answer_scores(sample, record(""))
    assert nothing["score"] == nothing["text"] == nothing["hit"] == 0


def rows_of(scores: list[list[float]], way: str = "plain") -> list[dict[str, Any]]:
    return [
        {
            "suite": "positions",
            "condition": way,
            "id": f"{question}-{position}",
            "task": "3 documents",
            "facts": {"question": str(question), "position": position, "documents": 3},
            "scores": {"score": score},
        }
        for question, line in enumerate(scores)
        for position, score in enumerate(line)
    ]


def test_dip_and_slope_by_hand() -> None:
    assert dip_of(np.array([0.8, 0.2, 0.6])) == pytest.approx(0.5)
    assert slope_of(np.array([0.0, 0.5, 1.0]), (0, 1, 2)) == pytest.approx(1)
    line = curve(rows_of([[1, 0, 1]] * 6 + [[1, 1, 1]] * 2))
    assert line is not None
    depth = dip(line)
    assert depth.mean == pytest.approx(0.75)
    assert depth.low < 0.75 < depth.high
    assert slope(line).mean == pytest.approx(0)
    incomplete = curve([*rows_of([[1, 0, 1]]), rows_of([[1, 1, 1], [1, 1, 1]])[3]])
    assert incomplete is not None
    assert len(incomplete.scores) == 1


def test_whether_a_dip_is_less_is_told_with_its_p() -> None:
    deep, flat = rows_of([[1, 0, 1]] * 10), rows_of([[1, 1, 1]] * 10, "recall")
    result = dip_difference(deep, flat)
    assert result is not None
    assert result[0].mean == 1
    assert result[1] == 0
    same = dip_difference(deep, rows_of([[1, 0, 1]] * 10, "recall"))
    assert same is not None
    assert (same[0].mean, same[1]) == (0, 1)


def test_a_run_leaves_a_report(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "<|start_recall|>The keeper was<|end_recall|></think>The keeper was Ada1."
    monkeypatch.setattr(RecaLLM, "load", lambda model, **options: scripted_llm(script))
    out = tmp_path / "run"
    words = ["eval", "positions", "--documents", "4", "--n", "2", "--thought", "30"]
    assert cli.main([*words, "--out", str(out), "--data", str(folder)]) == 0
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text("utf-8").splitlines()]
    tasks = {(row["task"], row["condition"]) for row in rows}
    assert (CLOSED, "recall") not in tasks
    assert (CLOSED, "without us") in tasks
    assert ("4 documents", "recall without mask") in tasks
    report = (out / "report.md").read_text("utf-8")
    assert "dip that is less" in report
    assert (out / "positions.png").is_file()
