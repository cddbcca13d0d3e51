"""Checking quotes in an environment that has only what checking needs: no torch, no index."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

import recallm_core

NEEDED = ("numpy", "regex", "rapidfuzz", "PyStemmer")
CODE = """\
import json, sys, time
began = time.process_time()
from recallm_core import check_quotes
spent = time.process_time() - began
report = check_quotes('It says "the annual LEAVE is 30 days".', ["The annual leave is 30 days."])
others = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
print(json.dumps([spent, [quote.verdict for quote in report.quotes], sorted(others)]))
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with this package and what checking needs."""
    root = tmp_path_factory.mktemp("alone")
    venv.create(root, symlinks=True, with_pip=False)
    (packages,) = root.glob("lib/python*/site-packages")
    for name in NEEDED:
        files = distribution(name).files or []
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            (packages / top).symlink_to(Path(str(distribution(name).locate_file(top))))
    (packages / "recallm_core").symlink_to(Path(recallm_core.__file__).parent)
    return root / "bin" / "python"


def run(python: Path, *words: str) -> str:
    return subprocess.run(
        [python, "-I", *words], capture_output=True, text=True, check=True
    ).stdout  # fmt: skip


@pytest.mark.slow
def test_a_quote_is_checked_without_any_model_code(alone: Path) -> None:
    runs: list[Any] = [json.loads(run(alone, "-c", CODE)) for _ in range(3)]
    _, verdicts, others = runs[0]
    assert verdicts == ["drift"]
    known = {"numpy", "regex", "rapidfuzz", "Stemmer", "recallm_core"}
    assert {name for name in others if not name.startswith(("_", "cython"))} <= known
    assert min(spent for spent, *_ in runs) < 0.5  # seconds of CPU, imports included


@pytest.mark.slow
def test_the_command_checks_a_file_there(alone: Path, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "leave.md").write_text("The annual leave is 30 days.")
    (tmp_path / "answer.md").write_text('It says "the annual leave is 30 days".')
    argv = ["check", str(tmp_path / "answer.md"), "--docs", str(tmp_path / "docs"), "--json"]
    data = json.loads(run(alone, "-m", "recallm_core.cli", *argv))
    assert data["ok"] is True
    assert sys.prefix not in json.dumps(data)
