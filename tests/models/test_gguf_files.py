"""From names to GGUF files: paths, folders with patterns, a hub's cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from recallm_core.errors import CheckpointError
from recallm_core.models.gguf_files import gguf_file

SPLIT = [f"big-Q4_K_M-0000{i}-of-00002.gguf" for i in (1, 2)]


def put(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"GGUF")
    return folder


def test_a_file_is_itself_and_other_names_are_left_to_others(tmp_path: Path) -> None:
    folder = put(tmp_path / "m", "a.gguf")
    assert gguf_file(str(folder / "a.gguf")) == folder / "a.gguf"
    assert gguf_file("recallm-mini") is gguf_file("Qwen/Qwen3-0.6B") is None
    with pytest.raises(CheckpointError, match="there is no file"):
        gguf_file(str(folder / "b.gguf"))


def test_a_folder_is_the_one_file_that_fits(tmp_path: Path) -> None:
    folder = put(tmp_path / "m", "x-Q4_K_M.gguf", "x-Q8_0.gguf", *SPLIT, "notes.txt")
    assert gguf_file(str(folder), "*q8_0*") == folder / "x-Q8_0.gguf"
    assert gguf_file(str(folder), "big*") == folder / SPLIT[0]
    assert gguf_file(str(folder), "x-Q4_K_M.gguf") == folder / "x-Q4_K_M.gguf"
    for pattern, count in (("*Q4_K_M*", 2), (None, 3), ("*Q2*", 0)):
        with pytest.raises(CheckpointError, match=rf"{count} GGUF files .* expected one"):
            gguf_file(str(folder), pattern)
    assert gguf_file(str(put(tmp_path / "one", "only.gguf"))) == tmp_path / "one" / "only.gguf"


def test_a_folder_of_transformers_stays_one(tmp_path: Path) -> None:
    folder = put(tmp_path / "m", "x.gguf")
    (folder / "config.json").write_text("{}")
    assert gguf_file(str(folder)) is None
    assert gguf_file(str(folder), "*.gguf") == folder / "x.gguf"
    assert gguf_file(str(put(tmp_path / "empty"))) is None


def test_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    outside = put(tmp_path / "outside", "secret.gguf")
    folder = put(tmp_path / "m")
    (folder / "x.gguf").symlink_to(outside / "secret.gguf")
    with pytest.raises(CheckpointError, match="links out"):
        gguf_file(str(folder))
    hub = tmp_path / "models--o--m"
    blobs = put(tmp_path / "models--o--m") and put(hub / "blobs", "abc")
    (hub / "snapshots").mkdir()
    snapshot = put(hub / "snapshots" / "1")
    (snapshot / "x.gguf").symlink_to(os.path.relpath(blobs / "abc", snapshot))
    assert gguf_file(str(snapshot)) == snapshot / "x.gguf"


@pytest.mark.parametrize("pattern", ["", 5, []])
def test_patterns_that_are_none_are_refused(pattern: Any) -> None:
    with pytest.raises(CheckpointError, match="gguf must be a pattern"):
        gguf_file("Qwen/Qwen3-0.6B-GGUF", pattern)


def test_the_hub_is_asked_for_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    folder = put(tmp_path / "snapshot", "x-Q4_K_M.gguf")
    fetched: dict[str, Any] = {}
    names = ["x-Q4_K_M.gguf", "x-Q8_0.gguf", "README.md"]
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: names)

    def download(name: str, **options: Any) -> str:
        fetched.update(options, name=name)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert gguf_file("o/m-GGUF", "*Q4_K_M*", revision="r") == folder / "x-Q4_K_M.gguf"
    assert fetched == {
        "name": "o/m-GGUF",
        "revision": "r",
        "local_files_only": False,
        "allow_patterns": ["x-Q4_K_M.gguf"],
    }
    with pytest.raises(CheckpointError, match="2 GGUF files"):
        gguf_file("o/m-GGUF", "*")
    with pytest.raises(CheckpointError, match="give a GGUF file, a folder"):
        gguf_file("nowhere", "*Q4*")


def test_an_unreachable_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="the hub gave no GGUF file of 'o/m'"):
        gguf_file("o/m", "*", local_files_only=True)
