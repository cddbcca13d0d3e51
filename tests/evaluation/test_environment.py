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
