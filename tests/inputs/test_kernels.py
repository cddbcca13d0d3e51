from __future__ import annotations

import pytest

from recallm_core.inputs.kernels import KERNELS, bound_kernels


def test_a_number_that_was_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    bound_kernels()
    with monkeypatch.context() as changed:
        import os

        assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"
        changed.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY")
        bound_kernels()
        assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == str(KERNELS)
