from __future__ import annotations

import json
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from recallm_core import Document, RecaLLM, cli
from recallm_core.evaluation.frame.lengths import LEAST, Meter
from recallm_core.evaluation.frame.sample import Sample
from recallm_core.evaluation.ruler.report import (
    complete_lengths,
    effective_length,
    task_means,
    weighted_mean,
)
from recallm_core.evaluation.ruler.scores import answer_scores
from recallm_core.evaluation.ruler.tasks import NEEDLES, TASKS, Texts, samples
from recallm_core.evaluation.ruler.tracing import HOPS
from recallm_core.testing import scripted_llm
from tests.evaluation.long_contexts import data_folder, everything, record

LENGTH = 5000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_folder(tmp_path_factory.mktemp("data"))


@cache
def meter() -> Meter:
    return Meter(scripted_llm(""))


def made(name: str, folder: Path, n: int = 2, seed: int = 0) -> list[Sample]:
    length = 12_000 if name == "cwe" else LENGTH
    return samples(TASKS[name], length, n, seed=seed, meter=meter(), texts=Texts(folder))


def text_of(sample: Sample) -> str:
    return "\n".join(document.text for document in sample.documents)


def test_there_are_the_thirteen_tasks_of_ruler() -> None:
    assert len(TASKS) == 13
    assert len(NEEDLES) == 8


@pytest.mark.parametrize("name", TASKS)
def test_samples_are_full_the_same_for_a_seed_and_hold_their_answers(
    name: str, folder: Path
) -> None:
    first = made(name, folder)
    assert first == made(name, folder)
    assert [s.documents for s in first] != [s.documents for s in made(name, folder, seed=1)]
    for sample in first:
        assert LEAST * sample.length <= meter().tokens(sample) <= sample.length
        assert all(answer in text_of(sample) for answer in sample.answers)
        assert sample.task == name


@pytest.mark.parametrize("name", TASKS)
def test_the_oracle_of_each_task(name: str, folder: Path) -> None:
    """Right answers have everything, nothing has nothing, and all there is has no precision."""
    (sample,) = made(name, folder, 1)
    right = answer_scores(sample, record(" and ".join(sample.answers)))
    assert right["score"] == 1
    assert right["precision"] > 0.3 if TASKS[name].any_gold else right["precision"] == 1
    assert right["quoted"] == 0
    nothing = answer_scores(sample, record(""))
    assert (nothing["score"], nothing["precision"]) == (0, 0)
    dumped = answer_scores(sample, everything(sample))
    assert dumped["score"] == 1
    lonely = name in ("niah_single_1", "niah_single_2", "niah_single_3", "niah_multivalue")
    most = 1.0 if lonely or name in ("vt", "niah_multiquery") else 0.5
    assert dumped["precision"] <= most


@pytest.mark.parametrize("name", TASKS)
def test_the_value_of_another_sample_scores_nothing(name: str, folder: Path) -> None:
    first, second = made(name, folder)
    if set(first.answers).isdisjoint(second.answers):
        assert answer_scores(first, record("; ".join(second.answers)))["score"] < 0.5


def test_rulers_own_score_on_samples_made_by_hand() -> None:
    """``string_match_all``: the share of gold strings; ``string_match_part``: any of them."""
    answers = ("1234567", "7654321")
    several = Sample("a", (Document("x"),), "?", answers, group="niah_multivalue")
    assert answer_scores(several, record("It is 1234567."))["score"] == 0.5
    either = Sample("b", (Document("x"),), "?", ("Denver Broncos", "Broncos"), group="qa_1")
    assert answer_scores(either, record("the BRONCOS"))["score"] == 1
    assert answer_scores(either, record("the Panthers"))["score"] == 0
    words = Sample("c", (Document("x"),), "?", ("apple", "brick"), group="cwe")
    figures = answer_scores(words, record("1. Apple 2. stone 3. chair"))
    assert (figures["score"], figures["precision"]) == (0.5, pytest.approx(1 / 3))


def test_needles_are_hidden_by_the_rules(folder: Path) -> None:
    (several,) = made("niah_multikey_1", folder, 1)
    pattern = r"One of the special magic numbers for \S+ is: (\d{7})\."
    needles = re.findall(pattern, text_of(several))
    assert len(needles) == 4
    assert len(several.answers) == 1
    (lines,) = made("niah_multikey_2", folder, 1)
    assert len(re.findall("special magic numbers for", text_of(lines))) > 10
    (one,) = made("niah_single_1", folder, 1)
    assert one.question.startswith("What is the special magic number for ")
    (asked,) = made("niah_multiquery", folder, 1)
    assert asked.question.startswith("What are all the special magic numbers for ")
    assert len(asked.answers) == 4


def test_a_chain_of_variables_is_in_order_and_leads_to_its_value(folder: Path) -> None:
    (sample,) = made("vt", folder, 1)
    steps = re.findall(r"VAR (\w+) = (?:VAR )?(\w+)", text_of(sample))
    assert [left for left, _ in steps] == list(sample.answers)
    assert [right for _, right in steps[1:]] == list(sample.answers[:-1])
    assert steps[0][1] in sample.question
    assert len(steps) == HOPS + 1
    assert not set(sample.answers) & set(re.findall(r"\b[A-Z]{3}\b", sample.shots[0][0]))


def test_the_words_that_are_wanted_are_the_commonest(folder: Path) -> None:
    (sample,) = made("cwe", folder, 1)
    counts = Counter(re.findall("[a-z]+", text_of(sample)))
    assert {word for word, _ in counts.most_common(10)} == set(sample.answers)
    (coded,) = made("fwe", folder, 1)
    ranked = [word for word, _ in Counter(text_of(coded).split()).most_common(4)]
    assert ranked[0] == "..."
    assert set(ranked[1:]) == set(coded.answers)


def test_paragraphs_of_the_same_data_come_before_others(folder: Path) -> None:
    (sample,) = made("qa_2", folder, 1)
    assert sample.documents[sample.gold].text.startswith("Number")
    assert len({document.text for document in sample.documents}) == len(sample.documents)


# the report


def row(task: str, length: int, score: float) -> dict[str, object]:
    return {"task": task, "length": length, "scores": {"score": score}}


def test_means_are_over_tasks_and_lengths_are_weighted_by_rank() -> None:
    rows = [row("vt", 1024, 1.0), row("vt", 1024, 1.0), row("cwe", 1024, 0.8)]
    rows += [row("vt", 4096, 0.6), row("cwe", 4096, 0.6)]
    assert task_means(rows[:3]) == pytest.approx(0.9)
    assert effective_length(rows) == 1024
    assert effective_length(rows[3:]) is None
    assert complete_lengths([*rows, row("vt", 8192, 1.0)]) == [1024, 4096]
    assert weighted_mean(rows, rising=True) == pytest.approx((0.9 + 2 * 0.6) / 3)
    assert weighted_mean(rows, rising=False) == pytest.approx((2 * 0.9 + 0.6) / 3)


# the command


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "<|start_recall|>One of the special<|end_recall|></think>It is 1234567."
    monkeypatch.setattr(RecaLLM, "load", lambda model, **options: scripted_llm(script))


@pytest.mark.usefixtures("scripted")
def test_a_run_leaves_rows_reports_and_plots_and_goes_on(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["eval", "ruler", "--lengths", "2k", "--n", "1", "--thought", "20", "--out", str(out)]
    words += ["--data", str(folder), "--tasks", "niah_single_1,niah_single_2,qa_1,cwe"]
    words += ["--arms", "recall,unmasked", "--baseline"]
    assert cli.main(words) == 0
    names = {"rows.jsonl", "settings.json", "report.md", "report.html", "summary.json"}
    assert {path.name for path in out.iterdir()} == names | {"lengths.png", "depth.png"}
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text("utf-8").splitlines()]
    assert {r["condition"] for r in rows} == {"recall", "recall without mask", "without us"}
    assert min(r["scores"]["fill"] for r in rows if r["condition"] == "recall") > 0.9
    report = (out / "report.md").read_text("utf-8")
    assert "Where this differs from RULER" in report
    assert "cwe at 2K" in report  # too long for so few bytes: left out, and named
    before = (out / "rows.jsonl").read_bytes()
    (out / "rows.jsonl").write_bytes(before[:-200])
    assert cli.main([*words, "--resume"]) == 0
    assert (out / "report.md").read_text("utf-8").partition("##")[2] == report.partition("##")[2]
    assert cli.main([*words, "--resume", "--seed", "1"]) == 1
    assert "seed: 0, now 1" in capsys.readouterr().err


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--lengths", "2m"], "above the model's context length"),
        (["--lengths", "2k", "--data", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_run_is_told_before_anything_runs(
    wrong: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["eval", "ruler", "--out", str(tmp_path / "run"), *wrong]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrong", [["--lengths", "4x"], ["--tasks", "niah"], ["--arms", "all"]])
def test_wrong_usage_names_the_choices(wrong: list[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["eval", "ruler", *wrong])


def test_the_users_own_text_can_be_the_haystack(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "own.txt").write_text("The otters swim in the river every day. " * 30, "utf-8")
    texts = Texts(folder, tmp_path)
    (sample,) = samples(TASKS["niah_single_2"], LENGTH, 1, seed=0, meter=meter(), texts=texts)
    assert "otters" in text_of(sample)
    assert "painted" not in text_of(sample)
