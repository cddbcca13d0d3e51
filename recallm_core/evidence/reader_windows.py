"""Passages cut into windows that a small encoder reads beside a question, offsets kept."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recallm_core.errors import CheckpointError
from recallm_core.text import lexical

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Ints = NDArray[np.int64]

WINDOW_TOKENS = 176  # of a passage's text
QUESTION_TOKENS = 48
RECALLED_TOKENS = 64
TITLE_TOKENS = 16
CLOSING = (
    "?!\N{FULLWIDTH QUESTION MARK}\N{FULLWIDTH EXCLAMATION MARK}\N{ARABIC QUESTION MARK} \t\r\n"
)
# The reader's questions without an answer ended with a question mark more often than those with
# one, and it takes the mark for a sign: of 60 Natural Questions over their passage, 4 counted as
# none without it, and 17 with it. What follows from a quote it learnt with the mark.
_TO_READ = re.compile(
    r"(?P<form>[\ufb00-\ufb06\uff21-\uff3a\uff41-\uff5a]+)"
    r"|(?P<left>[^\W\d_]{1,40})(?:[-\u2010]\s{0,200}|\xad\s{1,200})(?=(?P<right>[^\W\d_]{1,40}))"
)
_OVERLAP = 48  # a sentence of at most so many tokens is repeated in the next window


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A run of whole sentences of one passage.

    Attributes:
        passage: Number of the passage.
        ids: Token ids of the text.
        starts: First character of each token, in the passage.
        ends: One past its last character.
        first: Number, in the passage, of the first sentence of the window.
        heads: For each sentence of the window, its first token; a sentence that was cut has a
            head in each of its windows.
    """

    passage: int
    ids: tuple[int, ...]
    starts: Ints
    ends: Ints
    first: int
    heads: tuple[int, ...]


def cut(
    text: str,
    passage: int,
    tokenizer: Tokenizer,
    *,
    limit: int = WINDOW_TOKENS,
    units: Sequence[tuple[int, int]] | None = None,
) -> list[Window]:
    """Returns the windows of one passage; together they hold every token of it.

    Args:
        text: The passage.
        passage: Its number.
        tokenizer: Without truncation and padding.
        limit: Most tokens of a window.
        units: The passage's sentences; None: as ``lexical.units`` finds them, and the marks that
            stand before wrapped lines aren't read.
    """
    if units is None:
        sentences = lexical.units(text)
        text, units = sentences.text, sentences.spans
    shadow = _shadow(text, tokenizer)
    encoding = tokenizer.encode(shadow.text, add_special_tokens=False)
    offsets = shadow.untouched_ranges(np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2))
    firsts = [bisect_right(offsets[:, 1], start) for start, _ in units]
    bounds = [*firsts, len(encoding.ids)]
    windows: list[Window] = []
    number = 0
    while number < len(units):
        low = bounds[number]
        stop = number + 1
        while stop < len(units) and bounds[stop + 1] - low <= limit:
            stop += 1
        for begin in range(low, max(bounds[stop], low + 1), limit):
            end = min(begin + limit, bounds[stop])
            heads = [max(0, bounds[n] - begin) for n in range(number, stop)]
            windows.append(
                Window(
                    passage,
                    tuple(encoding.ids[begin:end]),
                    offsets[begin:end, 0],
                    offsets[begin:end, 1],
                    number,
                    tuple(min(head, max(0, end - begin - 1)) for head in heads),
                )
            )
        is_short = stop - number > 1 and bounds[stop] - bounds[stop - 1] <= _OVERLAP
        number = stop - 1 if is_short and stop < len(units) else stop
    return [window for window in windows if window.ids]


@dataclass(frozen=True, slots=True, eq=False)
class _Shadow:
    """A text as it is read; each character stands for a range of the untouched text."""

    text: str
    starts: Ints
    ends: Ints

    def untouched_ranges(self, offsets: Ints) -> Ints:
        """Returns ranges of the untouched text for ranges of this one."""
        if not len(offsets):
            return offsets
        last = np.maximum(offsets[:, 1] - 1, offsets[:, 0])
        return np.stack([self.starts[offsets[:, 0]], self.ends[last]], axis=1)


def _shadow(text: str, tokenizer: Tokenizer) -> _Shadow:
    """The text with ligatures and wide forms as letters, and words broken by a hyphen made whole.

    Whether a hyphen belongs to a word can't be told from the text: it goes where the whole is a
    word of the reader's vocabulary, unless both parts are.
    """
    changes: list[tuple[int, int, str]] = []
    for match in _TO_READ.finditer(text):
        if match["form"]:
            changes.append((*match.span(), unicodedata.normalize("NFKC", match.group())))
        elif _is_broken(match["left"], match["right"], tokenizer):
            changes.append((match.end("left"), match.start("right"), ""))
    pieces, starts, ends, last = [], [], [], 0
    for start, end, new in [*changes, (len(text), len(text), "")]:
        unchanged = np.arange(last, start)
        pieces += [text[last:start], new]
        starts += [unchanged, np.full(len(new), start)]
        ends += [unchanged + 1, np.full(len(new), end)]
        last = end
    return _Shadow("".join(pieces), np.concatenate(starts), np.concatenate(ends))


def _is_broken(before: str, after: str, tokenizer: Tokenizer) -> bool:
    before, after = before.lower(), after.lower()
    known = [tokenizer.token_to_id(word) is not None for word in (before + after, before, after)]
    return known[0] and not (known[1] and known[2])


@dataclass(frozen=True, slots=True)
class Rows:
    """The ids that the encoder reads; the text of row ``i`` begins at ``begins[i]``."""

    ids: list[list[int]]
    kinds: list[list[int]]
    begins: list[int]


class RowMaker:
    """Lays a question, what was recalled, a title and a window out as one row.

    ``[CLS] question [SEP] recalled [SEP] title : text [SEP]``, the second part only where
    something was recalled, the title only where there is one.

    Args:
        tokenizer: BERT's, without truncation and padding.

    Raises:
        CheckpointError: The tokenizer lacks a mark.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.cls, self.sep, self.colon = (self._mark(token) for token in ("[CLS]", "[SEP]", ":"))

    def _mark(self, token: str) -> int:
        number = self.tokenizer.token_to_id(token)
        if number is None:
            raise CheckpointError(f"the reader's tokenizer has no {token}; it needs one of BERT's")
        return int(number)

    def ids(self, text: str) -> list[int]:
        """Returns the ids of a text."""
        numbers: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return numbers

    def rows(
        self,
        question: str,
        windows: Sequence[Window],
        titles: Sequence[str | None],
        recalled: Sequence[str] = (),
    ) -> Rows:
        """Returns one row for each window; ``titles`` are those of the passages.

        Until something was recalled, a question reads the same with and without its closing marks.
        """
        # what is asked stands at the end of a long message
        asked = self.ids(question if recalled else question.rstrip(CLOSING))[-QUESTION_TOKENS:]
        head = [self.cls, *asked, self.sep]
        if recalled:
            head += [*self.ids(" ".join(recalled))[:RECALLED_TOKENS], self.sep]
        named = {w.passage: self._title(titles[w.passage]) for w in windows}
        laid_out = Rows([], [], [])
        for window in windows:
            title = named[window.passage]
            tail = [*title, *window.ids, self.sep]
            laid_out.ids.append(head + tail)
            laid_out.kinds.append([0] * len(head) + [1] * len(tail))
            laid_out.begins.append(len(head) + len(title))
        return laid_out

    def _title(self, title: str | None) -> list[int]:
        return [*self.ids(title)[:TITLE_TOKENS], self.colon] if title and title.strip() else []
