"""A model folder is there whole or not at all, and for all who may read new files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from recallm_core.errors import CheckpointError
from recallm_core.models.writing import cached_folder, copy_beside, whole_file, whole_folder


def test_a_folder_appears_once_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with whole_folder(target) as aside:
        (aside / "config.json").write_text("{}")
        save_file({"x": torch.zeros(1)}, aside / "model.safetensors")
        assert not target.exists()
    rights = {file.stat().st_mode for file in target.iterdir()}
    assert len(rights) == 1  # safetensors gives its files to their owner alone
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(FileNotFoundError), whole_folder(target, overwrite=True) as aside:
        (aside / "new" / "and deeper").touch()
    assert [path.name for path in target.iterdir()] == ["old"]
    with whole_folder(target, overwrite=True) as aside:
        (aside / "new").touch()
    assert [path.name for path in target.iterdir()] == ["new"]
    with pytest.raises(OSError, match="empty"), whole_folder(target):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_stands_beside_weights_is_copied_and_nothing_else(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.mkdir()
    target.mkdir()
    beside = {"tokenizer.json", "recallm.json", "chat_template.jinja", "README.md"}
    weights = {"config.json", "model.safetensors", "model.safetensors.index.json", "x.bin"}
    for name in beside | weights:
        (source / name).touch()
    copy_beside(source, target)
    assert {file.name for file in target.iterdir()} == beside


def test_a_file_is_replaced_once_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "curve.jsonl"
    target.write_text("before")
    with pytest.raises(UnicodeEncodeError), whole_file(target) as aside:
        aside.write_text("half\ud800", encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["curve.jsonl"]
    with whole_file(target) as aside:
        aside.write_text("after")
        assert target.read_text() == "before"
    assert target.read_text() == "after"


def test_a_folder_of_the_cache_is_private_and_never_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = cached_folder("merged", "x")
    assert folder == cached_folder("merged", "x") == tmp_path / "recallm" / "merged" / "x"
    assert folder.stat().st_mode & 0o077 == 0
    (tmp_path / "recallm" / "merged" / "y").symlink_to(folder)
    with pytest.raises(CheckpointError, match="somebody else"):
        cached_folder("merged", "y")
