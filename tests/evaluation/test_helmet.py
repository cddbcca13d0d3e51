from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from recallm_core import Document, RecaLLM, cli
from recallm_core.evaluation.datasets import MissingDataError
from recallm_core.evaluation.frame.lengths import Meter
from recallm_core.evaluation.frame.records import CitationRecord
from recallm_core.evaluation.frame.sample import Sample
from recallm_core.evaluation.helmet.places import Place
from recallm_core.evaluation.helmet.scores import answer_scores, ndcg, normal, ranking
from recallm_core.evaluation.helmet.tasks import TASKS, released_questions, samples
from recallm_core.testing import scripted_llm
from tests.evaluation.long_contexts import data_folder, record

LENGTH = 6000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_folder(tmp_path_factory.mktemp("data"))


@cache
def meter() -> Meter:
    return Meter(scripted_llm(""))


def made(name: str, folder: Path, n: int = 2, seed: int = 0) -> list[Sample]:
    place = Place(folder)
    return samples(TASKS[name], LENGTH, n, seed=seed, meter=meter(), place=place)


def right(sample: Sample) -> str:
    """An answer that has everything that is asked for."""
    if TASKS[sample.task].metric == "ranking":
        grades = sample.facts["grades"]
        return " > ".join(f"ID{n}" for n in sorted(grades, key=grades.get, reverse=True))
    return " and ".join(sample.answers)


def cited(sample: Sample) -> tuple[CitationRecord, ...]:
    """The quotes that people chose."""
    texts = {document.id: document.text for document in sample.documents}
    quotes = [
        (name, texts[name].index(text), text) for name, text in sample.facts.get("quotes", ())
    ]
    return tuple(CitationRecord(name, at, at + len(text), text) for name, at, text in quotes)


@pytest.mark.parametrize("name", [name for name in TASKS if name != "handbook"])
def test_the_oracle_of_each_task(name: str, folder: Path) -> None:
    first, second = made(name, folder)
    assert [first, second] == made(name, folder)
    for sample in (first, second):
        if not sample.answers:
            assert answer_scores(sample, record("x"))["score"] == 0
            assert answer_scores(sample, record("They don't say.", abstained=True))["score"] == 1
            continue
        assert answer_scores(sample, record(right(sample), citations=cited(sample)))["score"] == 1
        assert answer_scores(sample, record(""))["score"] == 0
        if sample.length:
            assert meter().tokens(sample) <= LENGTH


def test_quoting_everything_is_told_by_precision(folder: Path) -> None:
    (sample,) = made("quotesum", folder, 1)
    everything = tuple(CitationRecord(d.id, 0, len(d.text), d.text) for d in sample.documents)
    figures = answer_scores(sample, record(right(sample), citations=everything))
    assert figures["quote_recall"] == 1
    assert figures["quote_precision"] < 0.2
    exact = answer_scores(sample, record(right(sample), citations=cited(sample)))
    assert (exact["quote_recall"], exact["quote_precision"]) == (1, 1)


def test_keys_stand_at_six_depths_and_shots_are_other_pairs(folder: Path) -> None:
    several = made("json_kv", folder, 6)
    assert [sample.facts["depth"] for sample in several] == [0, 20, 40, 60, 80, 100]
    sample = several[0]
    pairs = json.loads(sample.documents[0].text)
    assert [pairs[question.split('"')[1]] for question, _ in sample.shots] == [
        value for _, value in sample.shots
    ]
    assert sample.answers[0] not in {value for _, value in sample.shots}


def test_labels_are_permuted_for_each_text_and_shots_are_of_the_training_split(
    folder: Path,
) -> None:
    first, second = made("banking77", folder)
    assert first.question.rpartition(": ")[2] not in first.documents[0].text
    assert first.documents[0].text != second.documents[0].text
    assert answer_scores(first, record(f"label: {first.answers[0]}"))["score"] == 1
    assert answer_scores(first, record("0 1 2"))["score"] == float(first.answers[0] == "0")


def test_rankings_by_hand() -> None:
    assert ranking("Best: ID3 > ID1 > [ID: 2]; or 9 > 8") == ["3", "1", "2"]
    assert ranking("none") == []
    assert ranking("1 > 1 > 2") == ["1", "2"]
    grades = {"1": 0, "2": 2, "3": 1}
    assert ndcg(["2", "3", "1"], grades) == 1
    assert ndcg(["3", "2"], grades) == pytest.approx((1 + 2 / 1.5849625) / (2 + 1 / 1.5849625))
    assert ndcg(["9"], grades) == 0


def test_texts_are_compared_in_their_normal_form() -> None:
    assert normal("The U.S.  Army, a force") == "us army force"
    sample = Sample("a", (Document("x"),), "?", ("The U.S. Army",), group="nq")
    assert answer_scores(sample, record("It was the US army."))["score"] == 1
    unnameable = Sample("a", (Document("x"),), "?", ("the",), group="nq")
    assert answer_scores(unnameable, record("anything"))["score"] == 0


def test_released_files_are_read_and_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="HELMET's data isn't there"):
        released_questions(tmp_path)
    kilt = tmp_path / "kilt"
    kilt.mkdir()
    passages = [{"title": "T", "text": "one"}, {"title": "U", "text": "two"}]
    row = {"question": "Q?", "answers": ["one"], "ctxs": passages}
    (kilt / "nq.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    released_questions.cache_clear()
    (asked,) = released_questions(tmp_path)
    assert (asked.own, asked.near) == ((("T", "one"),), (("U", "two"),))
    (kilt / "bad.jsonl").write_text('{"question": 1}\n', "utf-8")
    released_questions.cache_clear()
    with pytest.raises(MissingDataError, match=r"bad.jsonl: expected lines with question"):
        released_questions(tmp_path)


def test_a_run_leaves_a_report(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RecaLLM, "load", lambda model, **options: scripted_llm("</think>1 > 2"))
    out = tmp_path / "run"
    words = [
        "eval",
        "helmet",
        "--lengths",
        "5k",
        "--n",
        "1",
        "--out",
        str(out),
        "--data",
        str(folder),
    ]
    words += ["--tasks", "json_kv,nq,rerank_squad,clapnq", "--thought", "10"]
    assert cli.main(words) == 0
    report = (out / "report.md").read_text("utf-8")
    assert "HELMET-style (rebuilt)" in report
    assert "How this was rebuilt" in report
    assert (out / "helmet.png").is_file()
