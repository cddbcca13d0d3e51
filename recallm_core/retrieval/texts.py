"""The documents of a segment in an SQLite file: written once, then read one at a time."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from recallm_core.documents.document import Document
from recallm_core.documents.source_map import SourceMap
from recallm_core.errors import CorpusIndexError
from recallm_core.locks import ForkSafeLock
from recallm_core.retrieval.files import damage_error
from recallm_core.retrieval.recent import RecentDocuments

_TABLE = (
    "CREATE TABLE document (position INTEGER PRIMARY KEY, id TEXT NOT NULL, "
    "automatic INTEGER NOT NULL, title TEXT, metadata TEXT NOT NULL, source TEXT, "
    "characters INTEGER NOT NULL, text BLOB NOT NULL)"
)
_CACHED_BYTES = 1 << 26


def write_texts(path: Path, documents: Iterable[Document]) -> None:
    """Writes documents into a new SQLite file and waits until it is on the disk.

    Raises:
        CorpusIndexError: Metadata can't be written as JSON.
    """
    with closing(sqlite3.connect(path)) as store, store:
        store.execute("PRAGMA journal_mode = OFF")  # a file that isn't complete is never used
        store.execute("PRAGMA synchronous = OFF")
        store.execute(_TABLE)
        store.executemany(
            "INSERT INTO document VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (_row(position, document) for position, document in enumerate(documents)),
        )
    with path.open("rb") as written:
        os.fsync(written.fileno())


def _row(position: int, document: Document) -> tuple[Any, ...]:
    try:
        metadata = json.dumps(dict(document.metadata), allow_nan=False)
        restored = json.loads(metadata)
    except (TypeError, ValueError, RecursionError) as error:
        raise CorpusIndexError(
            f"the metadata of document {document.id!r} can't be saved as JSON ({error}); "
            "keep strings, numbers, booleans, None, lists and dicts"
        ) from error
    if restored != dict(document.metadata):
        raise CorpusIndexError(
            f"the metadata of document {document.id!r} would come back changed from JSON; "
            "keys must be strings, and tuples must be lists"
        )
    source = document.source_map
    return (
        position,
        document.id,
        int(document.automatic_id),
        document.title,
        metadata,
        None if source is None else _source_json(source),
        len(document.text),
        document.text.encode(),
    )


def _source_json(source: SourceMap) -> str:
    return json.dumps([source.origin, source.starts, source.lines, source.pages, source.places])


def _source_map(stored: str | None) -> SourceMap | None:
    if stored is None:
        return None
    origin, starts, lines, pages, places = json.loads(stored)
    return SourceMap(
        origin,
        tuple(starts),
        None if lines is None else tuple(lines),
        None if pages is None else tuple(pages),
        None if places is None else tuple(places),
    )


def _is_row(document_id: object, metadata: object, characters: object) -> bool:
    sized = type(characters) is int and 0 <= characters < 1 << 48
    return sized and isinstance(document_id, str) and isinstance(metadata, dict)


class SavedTexts:
    """The documents of a saved segment by position; recently used ones stay in memory.

    Args:
        path: The file; it is opened once, so that deleting it later doesn't matter.

    Raises:
        CorpusIndexError: It isn't an SQLite file with exactly the expected table.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = ForkSafeLock()
        self._recent: RecentDocuments[int] = RecentDocuments(_CACHED_BYTES)
        address = path.absolute().as_uri() + "?mode=ro&immutable=1"
        self._store = sqlite3.connect(address, uri=True, check_same_thread=False)
        try:
            self._check()
            query = "SELECT id, metadata, characters FROM document ORDER BY position"
            rows = self._store.execute(query).fetchall()
            self.ids: tuple[str, ...] = tuple(row[0] for row in rows)
            self.metadata: tuple[Mapping[str, Any], ...] = tuple(json.loads(row[1]) for row in rows)
            self.characters: tuple[int, ...] = tuple(row[2] for row in rows)
            if not all(map(_is_row, self.ids, self.metadata, self.characters)):
                raise damage_error(path, "has columns of another type than an index writes")
        except (sqlite3.Error, ValueError, TypeError, RecursionError, OverflowError) as error:
            self._store.close()
            raise damage_error(path, f"can't be read as a table of documents ({error})") from error
        except CorpusIndexError:
            self._store.close()
            raise

    def __del__(self) -> None:
        store = getattr(self, "_store", None)
        if store is not None:
            store.close()

    def _check(self) -> None:
        """A foreign file could hold views and triggers that run when a table is read."""
        self._store.execute("PRAGMA trusted_schema = OFF")
        self._store.execute("PRAGMA cell_size_check = ON")
        schema = self._store.execute("SELECT sql FROM sqlite_master").fetchall()
        if schema != [(_TABLE,)]:
            raise damage_error(self._path, "has tables other than the one of an index")
        query = "SELECT count(*), coalesce(max(position) + 1, 0), min(position) FROM document"
        count, size, first = self._store.execute(query).fetchone()
        if count != size or (count and first != 0):
            raise damage_error(self._path, "lacks some of its documents")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: int) -> Document:
        with self._lock:
            document = self._recent.get(position) or self._read(position)
            self._recent.add({position: document})
        return document

    def _read(self, position: int) -> Document:
        query = "SELECT id, automatic, title, source, characters, text FROM document WHERE "
        try:
            row = self._store.execute(query + "position = ?", (position,)).fetchone()
            if row is None:
                raise IndexError(f"no document at position {position}")
            document_id, automatic, title, source, characters, text = row
            document = Document(
                text.decode(),
                None if automatic else document_id,
                title,
                self.metadata[position],
                source_map=_source_map(source),
            )
        except (sqlite3.Error, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise damage_error(self._path, f"has an unreadable document {position}") from error
        if len(document.text) != characters or document.id != document_id:
            raise damage_error(
                self._path, f"has a document {position} with another text than it says"
            )
        return document
