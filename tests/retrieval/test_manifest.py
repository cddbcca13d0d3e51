"""The list of an index's files comes back as it was written; any change of it is noticed."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from recallm_core.errors import CorpusIndexError
from recallm_core.retrieval.embedding import FunctionEmbedder
from recallm_core.retrieval.files import FileRecord
from recallm_core.retrieval.manifest import check_embedder, read_manifest, write_manifest


@pytest.fixture
def embedder() -> FunctionEmbedder:
    return FunctionEmbedder(lambda texts: [[1.0, 0.0] for _ in texts], name="two")


@pytest.fixture
def folder(tmp_path: Path, embedder: FunctionEmbedder) -> Path:
    write_manifest(tmp_path, [], embedder, {})
    return tmp_path


def sealed(folder: Path, **fields: Any) -> None:
    """Changes entries of the list, with a seal that fits."""
    path = folder / "manifest.json"
    content = json.dumps(json.loads(path.read_bytes()) | fields).encode()
    path.write_bytes(content)
    (folder / "manifest.sum").write_text(hashlib.blake2b(content, digest_size=32).hexdigest())


def test_it_comes_back_as_it_was_written(folder: Path, embedder: FunctionEmbedder) -> None:
    manifest = read_manifest(folder)
    assert (manifest["segments"], manifest["files"]) == ([], {})
    assert check_embedder(folder, manifest, embedder) == 2


def test_any_changed_byte_is_noticed(folder: Path) -> None:
    path = folder / "manifest.json"
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(CorpusIndexError, match="checksum differs"):
            read_manifest(folder)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"format": "another"}, "isn't the manifest of an index"),
        ({"version": 1}, "format version 1"),
        ({"segments": None}, "entries that no index writes"),
        ({"segments": [{"name": "../s", "documents": 1, "chunks": 1}]}, "no index writes"),
        ({"files": {"../../secret": [1, "0" * 64]}}, "entries that no index writes"),
    ],
)
def test_entries_that_no_index_writes_are_refused_even_under_a_seal(
    folder: Path, fields: dict[str, Any], why: str
) -> None:
    sealed(folder, **fields)
    with pytest.raises(CorpusIndexError, match=why):
        read_manifest(folder)


def test_another_embedder_is_refused(folder: Path) -> None:
    other = FunctionEmbedder(lambda texts: [[1.0] for _ in texts], name="one")
    with pytest.raises(CorpusIndexError, match="made by the embedder"):
        check_embedder(folder, read_manifest(folder), other)


def test_files_that_belong_to_no_segment_are_refused(
    tmp_path: Path, embedder: FunctionEmbedder
) -> None:
    write_manifest(tmp_path, [], embedder, {"stray.npy": FileRecord(1, "0" * 64)})
    with pytest.raises(CorpusIndexError, match="entries that no index writes"):
        read_manifest(tmp_path)
