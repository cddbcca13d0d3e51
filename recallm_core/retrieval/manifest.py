"""The list of a saved index's files, with their sizes and digests, under a seal."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recallm_core.errors import CorpusIndexError
from recallm_core.retrieval import files
from recallm_core.retrieval.embedding import Embedder
from recallm_core.retrieval.files import FileRecord, damage_error
from recallm_core.retrieval.saved_parts import Part, suffixes

VERSION = 3  # also raised where lexical.terms takes words in another way
_FORMAT = "recallm-index"
_SEGMENT = re.compile(r"s[0-9a-f]{32}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_MANIFEST = 1 << 24


def write_manifest(
    building: Path, parts: Sequence[Part], embedder: Embedder, written: Mapping[str, FileRecord]
) -> None:
    """Writes the list of a generation's files, and the seal over it."""
    manifest = {
        "format": _FORMAT,
        "version": VERSION,
        "embedder": embedder.fingerprint,
        "dim": embedder.dim,
        "segments": [
            {
                "name": part.name,
                "documents": len(part.segment.ids),
                "chunks": part.segment.chunk_count,
            }
            for part in parts
        ],
        "files": {name: [record.size, record.digest] for name, record in sorted(written.items())},
    }
    content = json.dumps(manifest, indent=1).encode()
    seal = hashlib.blake2b(content, digest_size=32).hexdigest()
    files.write(building / "manifest.json", content)
    files.write(building / "manifest.sum", seal.encode())


def read_manifest(folder: Path) -> dict[str, Any]:
    """Returns what a generation lists, its form checked.

    Raises:
        CorpusIndexError: It was changed since it was written, or has another version.
    """
    path = folder / "manifest.json"
    content = files.read(path, _MAX_MANIFEST)
    seal = files.read(folder / "manifest.sum", 64)
    if hashlib.blake2b(content, digest_size=32).hexdigest().encode() != seal:
        raise damage_error(path, "was changed since it was written: its checksum differs")
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise damage_error(path, f"isn't JSON ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise damage_error(path, "isn't the manifest of an index")
    if manifest.get("version") != VERSION:
        raise CorpusIndexError(
            f"the index {folder.parent} has format version {manifest.get('version')!r}, this "
            f"library reads version {VERSION}; build it again, or use the library that wrote it"
        )
    if not _well_formed(manifest):
        raise damage_error(path, "has entries that no index writes")
    return manifest


def _well_formed(manifest: Mapping[str, Any]) -> bool:
    """Whether names, sizes and digests have the form that this module writes."""
    segments, listed = manifest.get("segments"), manifest.get("files")
    if not isinstance(segments, list) or not isinstance(listed, dict):
        return False
    names = [entry.get("name") for entry in segments if isinstance(entry, dict)]
    if len(names) != len(segments) or len(set(map(str, names))) != len(names):
        return False
    counts = [entry.get(key) for entry in segments for key in ("documents", "chunks")]
    return (
        all(isinstance(name, str) and _SEGMENT.fullmatch(name) for name in names)
        and all(type(count) is int and 0 <= count < 1 << 40 for count in counts)
        and set(listed)
        == {f"{name}{suffix}" for name in names for suffix in suffixes(str(name), listed)}
        and all(_is_record(record) for record in listed.values())
    )


def _is_record(entry: object) -> bool:
    if not isinstance(entry, list) or len(entry) != 2:
        return False
    size, digest = entry
    sized = type(size) is int and 0 <= size < 1 << 50
    return sized and isinstance(digest, str) and _DIGEST.fullmatch(digest) is not None


def check_embedder(folder: Path, manifest: Mapping[str, Any], embedder: Embedder) -> int:
    """Returns the numbers in a vector; an embedder without a size takes the saved one.

    Raises:
        CorpusIndexError: The index was made by another embedder.
    """
    made_by, dim = manifest.get("embedder"), manifest.get("dim")
    expected = (embedder.fingerprint, embedder.dim or dim)
    if not isinstance(dim, int) or dim < 0 or (made_by, dim) != expected:
        raise CorpusIndexError(
            f"the index {folder.parent} was made by the embedder {made_by!r} ({dim} numbers), but "
            f"it is opened with {embedder.fingerprint!r} ({embedder.dim}); open it with its own, "
            "CorpusIndex.open(path, embedder=...), or build it again"
        )
    return dim
