"""An index in a folder: each save is a new generation, swapped in by renaming one small file.

The folder holds ``CURRENT`` (the name of the generation in force), ``lock`` and the generations,
each a folder with ``manifest.json`` (versions, sizes, checksums), arrays as ``.npy`` and documents
as SQLite. Files of a segment never change, so a new generation links those it keeps. Whatever
happens while a generation is being written, ``CURRENT`` names a complete one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recallm_core.errors import CorpusIndexError
from recallm_core.retrieval import files
from recallm_core.retrieval.embedding import Embedder
from recallm_core.retrieval.files import FileRecord, damaged
from recallm_core.retrieval.postings import Postings
from recallm_core.retrieval.segment import Segment, arrays
from recallm_core.retrieval.texts import SavedTexts, write_texts
from recallm_core.retrieval.token_counts import UNKNOWN, Counts
from recallm_core.retrieval.vectors import Coarse

VERSION = 3  # also raised where lexical.terms takes words in another way
_FORMAT = "recallm-index"
_GENERATION = re.compile(r"generation-(\d{6,12})")
_BUILDING = re.compile(r"building-\d+")
_SEGMENT = re.compile(r"s[0-9a-f]{32}")
_TOKENS = re.compile(r"(s[0-9a-f]{32})-tokens-([0-9a-f]{16})\.npy")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_MANIFEST = 1 << 24
_KEPT = 2  # generations: readers that are just opening the previous one find it whole
_ATTEMPTS = 5  # to open, while writers replace the generation that was about to be read
_CHECKED_AT_ONCE = 1 << 16  # vectors
_PATIENCE = 10.0  # seconds that a writer waits for another


@dataclass(frozen=True, slots=True)
class Part:
    """A segment as it is saved: its name, its data, which documents are alive, token counts."""

    name: str
    segment: Segment
    live: npt.NDArray[np.bool_]
    tokens: Mapping[str, Counts]


@dataclass(frozen=True, slots=True)
class Saved:
    """A generation on the disk."""

    generation: int
    files: Mapping[str, FileRecord]


@dataclass(frozen=True, slots=True)
class Loaded:
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
) -> Saved:
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
        with files.locked(folder / "lock", _PATIENCE):
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
) -> Saved:
    _remove_unfinished(folder)
    number = max([0, *_generations(folder)]) + 1
    building = folder / f"building-{os.getpid()}"
    building.mkdir()
    try:
        old = None if current is None else folder / _name(current)
        written: dict[str, FileRecord] = {}
        for part in parts:
            written |= _write_part(building, part, old, known)
        _write_manifest(building, parts, embedder, written)
        files.sync_folder(building)
        building.rename(folder / _name(number))
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    files.sync_folder(folder)
    _point(folder, number)
    return Saved(number, written)


def _point(folder: Path, number: int) -> None:
    """Puts a generation in force."""
    pointer = folder / "CURRENT.new"
    pointer.unlink(missing_ok=True)
    files.write(pointer, f"{_name(number)}\n".encode())
    pointer.replace(folder / "CURRENT")
    files.sync_folder(folder)


def _write_part(
    building: Path, part: Part, old: Path | None, known: Mapping[str, FileRecord]
) -> dict[str, FileRecord]:
    """Writes the files of one segment, or links them to those of the old generation."""
    written: dict[str, FileRecord] = {}

    def keep(name: str) -> bool:
        if old is None or name not in known:
            return False
        try:
            os.link(old / name, building / name, follow_symlinks=False)
        except OSError:
            return False
        written[name] = known[name]
        return True

    table = f"{part.name}.db"
    if not keep(table):
        texts = part.segment.texts
        write_texts(building / table, (texts[n] for n in range(len(part.segment.ids))))
        written[table] = files.record(building / table)
    for key, values in arrays(part.segment):
        name = f"{part.name}-{key}.npy"
        if not keep(name):
            files.write_array(building / name, values)
            written[name] = files.record(building / name)
    growing = {f"tokens-{name}": counts for name, counts in part.tokens.items()}
    for key, values in {"live": part.live, **growing}.items():  # a generation has its own
        name = f"{part.name}-{key}.npy"
        files.write_array(building / name, values)
        written[name] = files.record(building / name)
    return written


def _write_manifest(
    building: Path, parts: Sequence[Part], embedder: Embedder, written: Mapping[str, FileRecord]
) -> None:
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
        raise damaged(path, f"names no generation but {content!r}")
    return int(match[1])


def load(folder: Path, embedder: Embedder) -> Loaded:
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
                raise damaged(Path(error.filename or folder), "is missing") from error
    except (OSError, sqlite3.Error) as error:
        raise CorpusIndexError(f"the index {folder} can't be read ({error})") from error
    raise AssertionError("unreachable")


def _load_generation(folder: Path, number: int, embedder: Embedder) -> Loaded:
    if folder.is_symlink():
        raise damaged(folder, "is a symbolic link, which an index never has")
    manifest = _read_manifest(folder)
    dim = _check_maker(folder, manifest, embedder)
    records = {name: FileRecord(*record) for name, record in manifest["files"].items()}
    for name, record in records.items():
        files.check(folder / name, record)
    segments = tuple(_load_segment(folder, entry, records, dim) for entry in manifest["segments"])
    return Loaded(number, records, segments, dim)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    content = files.read(path, _MAX_MANIFEST)
    seal = files.read(folder / "manifest.sum", 64)
    if hashlib.blake2b(content, digest_size=32).hexdigest().encode() != seal:
        raise damaged(path, "was changed since it was written: its checksum differs")
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"isn't JSON ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise damaged(path, "isn't the manifest of an index")
    if manifest.get("version") != VERSION:
        raise CorpusIndexError(
            f"the index {folder.parent} has format version {manifest.get('version')!r}, this "
            f"library reads version {VERSION}; build it again, or use the library that wrote it"
        )
    if not _well_formed(manifest):
        raise damaged(path, "has entries that no index writes")
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
        == {f"{name}{suffix}" for name in names for suffix in _suffixes(str(name), listed)}
        and all(_is_record(record) for record in listed.values())
    )


def _suffixes(name: str, listed: Collection[str]) -> tuple[str, ...]:
    """The files of a segment; those of an approximate search are there together or not at all."""
    approximate = any(f"{name}{suffix}" in listed for suffix in _COARSE)
    counted = (f"-tokens-{digest}.npy" for digest in _counted(name, listed))
    return (*_SUFFIXES, *(_COARSE if approximate else ()), *counted)


def _counted(name: str, listed: Collection[str]) -> list[str]:
    """The tokenizers under which a segment's chunks were counted."""
    matches = (_TOKENS.fullmatch(filename) for filename in listed)
    return [match[2] for match in matches if match and match[1] == name]


def _is_record(entry: object) -> bool:
    if not isinstance(entry, list) or len(entry) != 2:
        return False
    size, digest = entry
    sized = type(size) is int and 0 <= size < 1 << 50
    return sized and isinstance(digest, str) and _DIGEST.fullmatch(digest) is not None


def _check_maker(folder: Path, manifest: Mapping[str, Any], embedder: Embedder) -> int:
    """The numbers in a vector; an embedder without a size of its own takes the saved one."""
    made_by, dim = manifest.get("embedder"), manifest.get("dim")
    expected = (embedder.fingerprint, embedder.dim or dim)
    if not isinstance(dim, int) or dim < 0 or (made_by, dim) != expected:
        raise CorpusIndexError(
            f"the index {folder.parent} was made by the embedder {made_by!r} ({dim} numbers), but "
            f"it is opened with {embedder.fingerprint!r} ({embedder.dim}); open it with its own, "
            "CorpusIndex.open(path, embedder=...), or build it again"
        )
    return dim


_COLUMNS = {
    "chunk_document": ("int32", "chunks"),
    "chunk_start": ("int64", "chunks"),
    "chunk_end": ("int64", "chunks"),
    "chunk_parent": ("int32", "chunks"),
    "chunk_terms": ("int32", "chunks"),
    "title_terms": ("int32", "documents"),
}
_POSTINGS = {"keys": "uint64", "starts": "int64", "places": "int32", "counts": "uint16"}
_SUFFIXES = (
    ".db",
    "-live.npy",
    "-vectors.npy",
    *(f"-{name}.npy" for name in _COLUMNS),
    *(f"-{table}-{name}.npy" for table in ("words", "titles") for name in _POSTINGS),
)


_COARSE = ("-coarse-centroids.npy", "-coarse-lists.npy")


def _load_segment(
    folder: Path, entry: Mapping[str, Any], records: Mapping[str, FileRecord], dim: int
) -> Part:
    name = entry["name"]
    sizes = {"documents": entry["documents"], "chunks": entry["chunks"]}

    def array(key: str, dtype: str, *shape: int | None) -> npt.NDArray[Any]:
        return files.read_array(folder / f"{name}-{key}.npy", dtype, shape)

    columns: dict[str, Any] = {
        key: array(key, dtype, sizes[of]) for key, (dtype, of) in _COLUMNS.items()
    }
    postings: dict[str, Any] = {
        table: Postings(
            **{key: array(f"{table}-{key}", dtype, None) for key, dtype in _POSTINGS.items()}
        )
        for table in ("words", "titles")
    }
    coarse = None
    if f"{name}{_COARSE[0]}" in records:
        centroids = array("coarse-centroids", "float32", None, dim)
        coarse = Coarse(centroids, array("coarse-lists", "int32", sizes["chunks"]))
    texts = SavedTexts(folder / f"{name}.db")
    segment = Segment(
        texts=texts,
        ids=texts.ids,
        metadata=texts.metadata,
        vectors=array("vectors", "float16", sizes["chunks"], dim),
        coarse=coarse,
        **columns,
        **postings,
    )
    live = array("live", "bool", sizes["documents"])
    tokens = {
        digest: np.array(array(f"tokens-{digest}", "int32", sizes["chunks"]))
        for digest in _counted(name, records)
    }
    if len(texts) != sizes["documents"] or len(set(texts.ids)) != len(texts.ids):
        raise damaged(folder / f"{name}.db", f"hasn't {sizes['documents']} distinct documents")
    _check_segment(folder / name, segment, texts.characters)
    if any((counts < UNKNOWN).any() for counts in tokens.values()):
        raise damaged(folder / name, "has impossible values in its token counts")
    return Part(name, segment, np.array(live), tokens)


def _check_segment(path: Path, segment: Segment, characters: Sequence[int]) -> None:
    """Raises where numbers point outside; after this, a search can't read a wrong place."""
    documents, chunks = len(segment.ids), segment.chunk_count
    sorted_by = (segment.chunk_document, segment.chunk_parent)
    holds = {
        "documents": _within(segment.chunk_document, documents),
        "ranges": bool(
            (segment.chunk_start >= 0).all() and (segment.chunk_end >= segment.chunk_start).all()
        ),
        "ends": _end_inside(segment, characters),
        "sections": _within(segment.chunk_parent, chunks) and _dense(segment.chunk_parent),
        "order": all(bool((np.diff(column) >= 0).all()) for column in sorted_by),
        "lengths": bool((segment.chunk_terms >= 0).all() and (segment.title_terms >= 0).all()),
        "words": _sound(segment.words, chunks),
        "titles": _sound(segment.titles, documents),
        "vectors": all(
            bool(np.isfinite(segment.vectors[at : at + _CHECKED_AT_ONCE]).all())
            for at in range(0, chunks, _CHECKED_AT_ONCE)
        ),
        "lists": segment.coarse is None
        or (
            _within(segment.coarse.lists, len(segment.coarse.centroids))
            and bool(np.isfinite(segment.coarse.centroids).all())
        ),
    }
    wrong = [name for name, right in holds.items() if not right]
    if wrong:
        raise damaged(path, f"has impossible values in its {', '.join(wrong)}")


def _end_inside(segment: Segment, characters: Sequence[int]) -> bool:
    limits = np.array(characters, np.int64)
    inside = _within(segment.chunk_document, len(limits))
    return inside and bool((segment.chunk_end <= limits[segment.chunk_document]).all())


def _within(values: npt.NDArray[Any], limit: int) -> bool:
    return not len(values) or (int(values.min()) >= 0 and int(values.max()) < limit)


def _dense(numbers: npt.NDArray[Any]) -> bool:
    """Whether numbers count up from 0 without a gap."""
    return not len(numbers) or (int(numbers[0]) == 0 and int(np.diff(numbers).max(initial=0)) <= 1)


def _sound(postings: Postings, limit: int) -> bool:
    starts = postings.starts
    return (
        len(starts) == len(postings.keys) + 1
        and len(postings.places) == len(postings.counts)
        and int(starts[0]) == 0
        and int(starts[-1]) == len(postings.places)
        and bool((np.diff(starts) > 0).all())
        and bool((postings.keys[1:] > postings.keys[:-1]).all())
        and _within(postings.places, limit)
        and bool((postings.counts > 0).all())
    )
