"""Models that Ollama has downloaded, found by their names in its store on this machine.

The store is read and never written: a manifest names the layers of a model by their SHA-256, and
the layer of the weights is a GGUF file. Ollama itself needn't run, or be installed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recallm_core.errors import CheckpointError
from recallm_core.inputs.arguments import shown

PREFIX = "ollama:"
_HOST, _OWNER, _TAG = "registry.ollama.ai", "library", "latest"
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_NAMED_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,127}(:[0-9]{1,5})?")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_LAYER = "application/vnd.ollama.image."
_MOST_MANIFEST = 1 << 20  # bytes
_BLOCK = 1 << 22
_SYSTEM_STORES = ("/usr/share/ollama/.ollama/models", "/var/lib/ollama/models")


def ollama_file(name: str) -> Path:
    """Returns the GGUF file of a model in Ollama's store, checked against its digest.

    Args:
        name: As Ollama has it: ``qwen3:1.7b``, ``owner/model`` or ``host/owner/model:tag``, with or
            without ``ollama:`` before it.

    Raises:
        CheckpointError: There is no such model here, or it is damaged or needs more than its file.
    """
    parts = _parts(name.removeprefix(PREFIX))
    stores = _stores()
    for store in stores:
        manifest = store.joinpath("manifests", *parts)
        if manifest.is_file():
            return _layer_file(store, _weights(manifest))
    places = ", ".join(map(str, stores))
    raise CheckpointError(
        f"Ollama has no model {'/'.join(parts[2:-1])}:{parts[-1]} here (looked in {places}); get "
        f"it with `ollama pull {name.removeprefix(PREFIX)}`, or say where the models are with "
        "OLLAMA_MODELS"
    )


def _parts(name: str) -> tuple[str, ...]:
    """Host, owner, model and tag.

    Raises:
        CheckpointError: It is no name of a model.
    """
    path, _, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", _TAG)
    pieces = path.split("/")
    if len(pieces) < 4:
        pieces = [*(_HOST, _OWNER)[: max(0, 3 - len(pieces))], *pieces]
    sound = len(pieces) == 3 and _NAMED_HOST.fullmatch(pieces[0])
    if not sound or not all(_PART.fullmatch(part) for part in (*pieces[1:], tag)):
        raise CheckpointError(
            f"{shown(name)} is no name of an Ollama model; expected one such as 'qwen3:1.7b' or "
            "'owner/model:tag'"
        )
    return (*pieces, tag)


def _stores() -> list[Path]:
    folder = os.environ.get("OLLAMA_MODELS")
    if folder:
        return [Path(folder).expanduser()]
    return [Path("~/.ollama/models").expanduser(), *map(Path, _SYSTEM_STORES)]


def _weights(manifest: Path) -> Mapping[str, Any]:
    """The layer that holds the weights.

    Raises:
        CheckpointError: The manifest can't be read, or names none or an adapter.
    """
    try:
        if manifest.stat().st_size > _MOST_MANIFEST:
            raise ValueError(f"more than {_MOST_MANIFEST:,} bytes")
        layers = list(_layers(json.loads(manifest.read_text("utf-8"))))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"Ollama's manifest {manifest} can't be read: {error}") from error
    kinds = {str(layer["mediaType"]).removeprefix(_LAYER): layer for layer in layers}
    if "adapter" in kinds:
        raise CheckpointError(
            f"{manifest} adds an adapter to a model; merge the two into one GGUF file first"
        )
    if "model" not in kinds:
        raise CheckpointError(f"{manifest} names no GGUF file; pull the model again with Ollama")
    return kinds["model"]


def _layers(manifest: Any) -> Iterable[Mapping[str, Any]]:
    layers = manifest.get("layers") if isinstance(manifest, dict) else None
    if not isinstance(layers, list):
        raise ValueError("it has no list of layers")
    for layer in layers:
        if not isinstance(layer, dict) or not isinstance(layer.get("mediaType"), str):
            raise ValueError("one of its layers has no type")
        yield layer


def _layer_file(store: Path, layer: Mapping[str, Any]) -> Path:
    """The file of a layer, if size and digest are what the manifest says.

    Raises:
        CheckpointError: They aren't.
    """
    digest = _DIGEST.fullmatch(str(layer.get("digest")))
    if digest is None:
        raise CheckpointError(f"the digest {shown(layer.get('digest'))} is no SHA-256")
    path = store / "blobs" / f"sha256-{digest[1]}"
    try:
        size = path.stat().st_size
        sound = size == layer.get("size") and _sha256(path) == digest[1]
    except OSError as error:
        raise CheckpointError(f"Ollama's file {path} can't be read: {error.strerror}") from error
    if not sound:
        raise CheckpointError(
            f"Ollama's file {path} isn't the one of its manifest (it has {size:,} bytes, expected "
            f"{shown(layer.get('size'))}, or other content); pull the model again with Ollama"
        )
    return path


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
