"""What clients can ask for: answers, passages, slices and checks, each as plain data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from recallm_core.checking import check_quotes
from recallm_core.documents.document import Document
from recallm_core.errors import DocumentError
from recallm_core.inputs.arguments import shown, whole_number
from recallm_core.locks import ForkSafeLock
from recallm_core.mcp_server.library import Library
from recallm_core.mcp_server.places import exact_quote, passage_data
from recallm_core.mcp_server.watching import Watch
from recallm_core.rendering.data import SCHEMA, to_dict

if TYPE_CHECKING:
    from recallm_core.generator import RecaLLM
    from recallm_core.retrieval import CorpusIndex

    Source = tuple[Document, ...] | CorpusIndex

MOST_CHARACTERS = 1_000_000  # of a text to check
_LONGEST_QUESTION = 20_000


class Desk:
    """Serves a library's clients; safe to call from many threads.

    Args:
        library: What may be read.
        load: Loads the model; called once, when the first question comes.
    """

    def __init__(self, library: Library, load: Callable[[], RecaLLM]) -> None:
        self.library = library
        self._load = load
        self._model: RecaLLM | None = None
        self._loading = ForkSafeLock()

    def close(self) -> None:
        """Lets go of the model and of the folders."""
        with self._loading:
            if self._model is not None:
                self._model.close()
            self._model = None
        self.library.close()

    def ask(
        self, question: str, paths: Sequence[str] | None, index: str | None, watch: Watch
    ) -> dict[str, Any]:
        """Answers a question; the data are those of ``recallm ask --json``.

        Raises:
            RecallmError: The documents aren't there, the model can't be loaded, or it failed.
        """
        _check_question(question, "question")
        source = self._source(paths, index, watch)
        watch.now("loading the model")
        model = self._load_once()
        watch.now("the model is reading")
        with model.stream(question, self._fitting(source, model, watch)) as stream:
            watch.on_stop(stream.close)
            for _ in stream:
                watch.now("the model is answering")
            return to_dict(stream.result())

    def search(
        self, query: str, paths: Sequence[str] | None, index: str | None, k: int, watch: Watch
    ) -> dict[str, Any]:
        """Returns the passages that a query is about, best first.

        Raises:
            RecallmError: The documents aren't there.
        """
        _check_question(query, "query")
        whole_number("k", k, 1, 50, error=DocumentError)
        source = self._source(paths, index, watch)
        corpus = self.library.index_of(source, watch) if isinstance(source, tuple) else source
        chunks = corpus.search(query, k)
        passages = [passage_data(chunk, corpus.documents[chunk.document_id]) for chunk in chunks]
        return {"schema": SCHEMA, "query": query, "passages": passages}

    def quote(
        self, document: str, start: int, end: int, index: str | None, watch: Watch
    ) -> dict[str, Any]:
        """Returns the exact slice of a place.

        Raises:
            RecallmError: There is no such place.
        """
        if index is None:
            shelf = self.library.shelf(watch)
            return exact_quote(shelf.one(document), start, end, shelf.documents)
        documents = self.library.index(index).documents
        if document not in documents:
            raise DocumentError(f"the index {index!r} has no document {shown(document)}")
        return exact_quote(documents[document], start, end, list(documents.values()))

    def check(
        self,
        text: str,
        paths: Sequence[str] | None,
        watch: Watch,
        *,
        repair: bool,
        claims: bool,
        min_words: int,
    ) -> dict[str, Any]:
        """Checks the quotes of a text; the data are those of ``recallm check --json``.

        Raises:
            RecallmError: The documents aren't there, or the text is too long.
        """
        if len(text) > MOST_CHARACTERS:
            raise DocumentError(
                f"the text has {len(text):,} characters; check at most {MOST_CHARACTERS:,} at once"
            )
        whole_number("min_words", min_words, 0, 1_000, error=DocumentError)
        documents = self.library.documents(paths, watch)
        watch.now("looking for the quotes")
        report = check_quotes(
            text, documents, repair=repair, claims=claims, min_words=min_words
        )  # fmt: skip
        return report.to_dict()

    def _source(self, paths: Sequence[str] | None, index: str | None, watch: Watch) -> Source:
        if index is None:
            return self.library.documents(paths, watch)
        if paths is not None:
            raise DocumentError("give paths or an index, not both")
        return self.library.index(index)

    def _fitting(self, source: Source, model: RecaLLM, watch: Watch) -> Source:
        """The documents, or where they exceed the model's context by far an index of them."""
        from recallm_core.answering.context import wants_index

        if isinstance(source, tuple) and wants_index(source, model.recipe, model.backend.window):
            return self.library.index_of(source, watch)
        return source

    def _load_once(self) -> RecaLLM:
        with self._loading:
            if self._model is None:
                self._model = self._load()
            return self._model


def _check_question(text: str, name: str) -> None:
    if not text.strip():
        raise DocumentError(f"the {name} is empty; say what to look for")
    if len(text) > _LONGEST_QUESTION:
        raise DocumentError(
            f"the {name} has {len(text):,} characters; use at most {_LONGEST_QUESTION:,}"
        )
