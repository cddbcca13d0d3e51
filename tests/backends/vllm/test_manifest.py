"""A server's description of itself comes back as it was sent, or is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.backends.vllm.manifest import Manifest, ManifestFile, manifest_files, read_files
from recallm_core.errors import ServerError

SAMPLE = Manifest(
    model="tiny",
    window=512,
    vocab_size=300,
    eos_ids=(2, 0),
    model_type="llama",
    files={"tokenizer.json": ManifestFile(10, "0" * 64)},
)


def changed(**fields: Any) -> bytes:
    return json.dumps(json.loads(SAMPLE.to_json()) | fields).encode()


def test_a_manifest_comes_back_from_its_json() -> None:
    assert Manifest.from_json(SAMPLE.to_json().encode()) == SAMPLE


@pytest.mark.parametrize(
    "fields",
    [
        {"window": 0},
        {"window": True},
        {"vocab_size": 301},
        {"eos_ids": [-1]},
        {"model": "two\nlines"},
        {"version": 2},
        {"spec_version": 0},
        {"fingerprint": "0" * 64},
        {"files": {"../config.json": {"size": 1, "sha256": "0" * 64}}},
        {"files": {"recallm.json": {"size": 10**9, "sha256": "0" * 64}}},
        {"files": {"tokenizer.json": {"size": 10, "sha256": "1" * 64}}},
    ],
)
def test_what_contradicts_itself_or_is_no_manifest_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ServerError, match="description of itself can't be used"):
        Manifest.from_json(changed(**fields))


@given(st.binary(max_size=80))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ServerError):
        Manifest.from_json(data)


def test_the_fingerprint_is_of_files_and_sizes_and_not_of_the_name() -> None:
    assert replace(SAMPLE, model="other").fingerprint == SAMPLE.fingerprint
    assert replace(SAMPLE, eos_ids=(0, 2)).fingerprint == SAMPLE.fingerprint
    assert replace(SAMPLE, vocab_size=301).fingerprint != SAMPLE.fingerprint
    assert replace(SAMPLE, files={}).fingerprint != SAMPLE.fingerprint


def test_only_the_files_that_clients_need_are_read(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"no tokenizer\.json"):
        read_files(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    (tmp_path / "secret.txt").write_bytes(b"secret")
    contents = read_files(tmp_path)
    assert contents == {"tokenizer.json": b"{}"}
    assert manifest_files(contents)["tokenizer.json"].size == 2
