"""An index in a folder: each save is a new generation, swapped in by renaming one small file.

The folder holds ``CURRENT`` (the name of the generation in force), ``lock`` and the generations,
each a folder with ``manifest.json`` (versions, sizes, checksums), arrays as ``.npy`` and documents
as SQLite. Files of a segment never change, so a new generation links those it keeps. Whatever
happens while a generation is being written, ``CURRENT`` names a complete one.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recallm_core.errors import CorpusIndexError
from recallm_core.retrieval import files
from recallm_core.retrieval.embedding import Embedder
from recallm_core.retrieval.files import FileRecord, damage_error
from recallm_core.retrieval.manifest import check_embedder, read_manifest, write_manifest
from recallm_core.retrieval.saved_parts import Part, load_part, write_part

_GENERATION = re.compile(r"generation-(\d{6,12})")
_BUILDING = re.compile(r"building-\d+")
_KEPT = 2  # generations: readers that are just opening the previous one find it whole
_ATTEMPTS = 5  # to open, while writers replace the generation that was about to be read
_PATIENCE = 10.0  # seconds that a writer waits for another


@dataclass(frozen=True, slots=True)
class SavedGeneration:
    """A generation on the disk."""

    generation: int
    files: Mapping[str, FileRecord]


@dataclass(frozen=True, slots=True)
class LoadedGeneration:
    """A generation that was read."""

    generation: int
    files: Mapping[str, FileRecord]
    segments: tuple[Part, ...]
    dim: int


def save(
    folder: Path,
    parts: Sequence[Part],
    embedder: Embedder,
    *,
    expected: int | None,
    known: Mapping[str, FileRecord],
) -> SavedGeneration:
    """Writes a new generation and puts it in force.

    Args:
        folder: Of the index; made if it isn't there.
        parts: All segments.
        embedder: What made the vectors.
        expected: The generation that ``parts`` were derived from; None: none, replace any.
        known: Files of that generation that were checked, and can be kept.

    Raises:
        CorpusIndexError: The folder can't be written, is another writer's, holds something else,
            or a newer generation than expected.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(folder)
        with files.file_lock(folder / "lock", _PATIENCE):
            current = _current(folder)
            if expected is not None and current != expected:
                raise CorpusIndexError(
                    f"the index {folder} was changed by another process (generation {current}, "
                    f"opened was {expected}); open it again and repeat the change"
                )
            saved = _write_generation(folder, parts, embedder, current, known)
            _clean(folder, saved.generation)
            return saved
    except (OSError, sqlite3.Error) as error:
        raise CorpusIndexError(
            f"the index {folder} can't be written ({error}); make room, check who may write there "
            "and save again: what was saved before is untouched"
        ) from error


def _refuse_foreign(folder: Path) -> None:
    """Raises where a folder holds anything that isn't an index's."""
    for entry in folder.iterdir():
        ours = entry.name in ("CURRENT", "CURRENT.new", "lock")
        if not ours and not _GENERATION.fullmatch(entry.name) and not _BUILDING.match(entry.name):
            raise CorpusIndexError(
                f"the folder {folder} holds {entry.name!r}, which isn't part of an index; "
                "choose an empty folder"
            )


def _write_generation(
    folder: Path,
    parts: Sequence[Part],
    embedder: Embedder,
    current: int | None,
    known: Mapping[str, FileRecord],
) -> SavedGeneration:
    _remove_unfinished(folder)
    number = max([0, *_generations(folder)]) + 1
    building = folder / f"building-{os.getpid()}"
    building.mkdir()
    try:
        old = None if current is None else folder / _name(current)
        written: dict[str, FileRecord] = {}
        for part in parts:
            written |= write_part(building, part, old, known)
        write_manifest(building, parts, embedder, written)
        files.sync_folder(building)
        building.rename(folder / _name(number))
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    files.sync_folder(folder)
    _point(folder, number)
    return SavedGeneration(number, written)


def _point(folder: Path, number: int) -> None:
    """Puts a generation in force."""
    pointer = folder / "CURRENT.new"
    pointer.unlink(missing_ok=True)
    files.write(pointer, f"{_name(number)}\n".encode())
    pointer.replace(folder / "CURRENT")
    files.sync_folder(folder)


def _clean(folder: Path, newest: int) -> None:
    """Removes generations that no new reader will open."""
    for number in sorted(_generations(folder))[:-_KEPT]:
        if number != newest:
            shutil.rmtree(folder / _name(number), ignore_errors=True)


def _remove_unfinished(folder: Path) -> None:
    """Removes what writers left that were killed; the lock says that none is at work."""
    for entry in folder.iterdir():
        if _BUILDING.fullmatch(entry.name) and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)


def _generations(folder: Path) -> list[int]:
    matches = (_GENERATION.fullmatch(entry.name) for entry in folder.iterdir())
    return [int(match[1]) for match in matches if match]


def _name(generation: int) -> str:
    return f"generation-{generation:06d}"


def _current(folder: Path) -> int | None:
    """The generation in force; None where there is none."""
    path = folder / "CURRENT"
    try:
        content = files.read(path, 64)
    except FileNotFoundError:
        return None
    match = _GENERATION.fullmatch(content.decode("latin-1").strip("\n"))
    if match is None:
        raise damage_error(path, f"names no generation but {content!r}")
    return int(match[1])


def load(folder: Path, embedder: Embedder) -> LoadedGeneration:
    """Reads the generation in force; every file is checked before it is used.

    Raises:
        CorpusIndexError: There is no index, or one that is damaged, of another version or made by
            another embedder.
    """
    try:
        for attempt in range(_ATTEMPTS):
            number = _current(folder)
            if number is None:
                raise CorpusIndexError(
                    f"{folder} holds no index; build one with CorpusIndex.build(documents, "
                    f"path={str(folder)!r}) or recallm index build"
                )
            try:
                return _load_generation(folder / _name(number), number, embedder)
            except (OSError, sqlite3.Error, CorpusIndexError) as error:
                if _current(folder) != number and attempt + 1 < _ATTEMPTS:
                    continue  # a writer has put another generation in force, and removed this one
                if not isinstance(error, FileNotFoundError):
                    raise
                raise damage_error(Path(error.filename or folder), "is missing") from error
    except (OSError, sqlite3.Error) as error:
        raise CorpusIndexError(f"the index {folder} can't be read ({error})") from error
    raise AssertionError("unreachable")


def _load_generation(folder: Path, number: int, embedder: Embedder) -> LoadedGeneration:
    if folder.is_symlink():
        raise damage_error(folder, "is a symbolic link, which an index never has")
    manifest = read_manifest(folder)
    dim = check_embedder(folder, manifest, embedder)
    records = {name: FileRecord(*record) for name, record in manifest["files"].items()}
    for name, record in records.items():
        files.check(folder / name, record)
    segments = tuple(load_part(folder, entry, records, dim) for entry in manifest["segments"])
    return LoadedGeneration(number, records, segments, dim)
