"""What the page works on: one model, the documents that are open, and the sources of answers."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recallm_core.answering.context import Documents, Message
from recallm_core.answering.stream import Event, Finished
from recallm_core.documents.document import Document
from recallm_core.errors import DocumentError
from recallm_core.generator import RecaLLM
from recallm_core.locks import ForkSafeLock
from recallm_core.retrieval.recent import RecentDocuments

_MOST_SOURCES = 2_000  # documents that answers quoted from, kept to be looked at
_MOST_SOURCE_BYTES = 500_000_000  # of their texts and places; those of the last answer stay
_MOST_BYTES = 200_000_000  # of a PDF file that is shown
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class OpenedSources:
    """What opening some paths gave.

    Attributes:
        documents: What can be asked.
        names: What to call the documents, for people.
        skipped: Files that gave none, and why.
    """

    documents: Documents
    names: tuple[str, ...]
    skipped: tuple[str, ...] = ()


Read = Callable[[Sequence[str]], OpenedSources]
Load = Callable[[str], RecaLLM]


class Session:
    """The state behind the page; every method may be called from any thread.

    Args:
        load: Loads a model by name.
        read: Reads files, folders or an index.
        model: The model to begin with; loaded when the first question comes.
    """

    def __init__(self, load: Load, read: Read, *, model: str) -> None:
        self._load = load
        self._read = read
        self._lock = ForkSafeLock()
        self._loading = ForkSafeLock()
        self._model = model
        self._llm: RecaLLM | None = None
        self._opened = OpenedSources((), ())
        self._paths: tuple[str, ...] = ()
        self._sources: RecentDocuments[str] = RecentDocuments(_MOST_SOURCE_BYTES, _MOST_SOURCES)

    def state(self) -> dict[str, Any]:
        """Returns what the page shows beside the conversation."""
        with self._lock:
            return {
                "model": self._model,
                "loaded": self._llm is not None,
                "paths": list(self._paths),
                "documents": list(self._opened.names[:500]),
                "count": len(self._opened.names),
                "skipped": list(self._opened.skipped[:50]),
            }

    def open(self, paths: Sequence[str]) -> None:
        """Opens files, folders or an index in place of what was open.

        Raises:
            DocumentError: A path doesn't exist, or nothing in it can be read.
        """
        named = tuple(_at_home(path.strip()) for path in paths if path.strip())
        if not named:
            raise DocumentError("no path was given; name a file, a folder or an index")
        opened = self._read(named)
        with self._lock:
            self._opened, self._paths = opened, named
            self._sources.clear()

    def use(self, model: str) -> None:
        """Takes another model; the one before is closed.

        Raises:
            RecallmError: It can't be loaded; the one before stays.
        """
        name = model.strip()
        with self._loading:
            if name == self._model and self._llm is not None:
                return
            llm = self._load(name)
            with self._lock:
                before, self._llm, self._model = self._llm, llm, name
        if before is not None:
            before.close()

    def close(self) -> None:
        """Frees the model."""
        with self._loading, self._lock:
            llm, self._llm = self._llm, None
        if llm is not None:
            llm.close()

    def llm(self) -> RecaLLM:
        """Returns the model, loaded if it wasn't yet."""
        with self._loading:
            if self._llm is None:
                llm = self._load(self._model)
                with self._lock:
                    self._llm = llm
            return self._llm

    async def ask(self, llm: RecaLLM, messages: Sequence[Message]) -> AsyncGenerator[Event, None]:
        """Yields what happens while a question is answered; leaving the loop stops the model.

        Raises:
            DocumentError: Nothing is open.
            RecallmError: The model failed.
        """
        with self._lock:
            documents, count = self._opened.documents, len(self._opened.names)
        if not count:
            raise DocumentError("open some documents first")
        events = llm.astream_chat(messages, documents)
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Finished):
                    self._remember(event.answer.sources)
                yield event

    def source(self, document_id: str) -> Document:
        """Returns a document that an answer could quote from.

        Raises:
            DocumentError: No answer of this session could.
        """
        with self._lock:
            document = self._sources.get(document_id)
        if document is None:
            raise DocumentError("this source isn't open any more; ask again")
        return document

    def pdf(self, document: Document) -> bytes:
        """Returns the file of a paged document.

        Raises:
            DocumentError: It has no pages, or its file can't be read as it was.
        """
        source = document.source_map
        if source is None or source.pages is None:
            raise DocumentError("this source has no pages")
        try:
            return _bytes_of(Path(source.origin))
        except OSError as error:
            raise DocumentError(
                f"the file can't be read any more ({error.strerror}); its text is shown instead"
            ) from error

    def _remember(self, sources: Mapping[str, Document]) -> None:
        with self._lock:
            self._sources.add(sources)


def _bytes_of(path: Path) -> bytes:
    """The bytes of a regular file, judged by what was opened: it may be another by now."""
    with open(os.open(path, _READ), "rb") as file:  # noqa: PTH123  (a pipe isn't waited for)
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise DocumentError(f"{path.name} is no file any more; its text is shown instead")
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise DocumentError(f"{path.name} is too large to be shown as a page")
    return data


def _at_home(path: str) -> str:
    """The path with a leading ``~`` as the user's own folder."""
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError as error:
        raise DocumentError(f"there is no home folder for {path}") from error
