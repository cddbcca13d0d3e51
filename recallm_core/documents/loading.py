"""Files and folders -> documents, with every file that was left out and why."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recallm_core.documents.chunking import headings
from recallm_core.documents.document import Document
from recallm_core.documents.encodings import decode
from recallm_core.documents.extracted import ExtractedText
from recallm_core.documents.html_page import extract_html
from recallm_core.documents.kinds.registry import READERS, reader_for
from recallm_core.documents.kinds.source_code import is_source_code
from recallm_core.documents.limited_process import pdf_process
from recallm_core.documents.pdf import extract_pdf
from recallm_core.documents.plain_json import check_json
from recallm_core.documents.source_map import SourceMap
from recallm_core.errors import DocumentError
from recallm_core.inputs.arguments import shown, whole_number
from recallm_core.inputs.folders import Below, Folder

SUFFIXES = (".txt", ".md", ".rst", ".html", ".htm", ".pdf", ".jsonl", *READERS)
"""What is read from a folder, with source code; a file that is named itself counts as text
otherwise."""

_BAD_LINES_SHOWN = 20
_DEEPEST = 500  # folders in folders
_INSTALLED = frozenset({"node_modules", "site-packages", "__pycache__"})
_NEWLINE = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file, or a part of one, that gave no document.

    Attributes:
        path: The file, as reached from the path that was given.
        reason: Why, and where it helps, what to do.
    """

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something to know of a file that gave a document.

    Attributes:
        path: The file, as reached from the path that was given.
        text: What, for people.
    """

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """What loading gave; iterating gives the documents.

    Attributes:
        documents: In order of the given paths, folders sorted by name.
        skipped: What was left out.
        notes: What to know of files that gave a document: text that no reader sees, which was left
            out, and pages where the order of the text is doubtful.
    """

    documents: tuple[Document, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[Note, ...] = ()

    def __iter__(self) -> Iterator[Document]:
        return iter(self.documents)

    def __len__(self) -> int:
        return len(self.documents)


@dataclass(frozen=True, slots=True)
class _File:
    """A file to read: where it is, what people see of it, its id and the way to it.

    Attributes:
        folder: The folder that was given; None: the file was.
        below: Where it is in that folder.
    """

    path: Path
    shown: str
    id: str
    folder: Folder | None = None
    below: Below = ()


class _UnfitError(Exception):
    """A file gives no document; the message is the reason for the report."""


def load_documents(
    paths: str | os.PathLike[str] | Folder | Iterable[str | os.PathLike[str] | Folder],
    *,
    max_bytes: int = 50_000_000,
    keep_hidden: bool = False,
    on_skip: Callable[[Skipped], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Loaded:
    """Reads files, and folders with all that is below them, as documents.

    Text, source code, Markdown and reStructuredText stay as they are in the file, only decoded: by
    their byte order mark, else as UTF-8; anything else is skipped, as a guess would make false
    quotes. Of HTML (whose declared charset counts) and PDF the text is taken, and of Office files,
    mails, books, notebooks, Rich Text, JSON and tables of values, each part mapped to its place in
    the file (``kinds.registry``); other kinds are skipped by name, with what converts them. A line
    of a ``.jsonl`` file is a document with ``text`` and, if they are there, ``id``, ``title`` and
    ``metadata``.

    A document's id is its path below the folder that was given, with ``/``; where two folders
    have the same, the later one's name comes before it. Lines of ``.jsonl`` add ``#`` and their
    number. Hidden files and folders in a folder are passed over; links in it are never followed,
    devices and pipes never opened. Folders below it of installed packages and compiled code are
    left out, with a report.

    Args:
        paths: Files and folders; a ``Folder`` is read as it is held open, and stays open.
        max_bytes: Larger files are skipped.
        keep_hidden: Also read what a browser wouldn't show of an HTML page.
        on_skip: Called with each thing that is left out, when it is.
        on_progress: Called with the number of files read and the number of all, after each.

    Raises:
        DocumentError: A given path doesn't exist or can't be opened. Nothing was read then.
    """
    sources = [paths] if isinstance(paths, str | os.PathLike | Folder) else paths
    if not isinstance(sources, Iterable) or isinstance(sources, bytes | Mapping):
        raise DocumentError(f"paths must be a path or a list of paths, got {shown(paths)}")
    max_bytes = whole_number("max_bytes", max_bytes, 0, 1 << 40)
    loader = _Loader(max_bytes, on_skip, on_progress, keep_hidden)
    return loader.load([_readable_path(path) for path in sources])


def _readable_path(source: str | os.PathLike[str] | Folder) -> Path | Folder:
    """Returns a path that the caller named, or raises unless it can be read."""
    if isinstance(source, Folder):
        return source
    if not isinstance(source, str | os.PathLike):
        raise DocumentError(f"paths must be a path or a list of paths, got {shown(source)} in it")
    path = Path(source)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise DocumentError(f"can't read {_path_text(path)!r}: {_why(error)}") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DocumentError(f"{_path_text(path)!r} is neither a file nor a folder")
    rights = os.R_OK | os.X_OK if stat.S_ISDIR(mode) else os.R_OK
    if not os.access(path, rights):
        raise DocumentError(f"can't read {_path_text(path)!r}: permission denied")
    return path


def _why(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def _path_text(path: str | os.PathLike[str]) -> str:
    """Returns a path as text that UTF-8 can hold, whatever bytes its name has."""
    return Path(path).as_posix().encode("utf-8", "replace").decode("utf-8")


@dataclass(slots=True)
class _Loader:
    """The cursor of one call: what was read and skipped so far, and which ids are taken."""

    max_bytes: int
    on_skip: Callable[[Skipped], None] | None
    on_progress: Callable[[int, int], None] | None
    keep_hidden: bool
    documents: list[Document] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    taken: dict[str, str] = field(default_factory=dict)  # document id -> text
    file_ids: set[str] = field(default_factory=set)
    seen: dict[str, str] = field(default_factory=dict)  # real path -> how it was shown
    folders: list[Folder] = field(default_factory=list)  # held open while they are read

    def load(self, roots: list[Path | Folder]) -> Loaded:
        try:
            files = [file for root in roots for file in self._files(root)]
            for number, file in enumerate(files, 1):
                self._take(file)
                if self.on_progress is not None:
                    self.on_progress(number, len(files))
        finally:
            for folder in self.folders:
                folder.close()
            pdf_process.close()
        return Loaded(tuple(self.documents), tuple(self.skipped), tuple(self.notes))

    def _take(self, file: _File) -> None:
        """Reads a file, or reports why it can't be."""
        try:
            self._read(file)
        except (_UnfitError, DocumentError) as error:
            self.skip(file.shown, str(error))
        except OSError as error:
            self.skip(file.shown, f"can't be read: {_why(error)}")

    def skip(self, path: str, reason: str) -> None:
        report = Skipped(path, reason)
        self.skipped.append(report)
        if self.on_skip is not None:
            self.on_skip(report)

    def _files(self, named: Path | Folder) -> Iterator[_File]:
        root = named.path if isinstance(named, Folder) else named
        folder = named if isinstance(named, Folder) else self._folder(root)
        for below in [()] if folder is None else self._walk(folder):
            path = root.joinpath(*below)
            shown = _path_text(path)
            real = os.path.realpath(path)
            if real in self.seen:
                self.skip(shown, f"already read as {self.seen[real]}")
                continue
            self.seen[real] = shown
            yield _File(path, shown, self._file_id(root, path), folder, below)

    def _folder(self, root: Path) -> Folder | None:
        """A folder that was given, held open until all is read; None: a file was given.

        Raises:
            DocumentError: It can't be opened any more.
        """
        if not root.is_dir():
            return None
        try:
            folder = Folder(root)
        except OSError as error:
            raise DocumentError(f"can't read {_path_text(root)!r}: {_why(error)}") from None
        self.folders.append(folder)
        return folder

    def _file_id(self, root: Path, path: Path) -> str:
        below = _path_text(path.name if path == root else path.relative_to(root))
        candidate = below
        if candidate in self.file_ids:
            above = root.resolve().parent if path == root else root.resolve()
            candidate = f"{_path_text(above.name)}/{below}"
        base, number = candidate, 2
        while candidate in self.file_ids:
            candidate, number = f"{base} ({number})", number + 1
        self.file_ids.add(candidate)
        return candidate

    def _walk(self, folder: Folder) -> Iterator[Below]:
        """Yields the plain files below a folder, sorted, and reports everything else."""
        waiting: list[Below] = [()]
        while waiting:
            below = waiting.pop()
            try:
                if below and not stat.S_ISDIR(folder.mode(below)):
                    yield below
                    continue
                names = sorted(folder.names(below))
            except OSError as error:
                self.skip(_path_text(folder.path.joinpath(*below)), f"can't be read: {_why(error)}")
                continue
            inner = [(*below, name) for name in names if not name.startswith(".")]
            waiting += [entry for entry in inner if self._is_wanted(folder, entry)][::-1]

    def _is_wanted(self, folder: Folder, below: Below) -> bool:
        path = folder.path.joinpath(*below)
        try:
            mode = folder.mode(below)
        except OSError as error:
            self.skip(_path_text(path), f"can't be read: {_why(error)}")
            return False
        if stat.S_ISDIR(mode):
            if len(below) > _DEEPEST:
                self.skip(_path_text(path), f"more than {_DEEPEST} folders deep")
            elif path.name in _INSTALLED:
                self.skip(
                    _path_text(path), "installed packages or compiled code; name it to read it"
                )
            else:
                return True
        elif stat.S_ISLNK(mode):
            self.skip(_path_text(path), _about_link(path, folder.path))
        elif not stat.S_ISREG(mode):
            self.skip(_path_text(path), "not a plain file")
        elif not (path.suffix.lower() in SUFFIXES or is_source_code(path.name)):
            self.skip(_path_text(path), f"not one of {' '.join(SUFFIXES)}, nor source code")
        else:
            return True
        return False

    def _read(self, file: _File) -> None:
        data = self._bytes(file)
        suffix = file.path.suffix.lower()
        reader = reader_for(data, suffix)
        if reader is not None:
            extracted = reader(data, file.shown, self.max_bytes)
        elif suffix == ".pdf" or data.startswith(b"%PDF-"):
            extracted = extract_pdf(data, file.shown, max_chars=self.max_bytes)
        elif suffix in (".html", ".htm"):
            extracted = extract_html(
                decode(data, is_html=True), file.shown, keep_hidden=self.keep_hidden
            )
        elif suffix == ".jsonl":
            self._read_lines(file, decode(data))
            return
        else:
            text = decode(data)
            title = next(headings(text), None) if suffix in (".md", ".rst") else None
            extracted = ExtractedText(text, title.title if title else None, SourceMap(file.shown))
        if not extracted.text.strip():
            raise _UnfitError("empty" if not data else "no text in it")
        title_or_name = extracted.title or _path_text(file.path.name)
        self._add(Document(extracted.text, file.id, title_or_name, source_map=extracted.source_map))
        self.notes.extend(Note(file.shown, note) for note in extracted.notes)

    def _bytes(self, file: _File) -> bytes:
        flags = os.O_RDONLY
        for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
            flags |= getattr(os, name, 0)
        folder = file.folder
        descriptor = os.open(file.path, flags) if folder is None else folder.open(file.below, flags)
        with os.fdopen(descriptor, "rb") as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise _UnfitError("not a plain file")
            data = opened.read(self.max_bytes + 1)
        if len(data) > self.max_bytes:
            raise _UnfitError(f"larger than {self.max_bytes:,} bytes; raise max_bytes to read it")
        return data

    def _read_lines(self, file: _File, text: str) -> None:
        bad = read = 0
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            read += 1
            try:
                self._add(_from_line(line, number, file))
            except (_UnfitError, ValueError) as error:
                bad += 1
                if bad <= _BAD_LINES_SHOWN:
                    self.skip(file.shown, f"line {number}: {error}")
        if bad > _BAD_LINES_SHOWN:
            self.skip(file.shown, f"and {bad - _BAD_LINES_SHOWN:,} more lines")
        if not read:
            raise _UnfitError("empty")

    def _add(self, document: Document) -> None:
        if self.taken.setdefault(document.id, document.text) != document.text:
            raise _UnfitError(f"another text has the id {document.id!r} already")
        self.documents.append(document)


def _from_line(line: str, number: int, file: _File) -> Document:
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _UnfitError(f"not JSON ({error})") from None
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise _UnfitError('not an object with a string "text"')
    text: str = value["text"]
    own_id: Any = value.get("id")
    if not text.strip():
        raise _UnfitError("its text is empty")
    if isinstance(own_id, int) and not isinstance(own_id, bool):
        own_id = str(own_id)
    metadata: Any = value.get("metadata")
    check_json(metadata, "its metadata")  # an index of it couldn't be saved otherwise
    starts = (0, *(match.end() for match in _NEWLINE.finditer(text)))
    source_map = SourceMap(file.shown, starts, lines=(number,) * len(starts))
    return Document(
        text,
        f"{file.id}#{number}" if own_id is None else own_id,
        value.get("title"),
        metadata,
        source_map=source_map,
    )


def _about_link(path: Path, root: Path) -> str:
    real = Path(os.path.realpath(path))
    if not real.exists():
        return "a dangling link"
    if real.is_relative_to(os.path.realpath(root)):
        return "a link inside the folder; what it points to is read under its own name"
    return "a link that leads out of the folder"
