"""One segment as files: written, linked, and checked before a search reads a number of it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recallm_core.retrieval import files
from recallm_core.retrieval.files import FileRecord, damage_error
from recallm_core.retrieval.postings import Postings
from recallm_core.retrieval.segment import Segment, arrays
from recallm_core.retrieval.texts import SavedTexts, write_texts
from recallm_core.retrieval.token_counts import UNKNOWN, Counts
from recallm_core.retrieval.vectors import Coarse

_TOKENS = re.compile(r"(s[0-9a-f]{32})-tokens-([0-9a-f]{16})\.npy")
_CHECKED_AT_ONCE = 1 << 16  # vectors


@dataclass(frozen=True, slots=True)
class Part:
    """A segment as it is saved: its name, its data, which documents are alive, token counts."""

    name: str
    segment: Segment
    live: npt.NDArray[np.bool_]
    tokens: Mapping[str, Counts]


def write_part(
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


def suffixes(name: str, listed: Collection[str]) -> tuple[str, ...]:
    """Returns how the files of a segment end; an approximate search has both of its or none."""
    approximate = any(f"{name}{suffix}" in listed for suffix in _COARSE)
    counted = (f"-tokens-{digest}.npy" for digest in token_digests(name, listed))
    return (*_SUFFIXES, *(_COARSE if approximate else ()), *counted)


def token_digests(name: str, listed: Collection[str]) -> list[str]:
    """Returns the tokenizers under which a segment's chunks were counted."""
    matches = (_TOKENS.fullmatch(filename) for filename in listed)
    return [match[2] for match in matches if match and match[1] == name]


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


def load_part(
    folder: Path, entry: Mapping[str, Any], records: Mapping[str, FileRecord], dim: int
) -> Part:
    """Returns a segment from its files, whose digests were checked.

    Raises:
        CorpusIndexError: A number in them points outside.
    """
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
        for digest in token_digests(name, records)
    }
    if len(texts) != sizes["documents"] or len(set(texts.ids)) != len(texts.ids):
        raise damage_error(folder / f"{name}.db", f"hasn't {sizes['documents']} distinct documents")
    _check_segment(folder / name, segment, texts.characters)
    if any((counts < UNKNOWN).any() for counts in tokens.values()):
        raise damage_error(folder / name, "has impossible values in its token counts")
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
        "words": _is_sound(segment.words, chunks),
        "titles": _is_sound(segment.titles, documents),
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
        raise damage_error(path, f"has impossible values in its {', '.join(wrong)}")


def _end_inside(segment: Segment, characters: Sequence[int]) -> bool:
    limits = np.array(characters, np.int64)
    inside = _within(segment.chunk_document, len(limits))
    return inside and bool((segment.chunk_end <= limits[segment.chunk_document]).all())


def _within(values: npt.NDArray[Any], limit: int) -> bool:
    return not len(values) or (int(values.min()) >= 0 and int(values.max()) < limit)


def _dense(numbers: npt.NDArray[Any]) -> bool:
    """Whether numbers count up from 0 without a gap."""
    return not len(numbers) or (int(numbers[0]) == 0 and int(np.diff(numbers).max(initial=0)) <= 1)


def _is_sound(postings: Postings, limit: int) -> bool:
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
