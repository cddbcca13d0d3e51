"""Readers of the training data, cleaned of everything that evaluation uses."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from recallm_core.errors import RecallmError

TRAINING_FILES = (
    "squad1_train_sample",
    "squad2",
    "nq_oracle_train",
    "nq_swap",
    "hotpotqa_train_sample",
    "wiki_passages",
    "docs_18f_handbook",
    "docs_peps",
)
_NGRAM = 12
_WORDS = re.compile(r"\w+")
_TAGS = re.compile(r"</?[A-Z][a-z]{0,5}>|``|''")


@dataclass(frozen=True, slots=True)
class Fact:
    """A question about one passage.

    Attributes:
        title: The passage's, or nothing.
        text: The passage.
        question: What is asked.
        answer: A piece of the text; nothing where there is none.
        start: Where it begins; -1 where there is none.
        is_searched: Whether people typed the question into a search box.
    """

    title: str
    text: str
    question: str
    answer: str
    start: int
    is_searched: bool = False


@dataclass(frozen=True, slots=True)
class Hops:
    """A question that needs sentences of several passages, in order."""

    passages: tuple[tuple[str, str], ...]
    question: str
    evidence: tuple[tuple[int, int, int], ...]
    answer: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Pool:
    """Everything that training draws from.

    Attributes:
        facts: Answerable questions.
        missing: Questions that their passage doesn't answer.
        hops: Questions over several sentences.
        passages: (title, text) of plain passages, for distractors and made-up questions.
        held_out: Facts kept away from training, to watch it.
        dropped: How many records shared text or a question with evaluation.
    """

    facts: tuple[Fact, ...]
    missing: tuple[Fact, ...]
    hops: tuple[Hops, ...]
    passages: tuple[tuple[str, str], ...]
    held_out: tuple[Fact, ...]
    dropped: int


def data_folder() -> Path:
    """Returns the data folder: ``RECALLM_DATA``, or ``../shared/data`` beside the repository."""
    fallback = Path(__file__).resolve().parents[4] / "shared" / "data"
    return Path(os.environ.get("RECALLM_DATA", fallback))


def read_rows(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """Yields the records of one file.

    Raises:
        RecallmError: The file isn't there.
    """
    path = folder / f"{name}.jsonl.gz"
    if not path.is_file():
        raise RecallmError(
            f"no training data at {path}; set RECALLM_DATA to the folder that has {name}.jsonl.gz,"
            " or use a config with only generated tasks"
        )
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _normal(text: str) -> str:
    return " ".join(_WORDS.findall(text.casefold()))


def ngrams(text: str) -> set[str]:
    """Returns the sets of 12 words in a row that mark a text as shared."""
    words = _WORDS.findall(text.casefold())
    return {" ".join(words[i : i + _NGRAM]) for i in range(len(words) - _NGRAM + 1)}


class LeakCheck:
    """Knows the questions and evidence texts of the evaluation rows, and finds them elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.questions: set[str] = set()
        self.grams: set[str] = set()
        for name in ("nq_multidoc_eval", "hotpotqa_dev", "quotesum_dev", "clapnq_dev"):
            for row in read_rows(folder, name):
                self.questions.add(_normal(row["question"]))
                for text in _evidence_texts(row):
                    self.grams |= ngrams(text)

    def leaks(self, question: str, texts: Iterable[str]) -> bool:
        """Says whether a record shares its question, or 12 words in a row, with evaluation."""
        if question and _normal(question) in self.questions:
            return True
        return any(not self.grams.isdisjoint(ngrams(text)) for text in texts)


def _evidence_texts(row: dict[str, Any]) -> list[str]:
    if "gold" in row:
        return [row["gold"]["text"]]
    if "sources" in row:
        return [source["text"] for source in row["sources"]]
    if "paragraphs" in row:
        return [" ".join(p["sentences"]) for p in row["paragraphs"] if p["gold"]]
    return [passage["text"] for passage in row["passages"]]


def is_held_out(text: str) -> bool:
    """Whether a paragraph's facts are kept away from training: every 12th paragraph's are."""
    return sum(text[:200].encode()) % 12 == 0


def read_pool(folder: Path, *, held_out: int = 300, more: Iterable[Fact] = ()) -> Pool:
    """Reads all training files, without what leaks; every 12th paragraph's facts are held out.

    Args:
        folder: The data folder.
        held_out: How many of the facts held out are kept, at most.
        more: Facts from elsewhere (``question_files.read_questions``), treated as the others.

    Raises:
        RecallmError: A file isn't there.
    """
    check = LeakCheck(folder)
    facts: list[Fact] = []
    missing: list[Fact] = []
    kept_away: list[Fact] = []
    dropped = 0
    verdicts: dict[str, bool] = {}
    for fact in chain(_facts(folder), more):
        if fact.text not in verdicts:
            verdicts[fact.text] = check.leaks("", [fact.text])
        if verdicts[fact.text] or check.leaks(fact.question, ()):
            dropped += 1
        elif is_held_out(fact.text):
            kept_away.append(fact)
        else:
            (facts if fact.start >= 0 else missing).append(fact)
    hops = [h for h in _hops(folder) if not check.leaks(h.question, (t for _, t in h.passages))]
    away = set().union(*(ngrams(fact.text) for fact in kept_away))
    passages = []
    for title, text in _passages(folder):
        if check.leaks("", [text]) or not away.isdisjoint(ngrams(text)):
            dropped += 1
        else:
            passages.append((title, text))
    return Pool(
        tuple(facts),
        tuple(missing),
        tuple(hops),
        tuple(passages),
        tuple(kept_away[:: max(1, len(kept_away) // held_out)]),
        dropped,
    )


def _facts(folder: Path) -> Iterator[Fact]:
    for row in read_rows(folder, "squad1_train_sample"):
        yield Fact("", row["context"], row["question"], row["answer"], row["start"])
    for row in read_rows(folder, "squad2"):
        title = row["title"].replace("_", " ")
        for qa in row["qas"]:
            if qa["impossible"]:
                yield Fact(title, row["context"], qa["question"], "", -1)
            else:
                answer = min(qa["answers"], key=lambda a: len(a["text"]))
                yield Fact(title, row["context"], qa["question"], answer["text"], answer["start"])
    for row in read_rows(folder, "nq_oracle_train"):
        gold = row["gold"]
        yield from locate(
            gold["title"], gold["text"], row["question"], row["answers"], is_searched=True
        )
    for row in read_rows(folder, "nq_swap"):
        answers = [clean(row["answer"])]
        yield from locate("", clean(row["context"]), row["question"], answers, is_searched=True)


def clean(text: str) -> str:
    """Undoes a tokenised spelling: tags, spaces before punctuation, quotes."""
    text = _TAGS.sub(" ", text)
    text = re.sub(r"\s+([,.;:!?%)\]])", r"\1", text)
    text = re.sub(r"([(\[$])\s+", r"\1", text)
    text = re.sub(r"\s+('s|'re|n't|'ve|'ll|'d|'m)\b", r"\1", text)
    return " ".join(text.split())


def locate(
    title: str, text: str, question: str, answers: Iterable[str], *, is_searched: bool
) -> Iterator[Fact]:
    """Yields the fact where its first answer stands, at the place most like the question.

    Args:
        title: The passage's.
        text: The passage.
        question: What is asked.
        answers: Those that are right, the best first; one that the passage lacks is passed over.
        is_searched: Whether people typed the question into a search box.
    """
    for answer in answers:
        places = [m.start() for m in re.finditer(re.escape(answer), text)]
        if places and len(answer) < 80:
            words = set(_WORDS.findall(question.casefold()))
            best = max(
                places,
                key=lambda at: len(
                    words & set(_WORDS.findall(text[max(0, at - 150) : at + 150].casefold()))
                ),
            )
            yield Fact(title, text, question, answer, best, is_searched)
            return


def _hops(folder: Path) -> Iterator[Hops]:
    for row in read_rows(folder, "hotpotqa_train_sample"):
        hops = _hotpot(row)
        if hops is not None:
            yield hops


def _hotpot(row: dict[str, Any]) -> Hops | None:
    """Returns the gold paragraphs of one row, the sentence with the answer last."""
    supporting = {(title, number) for title, number in row["supporting"]}
    passages: list[tuple[str, str]] = []
    spans: list[tuple[int, int, int]] = []
    for paragraph in row["paragraphs"]:
        text = ""
        for number, sentence in enumerate(paragraph["sentences"]):
            lead = len(sentence) - len(sentence.lstrip())
            if (paragraph["title"], number) in supporting:
                start = len(text) + (lead if text else 0)
                stop = len(text) + len(sentence.rstrip()) - (0 if text else lead)
                spans.append((len(passages), start, stop))
            text += sentence if text else sentence.lstrip()
        passages.append((paragraph["title"], text.rstrip()))
    holding = [(p, a, b) for p, a, b in spans if row["answer"] in passages[p][1][a:b] and b > a]
    if len(spans) < 2 or not holding:
        return None
    last = holding[-1]
    others = [span for span in spans if span != last][:1]
    at = last[1] + passages[last[0]][1][last[1] : last[2]].index(row["answer"])
    answer = (last[0], at, at + len(row["answer"]))
    return Hops(tuple(passages), row["question"], (*others, last), answer)


def _passages(folder: Path) -> Iterator[tuple[str, str]]:
    for row in read_rows(folder, "wiki_passages"):
        yield row["title"], row["text"]
    for name in ("docs_18f_handbook", "docs_peps"):
        for row in read_rows(folder, name):
            for block in pieces(row["text"], 900):
                yield row["title"], block


def pieces(text: str, size: int) -> Iterator[str]:
    """Cuts a long text at blank lines into pieces of about ``size`` characters."""
    piece = ""
    for paragraph in re.split(r"\n\s*\n", text):
        if piece and len(piece) + len(paragraph) > size:
            yield piece
            piece = ""
        piece = f"{piece}\n\n{paragraph}" if piece else paragraph
    if 40 < len(piece) < 4 * size:
        yield piece
