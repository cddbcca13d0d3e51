"""How much of the documents a model that points is shown, where its prompt has a limit."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from recallm_core.documents.chunking import chunk
from recallm_core.documents.document import Document, Location, Passage, ScoredChunk
from recallm_core.errors import ContextOverflowError, MissingExtraError
from recallm_core.packing import Overhead, Pack, pack
from recallm_core.packing.indexable import Packs
from recallm_core.pointing.numbering import number_sentences
from recallm_core.text.lexical import terms

if TYPE_CHECKING:
    from recallm_core.retrieval import CorpusIndex

Count = Callable[[str], int]

ROOMY = 8  # characters of a token that few texts have
_POINTER = 12  # tokens of a sentence's number in its line, and in the schema; of a heading
_LEAST = 128  # tokens of a passage that is worth asking about
_TRIES = 8

_PIECE = re.compile(r"[A-Za-z]{1,4}|[!-@\[-`{-~\n]| (?=[\d ])")
_BYTES = 1.5  # of a token, beyond ASCII


def estimated_tokens(text: str) -> int:
    """Returns about how many tokens a text has, rather too many than too few; needs no tokenizer.

    Four Latin letters count as a token, and so does each other character of ASCII but for a single
    space; beyond ASCII 1.5 bytes do. Beside the tokenizers of Qwen2.5, Gemma 3, SmolLM2 and
    OpenAI's cl100k, that is 1.2 to 2 times what English, code and most other writing have.
    """
    beyond = len(text.encode("utf-8", "replace")) - len(text.encode("ascii", "ignore"))
    return len(_PIECE.findall(text)) + int(beyond / _BYTES) + 1


class SizedPrompt(Protocol):
    """A prompt, as far as its size matters."""

    def size(self, count: Count) -> int:
        """Its tokens."""


def fit_passages(
    index: Packs,
    question: str,
    prompt_of: Callable[[Sequence[Passage]], SizedPrompt],
    *,
    max_tokens: int,
    count: Count,
) -> tuple[Passage, ...]:
    """Returns the passages of an index that bear on a question and fit a prompt.

    Args:
        index: What is packed.
        question: What is asked.
        prompt_of: Makes the prompt of some passages.
        max_tokens: What a prompt may have.
        count: Tokens of a text.

    Raises:
        ContextOverflowError: Not even one passage fits.
    """

    def line_tokens(text: str) -> int:
        rows = number_sentences([Passage("", 0, len(text), text)])
        return sum(count(row.text) + _POINTER for row in rows)

    def heading(passage: Passage) -> int:
        return _POINTER + (count(passage.title) if passage.title else 0)

    bare = prompt_of(()).size(count)
    budget = max_tokens - bare
    for _ in range(_TRIES):
        packed = index.pack_report(question, max(budget, 0), line_tokens, overhead=heading)
        over = prompt_of(packed.passages).size(count) - max_tokens
        if over <= 0 and packed.passages:
            return packed.passages
        budget = min(budget - over, budget * 9 // 10)  # it was estimated line by line
        if budget < 0 or not packed.passages:
            break
    raise ContextOverflowError(max(bare + _LEAST, max_tokens + 1), 0, max_tokens)


class ByWords:
    """Documents that are packed by the words that they share with a question, rare ones first.

    It stands in for a ``CorpusIndex`` where the extra that searches by meaning isn't installed.

    Args:
        documents: By id.
    """

    def __init__(self, documents: Mapping[str, Document]) -> None:
        self.documents = documents
        self._chunks = [part for document in documents.values() for part in chunk(document)]
        self._terms = [frozenset(terms(part.text)) for part in self._chunks]
        self._frequency = Counter(term for row in self._terms for term in row)

    def pack_report(
        self, question: str, token_budget: int, count: Count, *, overhead: Overhead
    ) -> Pack:
        """Returns the passages that share most with a question, within a budget."""
        sought = frozenset(terms(question))
        scored = [
            ScoredChunk(
                part.document_id, part.start, part.end, part.text, self._weight(row & sought)
            )
            for part, row in zip(self._chunks, self._terms, strict=True)
        ]
        return pack(
            scored, self.documents, token_budget=token_budget, count=count, overhead=overhead
        )

    def _weight(self, shared: Iterable[str]) -> float:
        return sum(math.log(1 + len(self._chunks) / self._frequency[term]) for term in shared)


def searchable(documents: Mapping[str, Document]) -> CorpusIndex | ByWords:
    """Returns documents as what packs them: by meaning and words, or by words alone."""
    from recallm_core.retrieval import CorpusIndex

    try:
        return CorpusIndex.build(documents.values())
    except MissingExtraError:
        return ByWords(documents)


def unshown_ranges(
    documents: Iterable[Document], passages: Sequence[Passage]
) -> tuple[Location, ...]:
    """Returns the ranges of documents that no passage holds, but for white space.

    A document whose text another one stands for is shown.
    """
    shown: dict[str, list[tuple[int, int]]] = {}
    for passage in passages:
        shown.setdefault(passage.document_id, []).append((passage.start, passage.end))
        for copy in passage.duplicates:
            shown.setdefault(copy.document_id, []).append((copy.start, copy.end))
    return tuple(
        Location(document.id, start, end)
        for document in documents
        for start, end in _gaps(document.text, sorted(shown.get(document.id, ())))
    )


def _gaps(text: str, ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    last = 0
    for start, end in (*ranges, (len(text), len(text))):
        if text[last:start].strip():
            yield last, start
        last = max(last, end)
