"""One training example: documents, a question, thinking with quotes in it, and the answer.

This is the one format that every source of training data comes in: generated tasks, readers of the
data folder, and a user's own JSON lines. Token ids are made of it by ``rows``, for any model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from recallm_core.errors import RecallmError
from recallm_core.train.tasks.traces import Example

Split = Literal["train", "held-out"]
"""``held-out``: entities, templates and relations that no ``train`` example ever uses."""

SPLITS: tuple[Split, ...] = ("train", "held-out")


@dataclass(frozen=True, slots=True)
class Quote:
    """A range of one passage's text, half-open, in code points."""

    passage: int
    start: int
    end: int


Part = str | Quote


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """What one training row is made of.

    Attributes:
        passages: Pairs of title and text, as the prompt shows them.
        question: The question.
        thinking: Own words and quotes, in order.
        answer: The short answer in words; None: the documents don't hold it.
        task: Where the example comes from.
        answer_at: Where the answer stands word for word, if it does.
        reason: A sentence or two that justify the answer, said before it.
        working: Words that the thinking begins with. They are given: what follows them is learnt.
    """

    passages: tuple[tuple[str, str], ...]
    question: str
    thinking: tuple[Part, ...]
    answer: str | None
    task: str
    answer_at: Quote | None = None
    reason: str = ""
    working: str = ""

    def __post_init__(self) -> None:
        at = () if self.answer_at is None else (self.answer_at,)
        for quote in (*self.evidence, *at):
            if not 0 <= quote.passage < len(self.passages):
                raise ValueError(f"passage {quote.passage} of {len(self.passages)} is quoted")
            size = len(self.passages[quote.passage][1])
            if not 0 <= quote.start < quote.end <= size:
                raise ValueError(f"{quote} isn't a range of a text of {size} characters")
        if self.answer_at is not None and self.text(self.answer_at) != self.answer:
            raise ValueError(f"answer_at shows {self.text(self.answer_at)!r}, not {self.answer!r}")

    @property
    def evidence(self) -> tuple[Quote, ...]:
        """The quotes of the thinking, in order."""
        return tuple(part for part in self.thinking if isinstance(part, Quote))

    def example(self) -> Example:
        """Returns where its evidence and its answer stand, without the thinking."""
        at = self.answer_at
        return Example(
            self.passages,
            self.question,
            tuple((quote.passage, quote.start, quote.end) for quote in self.evidence),
            None if at is None else (at.passage, at.start, at.end),
            self.task,
        )

    def text(self, quote: Quote) -> str:
        """Returns what a quote says."""
        return self.passages[quote.passage][1][quote.start : quote.end]

    def to_dict(self) -> dict[str, Any]:
        """Returns the example as plain JSON values; ``from_dict`` takes them back."""
        plain: dict[str, Any] = {
            "documents": [{"title": title, "text": text} for title, text in self.passages],
            "question": self.question,
            "thinking": [
                part if isinstance(part, str) else self._plain(part) for part in self.thinking
            ],
            "answer": self.answer,
            "task": self.task,
        }
        if self.answer_at is not None:
            plain["answer_at"] = self._plain(self.answer_at)
        if self.reason:
            plain["reason"] = self.reason
        if self.working:
            plain["working"] = self.working
        return plain

    def _plain(self, quote: Quote) -> dict[str, Any]:
        return {"document": quote.passage, "start": quote.start, "quote": self.text(quote)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainingExample:
        """Builds an example from plain values; a quote without ``start`` is its first occurrence.

        Raises:
            ValueError: Something is missing, unknown, or not word for word in its document.
        """
        unknown = sorted(set(data) - _FIELDS)
        if unknown:
            raise ValueError(f"unknown fields {unknown}; known are {sorted(_FIELDS)}")
        try:
            passages = tuple((str(d.get("title") or ""), d["text"]) for d in data["documents"])
            parts = tuple(
                p if isinstance(p, str) else _quote(p, passages) for p in data["thinking"]
            )
            at = data.get("answer_at")
            where = None if at is None else _quote(at, passages)
            answer, question = data["answer"], data["question"]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not an example, {type(error).__name__}: {error}") from error
        if not isinstance(question, str) or not (answer is None or isinstance(answer, str)):
            raise ValueError("question must be a string, answer a string or null")
        task = str(data.get("task", "own"))
        reason, working = (str(data.get(name, "")) for name in ("reason", "working"))
        return cls(passages, question, parts, answer, task, where, reason, working)


_FIELDS = {
    *("documents", "question", "thinking", "answer", "task", "answer_at", "reason", "working"),
}


def _quote(data: Mapping[str, Any], passages: tuple[tuple[str, str], ...]) -> Quote:
    number, words = int(data["document"]), str(data["quote"])
    if not 0 <= number < len(passages):
        raise ValueError(f"document {number} of {len(passages)} is quoted")
    text = passages[number][1]
    start = int(data["start"]) if "start" in data else text.find(words)
    if not words or start < 0 or text[start : start + len(words)] != words:
        raise ValueError(f"the quote {words[:60]!r} isn't word for word in document {number}")
    return Quote(number, start, start + len(words))


def read_examples(path: Path) -> Iterator[TrainingExample]:
    """Yields the examples of a JSON-lines file.

    Raises:
        RecallmError: It can't be read, or a line isn't an example; the message says which and why.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _read_line(line, f"{path}, line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise RecallmError(f"can't read examples from {path}: {error}") from error


def _read_line(line: str, where: str) -> TrainingExample:
    try:
        data = json.loads(line)
        if not isinstance(data, dict):
            raise ValueError(f"an example is an object, got {type(data).__name__}")
        return TrainingExample.from_dict(data)
    except ValueError as error:
        raise RecallmError(f"{where}: {error}") from error


_LEADS = ("The documents say:", "Here is what I need:", "This passage settles it:", "It says:")
_NEXT = ("Next I need:", "And then:", "From there:")
_NEAREST = ("The closest passage is:", "What comes nearest:", "The documents only say:")


def from_example(example: Example, *, seed: int = 0) -> TrainingExample:
    """Returns an example of the mini's mixture with thinking written around its evidence."""
    quotes = [Quote(*span) for span in example.evidence]
    restated = f"The question is: {example.question}\n"
    parts: list[Part] = [restated]
    leads = _NEAREST if example.answer is None else _LEADS
    for number, quote in enumerate(quotes):
        choices = _NEXT if number else leads
        parts += [choices[(seed + number) % len(choices)], quote, "\n"]
    if example.answer is None:
        parts.append("That doesn't answer the question.")
        return TrainingExample(example.passages, example.question, tuple(parts), None, example.task)
    at = Quote(*example.answer)
    answer = example.passages[at.passage][1][at.start : at.end]
    parts.append(f"So the answer is {answer}.")
    return TrainingExample(
        example.passages, example.question, tuple(parts), answer, example.task, at
    )
