"""What families draw from: the data folder, cleaned of everything that an evaluation row holds."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from recallm_core.train.tasks.datasets import LeakCheck, data_folder, is_held_out, read_rows
from recallm_core.train.tasks.families.problem import Passage, Problem
from recallm_core.train.tasks.templates import make_page

_CODE = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_WORDS = re.compile(r"\w+")
_SHORTEST = 120  # characters of a distractor that is worth a place
_TRIES = 40


class EvaluationCheck(LeakCheck):
    """Knows every evaluation row: questions, evidence, utterances to classify, keys and values."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.codes: set[str] = set()
        for name in ("banking77", "clinc150"):
            if (folder / f"{name}.jsonl.gz").is_file():
                tests = (row["text"] for row in read_rows(folder, name) if row["split"] != "train")
                self.questions.update(plain_words(text) for text in tests)
        if (folder / "xquad_es_zh_ar.jsonl.gz").is_file():
            for row in read_rows(folder, "xquad_es_zh_ar"):
                self.questions.update(plain_words(qa["question"]) for qa in row["qas"])
        if (folder / "kv_retrieval.jsonl.gz").is_file():
            for row in read_rows(folder, "kv_retrieval"):
                self.codes.update(code for pair in row["pairs"] for code in pair)

    def problem_leaks(self, problem: Problem) -> bool:
        """Says whether a problem shares a question, evidence or a key with an evaluation row."""
        texts = [text for _, text in problem.passages]
        if self.leaks(problem.question.splitlines()[0], texts):
            return True
        return any(not self.codes.isdisjoint(_CODE.findall(text)) for text in texts)


def plain_words(text: str) -> str:
    """Returns the words of a text in lower case, one space between them."""
    return " ".join(_WORDS.findall(text.casefold()))


class Sources:
    """Reads what a draw needs when it needs it.

    Args:
        folder: The data folder; None: ``RECALLM_DATA``, or what stands beside the repository.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = data_folder() if folder is None else folder
        self._rows: dict[str, list[dict[str, Any]]] = {}

    def has(self, names: Sequence[str]) -> bool:
        """Says whether all of some files are there."""
        return all((self.folder / f"{name}.jsonl.gz").is_file() for name in names)

    @cached_property
    def check(self) -> EvaluationCheck:
        """What must not be trained on."""
        return EvaluationCheck(self.folder)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Returns the records of one file; of files with splits, those for training.

        Raises:
            RecallmError: The file isn't there.
        """
        if name not in self._rows:
            rows = read_rows(self.folder, name)
            self._rows[name] = [row for row in rows if row.get("split", "train") == "train"]
        return self._rows[name]

    def draw(self, name: str, rng: random.Random) -> dict[str, Any]:
        """Returns a record of one file."""
        return rng.choice(self.rows(name))

    def leaks(self, question: str, texts: Sequence[str]) -> bool:
        """Says whether a record is kept away from training: it is evaluated on, or held out."""
        return any(is_held_out(text) for text in texts) or self.check.leaks(question, texts)

    def distractors(
        self, rng: random.Random, size: int, without: Sequence[str] = ()
    ) -> list[Passage]:
        """Returns passages of about so many characters that don't hold some words.

        They are Wikipedia's where the data folder has them, else made up.
        """
        real = self.has(("wiki_passages", "nq_multidoc_eval", "hotpotqa_dev"))
        passages: list[Passage] = []
        misses = 0
        while size > _SHORTEST and misses < _TRIES:
            passage = self._wiki(rng) if real else _page(rng)
            low = "" if passage is None else f"{passage[0]}\n{passage[1]}".casefold()
            if passage is None or any(w.casefold() in low for w in without if w):
                misses += 1
                continue
            passages.append(passage)
            size -= len(passage[1])
        return passages

    def _wiki(self, rng: random.Random) -> Passage | None:
        row = self.draw("wiki_passages", rng)
        passage = (str(row["title"]), str(row["text"]))
        usable = len(passage[1]) >= _SHORTEST and not self.check.leaks("", passage[1:])
        return passage if usable else None


def _page(rng: random.Random) -> Passage | None:
    page = make_page(rng, rng.randint(4, 12))
    return (page.title, page.text) if len(page.text) >= _SHORTEST else None


def shuffle_passages(
    rng: random.Random, gold: Sequence[Passage], others: Sequence[Passage]
) -> tuple[tuple[Passage, ...], Mapping[int, int]]:
    """Returns passages in a random order, and the new place of each gold one."""
    passages = [*gold, *others]
    order = rng.sample(range(len(passages)), len(passages))
    places = {old: new for new, old in enumerate(order) if old < len(gold)}
    return tuple(passages[old] for old in order), places
