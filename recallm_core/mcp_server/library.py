"""The documents that clients may read: all below some folders, and indexes named at the start.

A client's words never reach the file system. The folders are held open from the start and read by
the loader, which follows no links; what a client names is then looked up among what was read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from recallm_core.documents.document import Document
from recallm_core.documents.loading import load_documents
from recallm_core.errors import DocumentError
from recallm_core.inputs.arguments import shown
from recallm_core.inputs.folders import Below, Folder
from recallm_core.locks import ForkSafeLock
from recallm_core.mcp_server.watching import Watch
from recallm_core.retrieval import CorpusIndex

MakeIndex = Callable[[Sequence[Document], Callable[[int, int], None]], CorpusIndex]
_PARTS = 4  # indexes of parts of the documents that are remembered
_SHOWN = 8  # names that an error lists
State = tuple[tuple[Below, int, int, int], ...]


class Library:
    """Documents by name, read again when a file has changed.

    Args:
        folders: What may be read; nothing else ever is.
        indexes: Indexes that ``recallm index`` has built, by the name that clients use.
        make_index: Makes an index of all the documents; the default keeps it in memory.

    Raises:
        DocumentError: A folder isn't there or is none, or there is nothing to serve.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        *,
        indexes: Mapping[str, Path] | None = None,
        make_index: MakeIndex | None = None,
    ) -> None:
        self._paths = dict(indexes or {})
        if not folders and not self._paths:
            raise DocumentError("nothing to serve: name a folder of documents, or an index")
        self._folders: list[Folder] = []
        for path in folders:
            self._folders.append(_open_folder(path))
        self._make_index = make_index or _in_memory
        self._lock = ForkSafeLock()
        self._state: list[State] | None = None
        self._shelf = Shelf((), ())
        self._parts: dict[tuple[str, ...], CorpusIndex] = {}
        self._opened: dict[str, tuple[int, CorpusIndex]] = {}

    def close(self) -> None:
        """Lets go of the folders."""
        for folder in self._folders:
            folder.close()

    def shelf(self, watch: Watch) -> Shelf:
        """Returns all the documents as they are now.

        Raises:
            GenerationCancelledError: The client called it off.
        """
        with self._lock:
            state = [tuple(_state(folder)) for folder in self._folders]
            if state != self._state:
                counted = watch.count("reading documents")
                loaded = load_documents(self._folders, on_progress=counted)
                self._shelf = Shelf(loaded.documents, [folder.path for folder in self._folders])
                self._parts.clear()
                self._state = state
            return self._shelf

    def documents(self, paths: Sequence[str] | None, watch: Watch) -> tuple[Document, ...]:
        """Returns the documents in files and folders that a client names; None: all of them.

        Raises:
            DocumentError: A name is no file or folder here, or there is nothing to read.
        """
        shelf = self.shelf(watch)
        documents = shelf.documents if paths is None else shelf.below(paths)
        if not documents:
            raise DocumentError(
                "no document can be read in the folders that are served; one that was removed and "
                "made again is seen after a restart of the server"
            )
        return documents

    def index_of(self, documents: tuple[Document, ...], watch: Watch) -> CorpusIndex:
        """Returns an index of some of the documents; the last few are remembered."""
        key = tuple(document.id for document in documents)
        with self._lock:
            index = self._parts.get(key)
            if index is None:
                everything = len(documents) == len(self._shelf.documents)
                make = self._make_index if everything else _in_memory
                index = make(documents, watch.count("indexing"))
                while len(self._parts) >= _PARTS:
                    del self._parts[next(iter(self._parts))]
                self._parts[key] = index
            return index

    def index(self, name: str) -> CorpusIndex:
        """Returns an index that was named at the start, as it is now.

        Raises:
            DocumentError: There is none of this name.
            CorpusIndexError: It can't be opened.
        """
        if name not in self._paths:
            listed = ", ".join(sorted(self._paths)) or "none"
            raise DocumentError(f"no index is called {shown(name)} here; there are: {listed}")
        path = self._paths[name]
        with self._lock:
            changed = path.stat().st_mtime_ns
            known = self._opened.get(name)
            if known is None or known[0] != changed:
                known = self._opened[name] = changed, CorpusIndex.open(path)
            return known[1]


class Shelf:
    """Documents that were read, and the names that they go by.

    Args:
        documents: The documents.
        folders: Where they were read.
    """

    def __init__(self, documents: Sequence[Document], folders: Sequence[Path]) -> None:
        self.documents = tuple(documents)
        self.by_id = {document.id: document for document in documents}
        self._names = [frozenset(_names(document, folders)) for document in documents]
        self._served = ", ".join(folder.name for folder in folders)

    def below(self, paths: Sequence[str]) -> tuple[Document, ...]:
        """Returns the documents that some names mean, each once, in the order of the names.

        A name is a document's id, or a file or folder: below a folder served, with or without
        that folder's own name, or with its whole path.

        Raises:
            DocumentError: A name means none of the documents.
        """
        return tuple(
            dict.fromkeys(document for path in paths for document in self._find_documents(path))
        )

    def one(self, name: str) -> Document:
        """Returns the one document that a name means.

        Raises:
            DocumentError: It means none, or several.
        """
        documents = self._find_documents(name)
        if len(documents) > 1:
            ids = ", ".join(repr(document.id) for document in documents[:_SHOWN])
            raise DocumentError(f"{shown(name)} means {len(documents)} documents; name one: {ids}")
        return documents[0]

    def _find_documents(self, path: str) -> list[Document]:
        if path in self.by_id:
            return [self.by_id[path]]
        name = path.removeprefix("./").rstrip("/")
        if name == ".":
            return list(self.documents)
        pairs = zip(self.documents, self._names, strict=True)
        documents = [document for document, names in pairs if name in names]
        if not name or not documents:
            ids = ", ".join(repr(document_id) for document_id in list(self.by_id)[:_SHOWN])
            raise DocumentError(
                f"no document or folder is called {shown(path)} here. The folders served are: "
                f"{self._served}; documents are called as in the list of resources: {ids}"
                f"{' ...' if len(self.by_id) > _SHOWN else ''}"
            )
        return documents


def _open_folder(path: Path) -> Folder:
    try:
        return Folder(path.absolute())
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DocumentError(
            f"can't serve {str(path)!r}: {reason}; name a folder, and all below it can be read"
        ) from None


def _state(folder: Folder) -> Iterator[tuple[Below, int, int, int]]:
    """What changes where a file below a folder does: each with its size and its times."""
    waiting: list[Below] = [()]
    while waiting:
        below = waiting.pop()
        try:
            names = sorted(folder.names(below))
        except OSError:  # no folder, or it has gone; the loader says so
            continue
        for name in names:
            if name.startswith("."):
                continue
            inner = (*below, name)
            try:
                state = folder.state(inner)
            except OSError:
                continue
            yield inner, state.st_size, state.st_mtime_ns, state.st_ctime_ns
            if (state.st_mode & 0o170000) == 0o040000:
                waiting.append(inner)


def _names(document: Document, folders: Sequence[Path]) -> Iterator[str]:
    """A document's file, and each folder above it, in all the ways that they may be called."""
    origin = document.source_map.origin if document.source_map else None
    if origin is None:
        return
    for folder in folders:
        if not Path(origin).is_relative_to(folder):
            continue
        parts = Path(origin).relative_to(folder).parts
        for size in range(len(parts) + 1):
            below = "/".join(parts[:size])
            yield below
            yield f"{folder.name}/{below}".rstrip("/")
            yield f"{folder.as_posix()}/{below}".rstrip("/")


def _in_memory(
    documents: Sequence[Document], progress: Callable[[int, int], None]
) -> CorpusIndex:  # fmt: skip
    return CorpusIndex.build(documents, progress=progress)
