"""The sentences of passages, numbered, and as lines that no text in them can imitate."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from recallm_core.documents.document import Passage
from recallm_core.errors import DocumentError
from recallm_core.text.boundaries import word_boundaries
from recallm_core.text.lexical import sentences

LONGEST = 600  # characters of a sentence; what is longer is numbered in pieces
MOST = 50_000  # sentences of one prompt

# What could end a line, open a mark of markup or chat, or hide what stands beside it.
_ESCAPED = re.compile(
    r"[\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]|<(?=[^\s\d=])|\[(?=/?[A-Z_]+\])"
)


@dataclass(frozen=True, slots=True)
class NumberedSentence:
    """A sentence that a model may point at.

    Attributes:
        number: From 1, over all passages of a prompt.
        passage: Number of its passage, from 0.
        start: First character in the passage's text.
        end: One past the last.
        text: ``passages[passage].text[start:end]``.
    """

    number: int
    passage: int
    start: int
    end: int
    text: str


def number_sentences(passages: Sequence[Passage]) -> tuple[NumberedSentence, ...]:
    """Returns the sentences of passages in order; equal passages give equal numbers.

    Together they hold every character that isn't white space. None crosses a passage, and none is
    longer than ``LONGEST`` unless one word is.

    Raises:
        DocumentError: There are more than any model could be shown.
    """
    rows: list[NumberedSentence] = []
    for passage, shown in enumerate(passages):
        for start, end in _stretches(shown.text):
            text = shown.text[start:end]
            rows.append(NumberedSentence(len(rows) + 1, passage, start, end, text))
        if len(rows) > MOST:
            raise DocumentError(
                f"the documents have more than {MOST:,} sentences, too many to number; give "
                "passages of a retriever, or build a CorpusIndex and give that"
            )
    return tuple(rows)


def lines(sentence_row: Sequence[NumberedSentence], passages: Sequence[Passage]) -> str:
    """Returns the sentences as lines under the titles of their passages.

    A line is a number in brackets and a JSON string, so that nothing in a sentence or title can
    begin a line, end its string, or be read as a control token: ``json.loads`` gives back the text.
    """
    blocks = (
        "\n".join([_heading(passage, passages), *map(_line, group)])
        for passage, group in groupby(sentence_row, key=lambda sentence: sentence.passage)
    )
    return "\n\n".join(blocks)


def as_json_string(text: str) -> str:
    """Returns a text as a JSON string of one line, without marks of chat templates."""
    plain = json.dumps(text, ensure_ascii=False)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match.group()):04x}", plain)


def _heading(passage: int, passages: Sequence[Passage]) -> str:
    title = passages[passage].title
    return f"Document {passage + 1}" + (f", {as_json_string(title)}:" if title else ":")


def _line(sentence: NumberedSentence) -> str:
    return f"[{sentence.number}] {as_json_string(sentence.text)}"


def _stretches(text: str) -> Iterator[tuple[int, int]]:
    for start, end in sentences(text):
        if end - start <= LONGEST:
            yield start, end
        else:
            yield from _cut(text, start, end)


def _cut(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """A long sentence in pieces of whole words, without white space around them."""
    edges = np.flatnonzero(word_boundaries(text[start:end])) + start
    while end - start > LONGEST:
        at = int(np.searchsorted(edges, start + LONGEST, side="right")) - 1
        if edges[at] <= start:
            at += 1  # one word is longer
        stop = int(edges[at])
        yield from _visible(text, start, stop)
        start = stop
    yield from _visible(text, start, end)


def _visible(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    piece = text[start:end]
    if piece.strip():
        yield start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
