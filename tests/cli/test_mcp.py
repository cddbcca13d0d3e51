"""recallm mcp: what is refused before anything is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recallm_core import cli
from recallm_core.cli import mcp


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("RECALLM_API_KEY", "VLLM_API_KEY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be served, in place of serving it."""
    calls: list[Any] = []
    monkeypatch.setattr(mcp, "_serve", lambda args, desk, keys: calls.append((args, keys)))
    return calls


def test_standard_input_and_output_is_the_default(tmp_path: Path, served: list[Any]) -> None:
    assert cli.main(["mcp", "--docs", str(tmp_path)]) == 0
    args, keys = served[0]
    assert not args.http
    assert keys == ()


def test_other_machines_need_a_key(
    tmp_path: Path,
    served: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ["mcp", "--docs", str(tmp_path), "--http"]
    assert cli.main([*argv, "--host", "0.0.0.0"]) == 1
    assert "it wants a key" in capsys.readouterr().err
    monkeypatch.setenv("RECALLM_API_KEY", "short")
    assert cli.main([*argv, "--host", "0.0.0.0"]) == 1
    assert "use at least 16 random ones" in capsys.readouterr().err
    assert served == []
    monkeypatch.setenv("RECALLM_API_KEY", "k" * 32)
    assert cli.main([*argv, "--host", "0.0.0.0"]) == 0
    assert served[0][1] == ("k" * 32,)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--docs", "nowhere"], "can't serve 'nowhere'"),
        (["--docs", ".", "--api-key-file", "keys"], "over standard input no key is needed"),
        (["--index", "a/laws", "--index", "b/laws"], "two indexes have the same name"),
    ],
)
def test_wrong_arguments_are_named(
    argv: list[str], message: str, served: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["mcp", *argv]) == 1
    assert message in capsys.readouterr().err
    assert served == []


def test_nothing_to_serve_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        cli.main(["mcp"])
    assert ending.value.code == 2
    assert "name what may be read" in capsys.readouterr().err


def test_without_the_package_the_command_says_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mcp, "find_spec", lambda _: None)
    assert cli.main(["mcp", "--docs", str(tmp_path)]) == 1
    assert "pip install 'recallm-core[mcp]'" in capsys.readouterr().err
