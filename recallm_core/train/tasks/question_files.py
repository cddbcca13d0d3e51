"""Question sets in the formats that their owners publish, as facts to train on.

Each of these is known by what it holds, not by its name:

- SQuAD's JSON (Rajpurkar et al., 2016 and 2018), in which many sets come, and most annotation tools
  write: ``{"data": [{"paragraphs": [{"context", "qas": [{"question", "answers"}]}]}]}``.
- QED's lines (Lamm et al., 2020): Natural Questions beside the paragraph that answers them.
- QAMR's tables (Michael et al., 2018): questions about the parts of single sentences, which stand
  in a file ``wiki-sentences.tsv`` beside the table.
- A JSON list of ``{"context", "question", "answer"}``, as NQ-Swap (Longpre et al., 2021) comes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from recallm_core.errors import RecallmError
from recallm_core.train.tasks.datasets import Fact, clean, locate

SENTENCES = "wiki-sentences.tsv"
_AGREED = 0.5  # mean F1 of an answer to those of the other annotators, below which none is taken
_FEWEST_WORDS = 4  # of a question about a single sentence
_WORDS = re.compile(r"\w+")
_CLOSED = re.compile(r"(?:is|are|was|were|do|does|did|has|have|can|could|will|would)\b", re.I)
_BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}


def read_questions(path: Path) -> list[Fact]:
    """Reads one file of questions.

    Args:
        path: The file: JSON, JSON lines or QAMR's table.

    Returns:
        Its questions that one piece of their text answers, and those that are said to have no
        answer (``start`` -1). A question of which the annotators think differently is left out, and
        so is one for yes or no.

    Raises:
        RecallmError: The file can't be read, or is in none of the formats.
    """
    try:
        text = path.read_text(encoding="utf-8")
        facts = list(_reader(path, text)(text))
    except (OSError, UnicodeDecodeError) as error:
        raise RecallmError(f"can't read the questions in {path}: {error}") from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise RecallmError(
            f"{path} isn't a set of questions in SQuAD's JSON, QED's lines, QAMR's table or a JSON"
            f" list of context, question and answer: {type(error).__name__}: {error}"
        ) from None
    return [fact for fact in facts if not _CLOSED.match(fact.question)]


def _reader(path: Path, text: str) -> Callable[[str], Iterator[Fact]]:
    """Tells the format from a file's beginning."""
    if path.suffix == ".tsv":
        sentences = (path.parent / SENTENCES).read_text(encoding="utf-8")
        return lambda table: _qamr(table, sentences)
    if text.lstrip().startswith("["):
        return _plain
    return _qed if "paragraph_text" in text.split("\n", 1)[0] else _squad


def _squad(text: str) -> Iterator[Fact]:
    for page in json.loads(text)["data"]:
        title = page.get("title", "").replace("_", " ")
        for paragraph in page["paragraphs"]:
            for qa in paragraph["qas"]:
                yield from _annotated(title, paragraph["context"], qa)


def _annotated(title: str, context: str, qa: dict[str, Any]) -> Iterator[Fact]:
    if qa.get("is_impossible"):
        yield Fact(title, context, qa["question"].strip(), "", -1)
        return
    best = agreed([answer["text"] for answer in qa["answers"]])
    if best is None:
        return
    answer, start = qa["answers"][best]["text"], int(qa["answers"][best]["answer_start"])
    if answer.strip() and start >= 0 and context[start : start + len(answer)] == answer:
        yield Fact(title, context, qa["question"].strip(), answer, start)


def agreed(answers: Sequence[str]) -> int | None:
    """Returns the number of the answer that is most like the others; None where none is.

    One or two annotators can't be outvoted: of these the first is taken.
    """
    if len(answers) < 3:
        return 0 if answers else None
    bags = [Counter(_WORDS.findall(answer.casefold())) for answer in answers]
    means = [
        sum(_f1(bag, other) for n, other in enumerate(bags) if n != own) / (len(bags) - 1)
        for own, bag in enumerate(bags)
    ]
    best = max(range(len(answers)), key=lambda n: (round(means[n], 6), -len(answers[n]), -n))
    return best if means[best] >= _AGREED else None


def _f1(one: Counter[str], other: Counter[str]) -> float:
    total = one.total() + other.total()
    return 2 * (one & other).total() / total if total else 1.0


def _qed(text: str) -> Iterator[Fact]:
    for line in filter(None, text.splitlines()):
        row = json.loads(line)
        question, title = row["question_text"], row["title_text"]
        answers = [piece["string"] for spans in row["original_nq_answers"] for piece in spans[:1]]
        is_one = all(len(spans) == 1 for spans in row["original_nq_answers"])
        if answers and is_one:
            wanted = [clean(min(answers, key=len))]
            passage = clean(row["paragraph_text"])
            yield from locate(title, passage, question, wanted, is_searched=True)


def _plain(text: str) -> Iterator[Fact]:
    rows = {row["question"]: row for row in reversed(json.loads(text))}
    for row in reversed(rows.values()):
        answers = [clean(row["answer"])]
        yield from locate("", clean(row["context"]), row["question"], answers, is_searched=True)


def _qamr(table: str, sentences: str) -> Iterator[Fact]:
    """Yields the questions whose answer three annotators marked alike, one for each piece."""
    texts = dict(line.split("\t") for line in sentences.splitlines())
    seen: set[tuple[str, str]] = set()
    for line in table.splitlines():
        name, *_, question, answer, first, second = line.split("\t")
        marked = {answer, *(judged.partition(":")[2] for judged in (first, second))}
        tokens = [int(number) for number in answer.split()]
        is_whole = tokens == list(range(tokens[0], tokens[0] + len(tokens)))
        is_new = (name, answer) not in seen
        if len(marked) == 1 and is_whole and is_new and name in texts:
            seen.add((name, answer))
            if len(_WORDS.findall(question)) >= _FEWEST_WORDS:
                yield from _of_tokens(texts[name].split(" "), tokens, question)


def _of_tokens(words: Sequence[str], tokens: Sequence[int], question: str) -> Iterator[Fact]:
    plain = [_BRACKETS.get(word, word) for word in words]
    before = clean(" ".join(plain[: tokens[0]]))
    answer = clean(" ".join(plain[tokens[0] : tokens[-1] + 1]))
    text = clean(" ".join(plain))
    start = text.find(answer, max(0, len(before) - 2))
    if answer and start >= 0:
        yield Fact("", text, question.strip(), answer, start)
