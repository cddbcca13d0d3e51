from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recallm_core import Document, RecaLLM
from recallm_core.errors import GenerationError
from recallm_core.evaluation.conditions import HEURISTIC
from recallm_core.evaluation.datasets import MissingDataError
from recallm_core.evaluation.gates import bars
from recallm_core.evaluation.items import Item
from recallm_core.evaluation.report import markdown, summary, write_report
from recallm_core.evaluation.rows import RunError
from recallm_core.evaluation.runner import Plan, Results, check_settings, run
from recallm_core.evaluation.tasks import Scale, Suite
from recallm_core.testing import scripted_llm

OPEN, CLOSE, END = "<|start_recall|>", "<|end_recall|>", "</think>"
TIMES = ("seconds", "first_token_seconds", "cached_tokens")
YEARS = {"mill": "1901", "bridge": "1877", "dam": "1930"}


def items(scale: Scale) -> Iterator[Item]:
    for number, (thing, year) in enumerate(YEARS.items()):
        page = Document(f"The {thing} opened in {year}. It is red.", thing)
        question = f"When did the {thing} open?"
        yield Item(thing, (page,), question, (year,), 0, ("odd", "even")[number % 2])
        yield Item(f"{thing}-2", (page,), f"Who built the {thing}?", ())


def nothing(scale: Scale) -> Iterator[Item]:
    raise MissingDataError("no such rows; set RECALLM_DATA to the folder that has them")
    yield


@pytest.fixture(autouse=True)
def _two_suites(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Suite("tiny", "tiny questions", "Made for this test.", 6, items, free=True)
    absent = replace(tiny, name="absent", title="absent rows", make=nothing)
    for module in ("runner", "report"):
        suites = {"tiny": tiny, "absent": absent}
        monkeypatch.setattr(f"recallm_core.evaluation.{module}.SUITES", suites)


def reader(prompt: str) -> str:
    """Copies the first sentence and its year, or says that nothing is there."""
    if "Who built" in prompt:
        return f"{OPEN}It is red{CLOSE}{END}The documents don't say."
    thing = next(t for t in YEARS if f"the {t} open?" in prompt)
    sentence = f"The {thing} opened in {YEARS[thing]}."
    return f"{OPEN}{sentence}{CLOSE}{END}{OPEN}{YEARS[thing]}{CLOSE}"


def a_plan(**changes: Any) -> Plan:
    return replace(Plan(suites=("tiny", "absent"), priors=("sentences", "none")), **changes)


def measured(folder: Path, llm: RecaLLM | None = None, **changes: Any) -> Results:
    return run(llm or scripted_llm(reader), a_plan(**changes), folder, lambda line: None)


def timeless(results: Results) -> dict[tuple[str, str], list[dict[str, Any]]]:
    return {
        key: [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
        for key, rows in results.rows.items()
    }


def test_every_condition_is_measured_on_every_item(tmp_path: Path) -> None:
    results = measured(tmp_path)
    assert {name: len(rows) for (_, name), rows in results.rows.items()} == dict.fromkeys(
        (
            "constraint, prior sentences",
            "constraint",
            "no constraint",
            "prior sentences alone",
            HEURISTIC,
        ),
        6,
    )
    for row in results.rows["tiny", "constraint"]:
        if row["answerable"]:
            assert (row["em"], row["f1"], row["hit"], row["found"]) == (1, 1, 1, 1)
            assert row["spans"] == row["verbatim"] == 2
        else:
            assert row["abstained"]
            assert "em" not in row
    alone = results.rows["tiny", "prior sentences alone"]
    assert [row["hit"] for row in alone if row["answerable"]] == [1, 1, 1]


def test_a_suite_without_data_is_left_out_and_named(tmp_path: Path) -> None:
    results = measured(tmp_path)
    assert "set RECALLM_DATA" in results.left_out["absent"]
    assert "absent rows: no such rows" in markdown(results, {}, [])


class Killed(BaseException):
    """Ends a run as a signal would."""


def dying(after: int) -> Callable[[str], str]:
    left = iter(range(after))

    def script(prompt: str) -> str:
        if next(left, None) is None:
            raise Killed
        return reader(prompt)

    return script


@pytest.mark.parametrize("after", [0, 1, 7, 12])
@pytest.mark.parametrize("torn", [b"", b'{"suite": "tiny", "cond', b"\xe2"])
def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path, after: int, torn: bytes) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = measured(tmp_path / "whole")
    with pytest.raises(Killed):
        measured(tmp_path / "cut", scripted_llm(dying(after)))
    path = tmp_path / "cut" / "rows.jsonl"
    written = path.read_bytes().count(b"\n") if path.exists() else 0
    with path.open("ab") as file:  # the kill came while a row was being written
        file.write(torn)
    llm = scripted_llm(reader)
    resumed = measured(tmp_path / "cut", llm)
    assert timeless(resumed) == timeless(whole)
    lines = path.read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == len({(row["condition"], row["id"]) for row in rows}) == 30
    assert len(llm.backend.requests) == 18 - after  # type: ignore[attr-defined]  # of the stand-in
    assert written == 0 or written < len(lines)


def test_a_finished_run_asks_the_model_nothing(tmp_path: Path) -> None:
    first = measured(tmp_path)
    llm = scripted_llm(reader)
    again = measured(tmp_path, llm)
    assert not llm.backend.requests  # type: ignore[attr-defined]  # of the stand-in
    assert again.rows == first.rows


def test_a_larger_limit_adds_to_what_is_there(tmp_path: Path) -> None:
    assert len(measured(tmp_path, limit=2).rows["tiny", "constraint"]) == 2
    llm = scripted_llm(reader)
    assert len(measured(tmp_path, llm).rows["tiny", "constraint"]) == 6
    assert len(llm.backend.requests) == 3 * 4  # type: ignore[attr-defined]  # of the stand-in


def test_a_failed_row_is_told_and_tried_again(tmp_path: Path) -> None:
    broken = measured(tmp_path, scripted_llm(reader, fail_after=3))
    assert len(broken.failures) == 18
    assert GenerationError.__name__ in broken.failures[0]["error"]
    assert "18 rows have no result" in markdown(broken, {}, [])
    assert not measured(tmp_path).failures


def test_settings_guard_a_folder(tmp_path: Path) -> None:
    check_settings(tmp_path / "new", {"weights": "a"}, resume=False)
    folder = tmp_path / "new"
    check_settings(folder, {"weights": "a"}, resume=True)
    with pytest.raises(RunError, match=r"weights: 'a', now 'b'.*another --out"):
        check_settings(folder, {"weights": "b"}, resume=True)
    (folder / "rows.jsonl").write_text("")
    with pytest.raises(RunError, match="--resume goes on"):
        check_settings(folder, {"weights": "a"}, resume=False)


def test_a_damaged_line_is_refused_with_its_number(tmp_path: Path) -> None:
    measured(tmp_path)
    path = tmp_path / "rows.jsonl"
    path.write_text("nonsense\n" + path.read_text("utf-8"), "utf-8")
    with pytest.raises(RunError, match=r"line 1 of .*isn't a row"):
        measured(tmp_path)


def test_the_report_has_every_table_and_says_where_plots_are_missing(tmp_path: Path) -> None:
    results = measured(tmp_path)
    about = {"model": "scripted", "command": "recallm eval mini", "commit": "abc"}
    write_report(results, about, tmp_path, None)
    text = (tmp_path / "report.md").read_text("utf-8")
    assert "| constraint | 6 | 1.00 (1.00-1.00) |" in text
    assert "matplotlib isn't installed" in text
    data = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    assert data["suites"]["tiny"]["constraint"]["em"] == {
        "mean": 1.0,
        "low": 1.0,
        "high": 1.0,
        "n": 3,
    }
    assert data["suites"]["tiny"]["constraint"]["auroc"]["mean"] == 1.0
    assert data == json.loads(json.dumps(summary(results, about)))


def test_one_invented_quote_breaks_the_bar(tmp_path: Path) -> None:
    results = measured(tmp_path)
    assert [(bar.floor_met, bar.n) for bar in bars(results)] == [(True, 18)]
    results.rows["tiny", "constraint"][0]["verbatim"] -= 1
    assert [bar.floor_met for bar in bars(results)] == [False]
