from __future__ import annotations

from pathlib import Path

import pytest

from recallm_core.errors import CheckpointError
from recallm_core.evaluation.environment import weights


def test_weights_are_told_apart_whatever_a_model_is(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    first = weights(str(file))
    file.write_bytes(b"GGUF" + bytes(99) + b"x")
    others = (str(file), "http://127.0.0.1:8000", "recallm-mini")
    assert len({first, *map(weights, others)}) == 4
    with pytest.raises(CheckpointError):
        weights(str(tmp_path / "none"))


def test_an_adapters_weights_are_told_apart_by_its_base_too(tmp_path: Path) -> None:
    for name in ("adapter", "one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text(name)
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    hashes = [weights(str(tmp_path / "adapter"), str(tmp_path / n)) for n in ("one", "other")]
    assert hashes[0] != hashes[1]
