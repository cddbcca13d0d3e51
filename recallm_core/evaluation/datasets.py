"""Items from the data folder (``RECALLM_DATA``), which is never part of the repository."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from recallm_core.documents.document import Document
from recallm_core.errors import RecallmError
from recallm_core.evaluation.items import Item
from recallm_core.text.lexical import sentences
from recallm_core.train.tasks.datasets import data_folder, read_rows

POSITIONS = ("first", "middle", "last")
HANDBOOK_18F = (
    "`docs_18f_handbook`: a sentence of a page asked about with a number, date, amount, address, "
    "channel or name of it replaced by *how many*, *when* and so on; that page and two others are "
    "given. Made from the text by rule. The pages, but not these questions, may have been read in "
    "training."
)
_PAGE = 1500  # characters of a page that are shown around the sentence
_MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_ASKED: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("which address", re.compile(r"[\w.+-]+@[\w-]+\.\w[\w.]*\w")),
    ("how much", re.compile(r"\$\d[\d,.]*\d(?: (?:million|billion))?")),
    ("what percentage", re.compile(r"\b\d[\d.]*\d?%")),
    ("when", re.compile(rf"\b{_MONTH}(?: \d{{1,2}},?)? \d{{4}}\b|\b{_MONTH} \d{{1,2}}\b")),
    ("which channel", re.compile(r"#[a-z][a-z0-9-]{3,}\b")),
    (
        "how many",
        re.compile(
            r"\b(?:\d{1,3}(?:,\d{3})+|\d{1,4}|two|three|four|five|six|seven|eight|ten|twelve|thirty)"
            r"(?= [a-z]{3,}s\b)"
        ),
    ),
    ("what", re.compile(r"(?<=\b(?:the|our) )[A-Z][a-z]+(?: [A-Z][a-z]+)+")),
)
"""What is asked, and which phrases it stands for."""


class MissingDataError(RecallmError):
    """A suite needs a file that isn't there; it is left out and the report says so."""


def rows_of(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """Yields the rows of a file of a data folder.

    Raises:
        MissingDataError: It isn't there.
    """
    if not (folder / f"{name}.jsonl.gz").is_file():
        raise MissingDataError(
            f"no {name}.jsonl.gz in {folder}; set RECALLM_DATA to the folder that has it"
        )
    return read_rows(folder, name)


def _rows(name: str) -> Iterator[dict[str, Any]]:
    return rows_of(data_folder(), name)


def _place_gold(row: dict[str, Any], place: int) -> tuple[Document, ...]:
    """Returns two distractors, and the gold passage before, between or after them."""
    passages = [(d["title"], d["text"]) for d in row["distractors"][:2]]
    passages.insert(place, (row["gold"]["title"], row["gold"]["text"]))
    return tuple(Document(text, f"p{n}", title) for n, (title, text) in enumerate(passages))


def _natural(row: dict[str, Any], place: int) -> Item:
    documents, group = _place_gold(row, place), POSITIONS[place]
    name = f"{row['id']}-{group}"
    return Item(name, documents, row["question"], tuple(row["answers"]), place, group)


def natural_questions() -> Iterator[Item]:
    """Yields each question once, its gold passage at the three places in turn."""
    for number, row in enumerate(_rows("nq_multidoc_eval")):
        yield _natural(row, number % 3)


def positions() -> Iterator[Item]:
    """Yields each question three times, its gold passage at each place."""
    for row in _rows("nq_multidoc_eval"):
        for place in range(3):
            yield _natural(row, place)


def natural_questions_missing() -> Iterator[Item]:
    """Yields each question over its gold passage and two others, then over three others."""
    for number, row in enumerate(_rows("nq_multidoc_eval")):
        yield _natural(row, number % 3)
        others = row["distractors"][:3]
        documents = tuple(Document(d["text"], f"p{n}", d["title"]) for n, d in enumerate(others))
        yield Item(f"{row['id']}-without", documents, row["question"], (), -1)


def clapnq() -> Iterator[Item]:
    """Yields answerable and unanswerable questions in turn."""
    kinds: tuple[list[Item], list[Item]] = ([], [])
    for row in _rows("clapnq_dev"):
        documents = tuple(
            Document(p["text"], f"p{n}", p["title"]) for n, p in enumerate(row["passages"])
        )
        answers = tuple(a["answer"] for a in row["answers"]) if row["answerable"] else ()
        kinds[not row["answerable"]].append(
            Item(str(row["id"]), documents, row["question"], answers, 0 if answers else -1)
        )
    for pair in zip(*kinds, strict=False):
        yield from pair


def key_values(keys: int) -> Iterator[Item]:
    """Yields look-ups in JSON objects of random keys and values, one pair a line."""
    for row in _rows("kv_retrieval"):
        if row["n_keys"] == keys:
            text = "{\n" + ",\n".join(f' "{k}": "{v}"' for k, v in row["pairs"]) + "\n}"
            question = f'What is the value of "{row["key"]}"?'
            yield Item(row["id"], (Document(text, "kv"),), question, (row["value"],))


def handbook_18f() -> Iterator[Item]:
    """Yields a question about every page that has a sentence for one."""
    pages = [(row["id"], row["title"], row["text"]) for row in _rows("docs_18f_handbook")]
    rng = random.Random("evaluation:18f")
    rng.shuffle(pages)
    for number, (name, title, text) in enumerate(pages):
        entry = next(handbook_questions(text, rng), None)
        if entry is None:
            continue
        question, answers, excerpt = entry
        others = islice((p for p in [*pages[number + 1 :], *pages] if answers[0] not in p[2]), 2)
        documents = [Document(t[:_PAGE], n, head) for n, head, t in others]
        place = rng.randrange(3)
        documents.insert(place, Document(excerpt, name, title))
        yield Item(name, tuple(documents), question, answers, place)


def handbook_questions(text: str, rng: random.Random) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Yields questions about sentences of a text, their answers, and the text around them."""
    units = sentences(text)
    rng.shuffle(units)
    for start, end in units:
        sentence = text[start:end]
        if not 60 <= len(sentence) <= 250 or any(mark in sentence for mark in "[]{}|`<>\n*"):
            continue
        phrases = [(wording, m) for wording, phrase in _ASKED for m in phrase.finditer(sentence)]
        if not phrases:
            continue
        wording, cut = rng.choice(phrases)
        low = max(0, start - rng.randrange(_PAGE - (end - start)))
        excerpt = text[low : low + _PAGE]
        if excerpt.count(cut.group()) == 1:
            whole = f"{sentence[: cut.start()]}{wording}{sentence[cut.end() :]}"
            yield whole.strip("-+ .:") + "?", _answers(sentence, wording, cut), excerpt


def _answers(sentence: str, wording: str, cut: re.Match[str]) -> tuple[str, ...]:
    """The phrase as it stands, without its currency, and a number with what it counts."""
    counted = re.match(r"[\w,]+ [a-z]+", sentence[cut.start() :])
    more = [counted.group()] if counted and wording == "how many" else []
    return tuple(dict.fromkeys((cut.group(), cut.group().lstrip("$#"), *more)))
