from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from recallm_core import Document, RecaLLM, cli
from recallm_core.cli.eval import main
from recallm_core.errors import GenerationError
from recallm_core.evaluation.cited import command
from recallm_core.evaluation.cited.baseline import INSTRUCTION, ByPlainModel
from recallm_core.evaluation.cited.policies import ByPolicy
from recallm_core.evaluation.cited.report import markdown
from recallm_core.evaluation.cited.run import Answers, Progress, ask_all, span
from recallm_core.evaluation.frame.records import AnswerRecord, CitationRecord
from recallm_core.evaluation.items import Item
from recallm_core.evaluation.rows import RunError
from recallm_core.prompting.params import GenerationParams
from recallm_core.testing import scripted_llm

SCRIPT = "<|start_recall|>It opened in 1901.<|end_recall|></think>It opened in 1901"
PAGE = Document("The mill is red. It opened in 1901.", "page")


def items(count: int) -> list[Item]:
    return [Item(f"i{n}", (PAGE,), f"When, {n}?", ("1901",) * (n % 3 != 2)) for n in range(count)]


def said(item: Item) -> AnswerRecord:
    return AnswerRecord(
        "1901", "1901", (CitationRecord("page", 17, 35, PAGE.text[17:35]),), abstained=False
    )


class Counting:
    """A way that stops when it was asked so often."""

    name = "first"

    def __init__(self, stop_after: int = 10**6) -> None:
        self.asked: list[str] = []
        self._left = stop_after

    def asks(self, item: Item) -> bool:
        return True

    def __call__(self, items: Sequence[Item]) -> list[AnswerRecord]:
        if self._left < len(items):
            raise KeyboardInterrupt
        self._left -= len(items)
        self.asked += [item.id for item in items]
        return [said(item) for item in items]


def ask(way: Any, folder: Path, count: int = 10) -> Answers:
    folder.mkdir(exist_ok=True)
    return ask_all([way], {"own": items(count)}, folder, lambda line: None, batch=3)


@pytest.mark.parametrize("cut", [0, 7, 60])
def test_a_run_that_was_killed_gives_the_same_table(tmp_path: Path, cut: int) -> None:
    whole = ask(Counting(), tmp_path / "whole")
    folder = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        ask(Counting(stop_after=6), folder)
    rows = folder / "rows.jsonl"
    if cut:
        rows.write_bytes(rows.read_bytes()[:-cut])
    again = Counting()
    resumed = ask(again, folder)
    assert len(again.asked) == (4 if not cut else 5)
    assert markdown(resumed, {}, []) == markdown(whole, {}, [])
    assert resumed.records == whole.records


def test_a_row_that_is_no_answer_is_told(tmp_path: Path) -> None:
    ask(Counting(), tmp_path, 1)
    path = tmp_path / "rows.jsonl"
    row = json.loads(path.read_text("utf-8"))
    del row["citations"]
    path.write_text(json.dumps(row) + "\n", "utf-8")
    with pytest.raises(RunError, match=r"row of i0 .* can't be read"):
        ask(Counting(), tmp_path, 1)


def test_one_question_that_fails_does_not_take_its_batch_along(tmp_path: Path) -> None:
    class Failing(Counting):
        def __call__(self, items: Sequence[Item]) -> list[AnswerRecord]:
            if any(item.id == "i1" for item in items):
                raise GenerationError("it broke")
            return super().__call__(items)

    answers = ask(Failing(), tmp_path, 3)
    assert [item.id for item, _ in answers.records["own", "first"]] == ["i0", "i2"]
    assert [row["id"] for row in answers.failures] == ["i1"]
    assert "it broke" in markdown(answers, {}, [])
    assert not ask(Counting(), tmp_path, 3).failures


def test_progress_says_how_long_the_rest_takes() -> None:
    times: Iterator[float] = iter([0.0, 20.0])
    lines: list[str] = []
    Progress(100, lines.append, lambda: next(times)).advance("nq, first", 10)
    assert lines == ["10 of 100 answers (nq, first), 2.0 s each, 3 min left"]
    assert [span(s) for s in (5, 600, 3600 * 3 + 300)] == ["5 s", "10 min", "3 h 05 min"]


# the command


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RecaLLM, "load", lambda model, **options: scripted_llm(SCRIPT))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.jsonl"
    page, other = PAGE.text, "Nothing is known."
    rows = [
        {"question": "When did it open?", "documents": [page, other], "answers": ["1901"]},
        {"question": "Who built it?", "documents": [page], "answers": []},
        {"question": "What colour?", "documents": [other, page]},
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\nnonsense\n", "utf-8")
    return path


def given(own: Path, out: Path, *more: str) -> list[str]:
    return ["cited", "--data", str(own), "--out", str(out), "--policy", "free", *more]


@pytest.mark.usefixtures("scripted")
def test_a_run_leaves_a_table_rows_figures_a_report_and_a_plot(
    tmp_path: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert cli.main(["eval", *given(own, out)]) == 0
    names = {"settings.json", "rows.jsonl", "summary.json", "report.md", "report.html"}
    names |= {"cited.png", "cited.svg"}
    assert {path.name for path in out.iterdir()} == names
    shown = capsys.readouterr()
    assert "line 4 of own.jsonl is left out" in shown.err
    assert "your questions, answerable" in shown.out
    suites = json.loads((out / "summary.json").read_text("utf-8"))["suites"]["own"]
    assert set(suites) == {"answerable", "unanswerable", "unscored"}
    free = suites["answerable"]["free"]
    ones = ("cited", "hit", "right")
    assert [free[name]["mean"] for name in ones] == [1.0] * 3
    assert free["wrong_slices"]["mean"] == 0
    assert "hit" not in suites["unscored"]["free"]
    report = (out / "report.md").read_text("utf-8")
    assert "line 4 of own.jsonl" in report
    assert "(cited.png)" in report


@pytest.mark.usefixtures("scripted")
def test_a_folder_with_rows_wants_resume(
    tmp_path: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(given(own, out)) == 0
    table = capsys.readouterr().out
    rows = (out / "rows.jsonl").read_bytes()
    assert main(given(own, out)) == 1
    assert "--resume goes on" in capsys.readouterr().err
    assert main(given(own, out, "--resume")) == 0
    assert capsys.readouterr().out == table
    assert (out / "rows.jsonl").read_bytes() == rows
    assert main(given(own, out, "--resume", "--max-new-tokens", "9")) == 1
    assert "max_new_tokens: 256, now 9" in capsys.readouterr().err


@pytest.mark.usefixtures("scripted")
def test_what_cannot_be_run_is_told(
    tmp_path: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(given(tmp_path / "nowhere", tmp_path)) == 1
    assert "no file or folder" in capsys.readouterr().err
    assert main(given(tmp_path, tmp_path / "out")) == 1
    assert "no nq_multidoc_eval.jsonl.gz" in capsys.readouterr().err
    assert main(given(own, tmp_path / "out", "--baseline")) == 1
    assert "--baseline needs a model that transformers runs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_policy_may_name_another_scorer_of_evidence() -> None:
    with scripted_llm(SCRIPT) as llm:
        settings = [
            ByPolicy(llm, name, GenerationParams())._params
            for name in ("required", "required/none", "first/sentences")
        ]
    assert [(s.evidence, s.prior) for s in settings] == [
        ("required", None),
        ("required", "none"),
        ("first", "sentences"),
    ]


WRONG = [("--policy", "never"), ("--policy", "first/luck"), ("--suites", "hard"), ("--n", "0")]


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_usage_is_told(wrong: tuple[str, str]) -> None:
    with pytest.raises(SystemExit):
        main(["cited", *wrong])


@pytest.mark.usefixtures("scripted")
def test_without_matplotlib_the_report_says_so(
    tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert main(given(own, tmp_path / "run")) == 0
    assert "recallm-core[eval]" in (tmp_path / "run" / "report.md").read_text("utf-8")


def test_the_shipped_model_beside_itself(tmp_path: Path, own: Path) -> None:
    out = tmp_path / "run"
    assert main(given(own, out, "--baseline", "--max-new-tokens", "24", "--threads", "1")) == 0
    suites = json.loads((out / "summary.json").read_text("utf-8"))["suites"]["own"]
    plain = suites["answerable"]["without us"]
    assert {"right", "f1", "nearest", "seconds"} <= set(plain)
    assert not {"cited", "hit", "abstained"} & set(plain)
    assert "without us" not in suites["unanswerable"]
    assert suites["answerable"]["free"]["wrong_slices"]["mean"] == 0


def test_the_baseline_gets_one_sentence_and_nothing_of_ours() -> None:
    with RecaLLM.load("recallm-mini") as llm:
        way = ByPlainModel(llm, 8)
        prompt = way.prompt(items(1)[0])
        assert prompt.count(INSTRUCTION) == 1
        assert PAGE.text in prompt
        assert "recall" not in prompt.casefold()
        alone = way(items(1))[0]
        together = way([items(1)[0], Item("long", (PAGE,) * 3, "And why?", ("x",))])[0]
    assert alone.text == together.text
    assert alone.output_tokens <= 8
