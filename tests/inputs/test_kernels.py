from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recallm_core.inputs.kernels import KERNELS, bound_kernels

VARIABLES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
MANY_LENGTHS = """
import ctypes
from pathlib import Path
import torch
from recallm_core.inputs.kernels import bound_kernels

bound_kernels()  # after torch was imported, as in the library

def kilobytes():
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

def multiply(lengths):
    weights = torch.ones(64, 64, dtype=torch.bfloat16)
    for length in lengths:
        torch.nn.functional.linear(torch.ones(length, 64, dtype=torch.bfloat16), weights)

multiply(range(100, 200))
before = kilobytes()
multiply(range(200, 400))
print(kilobytes() - before)
"""


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_number_that_was_set_stays(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "7")
    bound_kernels()
    with monkeypatch.context() as changed:
        assert os.environ[variable] == "7"
        changed.delenv(variable)
        bound_kernels()
        assert os.environ[variable] == str(KERNELS)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read there")
def test_kernels_of_ever_other_lengths_take_no_more_memory() -> None:
    """16-bit products, whose kernels are made for each length: 54 MB were kept of these, now 1."""
    environment = {k: v for k, v in os.environ.items() if k not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", MANY_LENGTHS],
        env=environment | {"MALLOC_ARENA_MAX": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 8_000  # kB
