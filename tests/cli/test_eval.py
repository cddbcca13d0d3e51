from __future__ import annotations

import json
from pathlib import Path

import pytest

from recallm_core import RecaLLM, cli
from recallm_core.cli.eval import main
from recallm_core.evaluation import command as commands
from recallm_core.testing import scripted_llm

SMALL = ("--suite", "easy,thought,missing", "--limit", "11", "--prior", "sentences,none")


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "<|start_recall|>The head office is in Ghent<|end_recall|></think>Ghent"
    monkeypatch.setattr(RecaLLM, "load", lambda model, **options: scripted_llm(script))


@pytest.mark.usefixtures("scripted")
def test_a_run_leaves_rows_figures_a_report_and_plots(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert cli.main(["eval", "mini", "--out", str(out), *SMALL]) == 0
    files = {path.name for path in out.iterdir()}
    assert files == {
        "settings.json",
        "rows.jsonl",
        "summary.json",
        "report.md",
        "report.html",
        "scores.png",
        "verbatim.png",
        "separation.png",
        "thought.png",
    }
    about = json.loads((out / "summary.json").read_text("utf-8"))["about"]
    assert {"command", "commit", "machine", "weights", "recipe", "sources"} <= set(about)
    report = (out / "report.md").read_text("utf-8")
    assert all(f"({name})" in report for name in files if name.endswith(".png"))
    assert str(tmp_path) not in report.replace(about["command"], "")


@pytest.mark.usefixtures("scripted")
def test_a_folder_with_rows_wants_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["mini", "--out", str(tmp_path), "--suite", "easy", "--limit", "2"]
    assert main(given) == 0
    rows = (tmp_path / "rows.jsonl").read_bytes()
    assert main(given) == 1
    assert "--resume goes on" in capsys.readouterr().err
    assert main([*given, "--resume"]) == 0
    assert (tmp_path / "rows.jsonl").read_bytes() == rows
    assert main([*given, "--resume", "--trained-tokens", "999"]) == 1
    assert "trained_tokens: 2048, now 999" in capsys.readouterr().err


@pytest.mark.usefixtures("scripted")
def test_without_matplotlib_the_report_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "find_spec", lambda name: None)
    assert main(["mini", "--out", str(tmp_path), "--suite", "easy", "--limit", "2"]) == 0
    assert not list(tmp_path.glob("*.png"))
    assert "recallm-core[eval]" in (tmp_path / "report.md").read_text("utf-8")


@pytest.mark.usefixtures("scripted")
def test_an_unknown_prior_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mini", "--out", str(tmp_path / "run"), "--prior", "tea-leaves"]) == 1
    assert "prior must be one of" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "wrong", [("--suite", "hard"), ("--constraint", "maybe"), ("--limit", "0"), ("--suite", ",")]
)
def test_wrong_usage_is_told(wrong: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["mini", "--out", str(tmp_path), *wrong])
    assert stopped.value.code == 2


@pytest.mark.slow
def test_the_mini_itself_is_measured(tmp_path: Path) -> None:
    given = ["mini", "--out", str(tmp_path), "--limit", "5"]
    given += ["--suite", "easy,two-hop,missing,thought,speed"]
    assert main(given) == 0
    data = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    assert not data["failures"]
    assert data["bars"][0]["name"] == "quotes verbatim, constraint on"
    assert data["bars"][0]["floor_met"]
    easy = data["suites"]["easy"]
    assert easy["constraint, prior reader"]["em"]["mean"] > easy["constraint"]["em"]["mean"]
    assert easy["no constraint"]["verbatim"] < easy["no constraint"]["spans"]
