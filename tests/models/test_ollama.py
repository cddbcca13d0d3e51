"""Ollama's store, read by name: what is found, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from recallm_core.errors import CheckpointError
from recallm_core.models.ollama import ollama_file

KIND = "application/vnd.ollama.image."


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    (tmp_path / "blobs").mkdir()
    return tmp_path


def put(store: Path, name: str, content: bytes = b"GGUF...", **changes: Any) -> Path:
    """A model as Ollama stores it; ``changes`` are of its layer."""
    digest = hashlib.sha256(content).hexdigest()
    blob = store / "blobs" / f"sha256-{digest}"
    blob.write_bytes(content)
    layer = {"mediaType": f"{KIND}model", "digest": f"sha256:{digest}", "size": len(content)}
    other = {"mediaType": f"{KIND}template", "digest": "sha256:0", "size": 1}
    write(store, name, {"schemaVersion": 2, "layers": [other, layer | changes]})
    return blob


def write(store: Path, name: str, manifest: Any) -> None:
    path = store / "manifests" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("ollama:qwen3:1.7b", "registry.ollama.ai/library/qwen3/1.7b"),
        ("qwen3", "registry.ollama.ai/library/qwen3/latest"),
        ("ollama:owner/model:q4", "registry.ollama.ai/owner/model/q4"),
        ("hf.co/owner/Model-GGUF:Q4_K_M", "hf.co/owner/Model-GGUF/Q4_K_M"),
        ("host:5000/owner/model", "host:5000/owner/model/latest"),
    ],
)
def test_a_name_is_its_file(store: Path, name: str, place: str) -> None:
    blob = put(store, place)
    assert ollama_file(name) == blob


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../x",
        "a/../b",
        "a/b/c/d",
        "a b",
        "x:",
        ":x",
        "/etc/passwd",
        "x:../y",
        "a//b",
        ".",
    ],
)
def test_names_that_are_none_reach_nothing(store: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="is no name of an Ollama model"):
        ollama_file(f"ollama:{name}")


def test_a_model_that_isnt_there_says_how_to_get_it(store: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no model qwen3:8b here .*ollama pull qwen3:8b"):
        ollama_file("ollama:qwen3:8b")


PLACE = "registry.ollama.ai/library/m/latest"


def test_files_that_arent_what_their_manifest_says_are_refused(store: Path) -> None:
    blob = put(store, PLACE)
    blob.write_bytes(b"GGUF, of the same length"[:7])
    with pytest.raises(CheckpointError, match="isn't the one of its manifest"):
        ollama_file("m")
    put(store, PLACE, size=8)
    with pytest.raises(CheckpointError, match="expected 8"):
        ollama_file("m")
    blob.unlink()
    with pytest.raises(CheckpointError, match="can't be read"):
        ollama_file("m")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"digest": "sha256:../../../etc/passwd"}, "no SHA-256"),
        ({"digest": None}, "no SHA-256"),
        ({"mediaType": f"{KIND}adapter"}, "adapter"),
        ({"mediaType": f"{KIND}license"}, "names no GGUF file"),
        ({"mediaType": 5}, "has no type"),
    ],
)
def test_layers_of_other_kinds_are_refused(
    store: Path, changes: dict[str, Any], message: str
) -> None:
    put(store, PLACE, **changes)
    with pytest.raises(CheckpointError, match=message):
        ollama_file("m")


@pytest.mark.parametrize("manifest", [[], {}, {"layers": 5}, {"layers": ["x"]}, "x" * 2_000_000])
def test_manifests_that_are_none_are_refused(store: Path, manifest: Any) -> None:
    write(store, PLACE, manifest)
    with pytest.raises(CheckpointError, match=r"manifest .* can't be read"):
        ollama_file("m")
