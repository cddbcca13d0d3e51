"""Text to hide things in, and words to make things up from; the same on every machine."""

from __future__ import annotations

import json
import random
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path

from recallm_core.documents.loading import load_documents
from recallm_core.evaluation.datasets import MissingDataError
from recallm_core.text.lexical import sentences
from recallm_core.train.tasks.datasets import read_rows

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
_FILES = ("docs_18f_handbook", "docs_peps")
_VOCABULARY = Path(__file__).resolve().parents[2] / "models" / "static-embedder" / "tokenizer.json"
_MARKUP = re.compile(r"\[([^\]]*)\]\([^)]*\)|[*`#>|{}\[\]]+|https?://\S+")
_PROSE = re.compile(r"[A-Z\"'(].{20,300}[.!?]")


@dataclass(frozen=True, slots=True)
class Haystack:
    """Sentences of real text, in order.

    Attributes:
        name: Where they come from, for a report.
        sentences: Without white space around them.
    """

    name: str
    sentences: tuple[str, ...]

    def take(self, words: int) -> list[str]:
        """The first words, as sentences; the last one is cut, and a text too short begins anew."""
        ends = _word_ends(self.sentences)
        rounds, rest = divmod(words, ends[-1])
        whole = bisect_right(ends, rest)
        units = [*self.sentences * rounds, *self.sentences[:whole]]
        cut = self.sentences[whole].split()[: rest - (ends[whole - 1] if whole else 0)]
        return [*units, " ".join(cut)] if cut else units


@cache
def _word_ends(sentences: tuple[str, ...]) -> list[int]:
    """How many words there are up to the end of each sentence."""
    return list(accumulate(len(sentence.split()) for sentence in sentences))


def haystack(folder: Path | None, data: Path) -> Haystack:
    """Returns the text of a folder of the user's, or of the data folder.

    Raises:
        MissingDataError: There is neither.
    """
    name = f"the files of {folder.name}" if folder else ", ".join(_FILES)
    units = tuple(_prose(folder)) if folder else _of_data(data)
    if not units:
        raise MissingDataError(
            f"no text to hide things in at {folder or data}: give --haystack a folder of text "
            f"files, or set RECALLM_DATA to a folder that has {_FILES[0]}.jsonl.gz"
        )
    return Haystack(name, units)


def _prose(folder: Path) -> Iterator[str]:
    for document in load_documents([folder]).documents:
        yield from _sentences(document.text)


@cache
def _of_data(folder: Path) -> tuple[str, ...]:
    """The prose of the handbook and the PEPs: what is no sentence (code, tables) is left out."""
    there = (name for name in _FILES if (folder / f"{name}.jsonl.gz").is_file())
    rows = (row for name in there for row in read_rows(folder, name))
    return tuple(sentence for row in rows for sentence in _sentences(row["text"]))


def _sentences(text: str) -> Iterator[str]:
    for start, end in sentences(text):
        plain = " ".join(_MARKUP.sub(r"\1", text[start:end]).split())
        if _PROSE.fullmatch(plain):
            yield plain


@cache
def word_list() -> tuple[str, ...]:
    """English words of four to ten letters, the commonest first: 18,634, from a shipped file."""
    words = json.loads(_VOCABULARY.read_text("utf-8"))["model"]["vocab"]
    return tuple(word for word in words if re.fullmatch("[a-z]{4,10}", word))


def compound(rng: random.Random) -> str:
    """A key of two words: ``brisk-harbour``."""
    return "-".join(rng.sample(word_list()[500:], 2))
