"""recallm check: exit codes, forms, repairs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from recallm_core import cli


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "leave.md").write_text("The annual leave is 30 days. It ends in March.\n")
    return folder


def check(text: str, docs: Path, *options: str) -> int:
    path = docs.parent / "answer.md"
    path.write_text(text)
    return cli.main(["check", str(path), "--docs", str(docs), *options])


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('"The annual leave is 30 days"', 0),
        ('"the ANNUAL leave is 30 days"', 0),
        ("nothing quoted", 0),
        ('"The annual leave is 31 days"', 1),
        ('"It ends in March" [2]', 1),
        ('"It ends in deepest winter"', 1),
    ],
)
def test_the_exit_code_says_whether_all_is_well(
    text: str, code: int, docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(text, docs) == code
    assert capsys.readouterr().out.splitlines()[-1].startswith(("1 quote: ", "no quotes"))


def test_forms_and_files(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = 'It is "the annual  leave is 30 days" and\r\n"It ends in June".\r\n'
    page, repaired = docs.parent / "page.html", docs.parent / "repaired.md"
    (docs.parent / "answer.md").write_bytes(text.encode())
    argv = ["check", str(docs.parent / "answer.md"), "--docs", str(docs)]
    assert cli.main([*argv, "--json", "--html", str(page), "--repair", str(repaired)]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["counts"]["drift"] == 1
    assert "altered" in page.read_text()
    assert repaired.read_bytes().decode() == text.replace("the annual  leave", "The annual leave")
    assert cli.main([*argv, "--markdown"]) == 1
    assert "**altered**" in capsys.readouterr().out


def test_a_message_and_standard_input(
    docs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    block = {"type": "text", "text": "x", "citations": [{"cited_text": "It ends in March"}]}
    assert check(json.dumps({"content": [block]}), docs, "--message") == 0
    assert check("no json", docs, "--message") == 2
    assert "isn't JSON, which --message expects" in capsys.readouterr().err
    data = io.BytesIO('"It ends in Märch and more"'.encode())
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=data))
    assert cli.main(["check", "-", "--docs", str(docs)]) == 1
    assert "1 quote: 1 a" in capsys.readouterr().out


def test_wrong_usage_is_two_and_says_what_is_missing(
    docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        cli.main(["check", "answer.md"])
    assert ending.value.code == 2
    assert "--docs" in capsys.readouterr().err
    (docs.parent / "latin.md").write_bytes(b"\xe4")
    assert cli.main(["check", str(docs.parent / "latin.md"), "--docs", str(docs)]) == 2
    assert "isn't UTF-8 (byte 0)" in capsys.readouterr().err
    (docs / "leave.md").unlink()
    assert check("x", docs) == 2
    assert "nothing to check against" in capsys.readouterr().err


def test_a_mistyped_path_is_no_verdict(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for missing in ("nowhere.md", str(docs)):
        assert cli.main(["check", missing, "--docs", str(docs)]) == 2
        said = capsys.readouterr().err
        assert "expected a file with the text to check, got" in said
        assert "- reads standard input" in said
    assert cli.main(["check", str(docs / "leave.md"), "--docs", str(docs / "none")]) == 2
