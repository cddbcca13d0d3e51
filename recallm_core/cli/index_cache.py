"""Indexes of documents that were asked about before, kept in the user's cache folder.

An index is found by the paths that were given and then brought up to date with what the files
hold now, so a wrong or stale one costs time but never changes an answer.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from recallm_core.documents.document import Document
from recallm_core.errors import CorpusIndexError
from recallm_core.models.writing import cache_root
from recallm_core.retrieval import CorpusIndex

Progress = Callable[[int, int], None]

LIMIT = 2_000_000_000  # bytes of all indexes; those that were used last stay
_BYTES_PER_CHARACTER = 5  # of an index: text, vectors and words take some 3
_USUAL = 16  # hex digits of a name


def folder() -> Path | None:
    """Returns where indexes are kept; None: nowhere, as there is no safe place for them."""
    try:
        root = cache_root() / "ask"
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return root if _private(root) else None
    except (OSError, RuntimeError, ValueError):
        return None


def cached_index(
    paths: Sequence[str],
    documents: Sequence[Document],
    *,
    root: Path | None,
    progress: Progress | None = None,
    limit: int = LIMIT,
) -> CorpusIndex:
    """Returns an index of exactly these documents, and pays only for what changed.

    Args:
        paths: The files and folders that the documents were read from.
        documents: What they hold now.
        root: Where indexes are kept; None: this one is kept in memory only.
        progress: Called with the chunks embedded so far and the total.
        limit: Bytes of all indexes that are kept.
    """
    characters = sum(len(document.text) for document in documents)
    if root is None or characters * _BYTES_PER_CHARACTER > limit:
        return CorpusIndex.build(documents, progress=progress)
    place = root / _name(paths)
    index = _open(place)
    if index.sync(documents, progress=progress):
        with suppress(CorpusIndexError, OSError):  # full, read-only, or another run was faster
            index.save(place)
            place.chmod(0o700)
    with suppress(OSError):
        os.utime(place)
        _evict(root, place, limit)
    return index


def _private(root: Path) -> bool:
    """Whether a folder is the user's own, and nobody else may put files there."""
    state = root.stat()
    owned = not hasattr(os, "getuid") or state.st_uid == os.getuid()
    return owned and not state.st_mode & 0o022 and os.access(root, os.W_OK)


def _name(paths: Sequence[str]) -> str:
    """Names the index of some paths, wherever the command is run."""
    digest = hashlib.sha256()
    for path in paths:
        for spelling in (os.fsencode(path), os.fsencode(Path(path).resolve())):
            digest.update(len(spelling).to_bytes(8, "little") + spelling)
    return digest.hexdigest()[:_USUAL]


def _open(place: Path) -> CorpusIndex:
    """The index in a folder; an empty one where there is none or none that can be trusted."""
    if place.is_symlink():
        with suppress(OSError):
            place.unlink()
    elif place.exists():
        try:
            return CorpusIndex.open(place)
        except (CorpusIndexError, OSError):
            shutil.rmtree(place, ignore_errors=True)
    return CorpusIndex()


def _evict(root: Path, current: Path, limit: int) -> None:
    """Removes the indexes that were used longest ago, until all fit the limit."""
    sizes = {place: _size(place) for place in root.iterdir() if place.is_dir()}
    total = sum(sizes.values())
    for place in sorted(sizes.keys() - {current}, key=lambda each: each.stat().st_mtime):
        if total <= limit:
            return
        shutil.rmtree(place, ignore_errors=True)
        total -= sizes[place]


def _size(place: Path) -> int:
    """Bytes on the disk; a file that two generations share counts once."""
    sizes = {}
    for entry in place.rglob("*"):
        with suppress(OSError):
            state = entry.lstat()
            sizes[state.st_ino] = state.st_size
    return sum(sizes.values())
