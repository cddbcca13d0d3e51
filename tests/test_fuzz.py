"""Random damage to whatever strangers may give: an error of ours that says where, or no harm."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.fuzz import TARGETS, fuzz, saved_index, sealed, used

QUICK = dict.fromkeys(TARGETS, 40) | {
    "files of every kind, damaged": 30,
    "bytes under any name": 30,
    "index files": 30,
    "rendering": 20,
    "quotes": 20,
}


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_in_is_an_error_of_ours_or_does_no_harm(name: str) -> None:
    _needs(name)
    fuzz(name, QUICK[name], number=0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TARGETS)
def test_the_same_for_minutes(name: str) -> None:
    _needs(name)
    fuzz(name, 25 * QUICK[name])


def _needs(name: str) -> None:
    if "GGUF" in name:
        pytest.importorskip("gguf", reason="needs the package gguf: pip install gguf")


@pytest.mark.parametrize("place", range(6, 128, 3))
def test_a_header_of_an_array_may_hold_anything(tmp_path: Path, place: int) -> None:
    shutil.copytree(saved_index(), tmp_path / "index")
    generation = next((tmp_path / "index").glob("generation-*"))
    path = next(generation.glob("*-chunk_start.npy"))
    whole = path.read_bytes()
    for byte in b"(\x01'{\n\\\xff9":
        path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
        sealed(generation)
        used(tmp_path / "index")
