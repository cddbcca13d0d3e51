"""What a model answers to questions over long documents of one's own: papers, contracts, manuals.

    python -m recallm_core.evaluation.long_documents FILE --out runs/papers --n 40

FILE is in SQuAD's format: ``data``, ``paragraphs``, ``context``, ``qas``, ``answers``, ``text``.
Each question is asked over its whole ``context``. ``hit`` is the share of answers with a citation
that holds a gold answer. Rows go to ``--out`` as they come, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from recallm_core.documents.document import Document
from recallm_core.errors import RecallmError
from recallm_core.evaluation.cited.policies import record_of
from recallm_core.evaluation.frame.records import AnswerRecord
from recallm_core.evaluation.frame.run import Cell, ask, place
from recallm_core.evaluation.frame.statistics import mean_of
from recallm_core.evaluation.frame.ways import timer
from recallm_core.evaluation.items import Item
from recallm_core.evaluation.metrics import exact_match, holds, word_f1
from recallm_core.evaluation.rows import Row
from recallm_core.generator import RecaLLM
from recallm_core.prompting.params import GenerationParams

SUITE = "long documents"


def read_questions(path: Path) -> list[Item]:
    """Returns the questions of a file in SQuAD's format.

    Raises:
        RecallmError: The file can't be read, isn't in that format, or asks nothing.
    """
    try:
        data = json.loads(path.read_text("utf-8"))
        items = [*_items(data)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecallmError(
            f"{path} should be JSON in SQuAD's format (data, paragraphs, context, qas, answers), "
            f"but: {type(error).__name__}: {error}"
        ) from error
    if not items:
        raise RecallmError(f"{path} has no question; give a file whose paragraphs have qas")
    return items


def _items(data: Mapping[str, Any]) -> Iterator[Item]:
    for number, article in enumerate(data["data"]):
        title = str(article.get("title") or "") or None
        for part, paragraph in enumerate(article["paragraphs"]):
            document = Document(paragraph["context"], f"{number}.{part}", title)
            for question in paragraph["qas"]:
                answers = tuple(answer["text"].strip() for answer in question["answers"])
                name = f"{document.id}-{question['id']}"
                yield Item(name, (document,), question["question"].strip(), answers)


def sample(items: Sequence[Item], n: int, seed: int) -> list[Item]:
    """Returns some questions, of as many documents as there are.

    Args:
        items: All of them.
        n: How many at most.
        seed: Which ones follows from it.
    """
    rng = random.Random(seed)
    by_document: dict[str, list[Item]] = {}
    for item in rng.sample(list(items), len(items)):
        by_document.setdefault(item.documents[0].id, []).append(item)
    turns = zip_longest(*by_document.values())
    return [item for turn in turns for item in turn if item is not None][:n]


@dataclass(slots=True)
class AsShipped:
    """Answers as ``RecaLLM.answer`` does by default, packing included.

    Attributes:
        llm: The model.
        name: As rows name it.
    """

    llm: RecaLLM
    name: str = "recall"

    def asks(self, item: Item) -> bool:
        """Whether a question is asked: each is."""
        return bool(item.documents)

    def __call__(self, items: Sequence[Item]) -> list[AnswerRecord]:
        """Returns what came of each question."""
        return [self._answer(item) for item in items]

    def _answer(self, item: Item) -> AnswerRecord:
        params = GenerationParams(temperature=0.0)
        with timer(1) as times:
            answer = self.llm.answer(item.question, list(item.documents), params=params)
        return record_of(answer, times.wall, times.cpu)


def score(item: Item, record: AnswerRecord) -> dict[str, float]:
    """Returns how right an answer is; of a question without an answer, whether it abstained."""
    abstained = float(bool(record.abstained))
    if not item.answerable:
        return {"abstained": abstained}
    return {
        "f1": word_f1(record.text, item.answers),
        "em": exact_match(record.text, item.answers),
        "hit": max((holds(c.text, item.answers) for c in record.citations), default=0.0),
        "abstained": abstained,
    }


def lines_of(rows: Sequence[Row]) -> Iterator[str]:
    """Yields a table of some rows: those with an answer in their document, then the others."""
    yield "| document | n | F1 | EM | hit | abstained | CPU s |"
    yield "|---" * 7 + "|"
    for name, has_answer in (("holds an answer", True), ("holds none", False)):
        part = [row for row in rows if row["answerable"] is has_answer and "error" not in row]
        if part:
            figures = [_shown(part, figure) for figure in ("f1", "em", "hit", "abstained")]
            seconds = sum(row["cpu_seconds"] for row in part) / len(part)
            yield f"| {name} | {len(part)} | {' | '.join(figures)} | {seconds:.1f} |"


def _shown(rows: Sequence[Row], figure: str) -> str:
    """A mean with its interval; a dash where it can't be said of these rows."""
    values = [row["scores"][figure] for row in rows if figure in row["scores"]]
    if not values:
        return "-"
    mean = mean_of(values)
    return f"{mean.mean:.2f} ({mean.low:.2f}-{mean.high:.2f})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Asks what isn't in the folder yet, and prints the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, help="questions in SQuAD's format")
    parser.add_argument("--out", type=Path, required=True, help="folder for the rows")
    parser.add_argument("--n", type=int, default=40, help="questions at most (40)")
    parser.add_argument("--seed", type=int, default=1, help="which ones (1)")
    parser.add_argument("--model", default="recallm-mini", help="a name, a folder or a hub id")
    options = parser.parse_args(arguments)
    try:
        items = sample(read_questions(options.file), options.n, options.seed)
        llm = RecaLLM.load(options.model)
        options.out.mkdir(parents=True, exist_ok=True)
        way = AsShipped(llm, options.model)
        cell = Cell(SUITE, options.file.name, len(items), lambda: items)
        result = ask([way], [cell], options.out, _tell, batch=1, score=score)
    except (RecallmError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    rows = [result.file.get(place(SUITE, way, item)) for item in items]
    sys.stdout.writelines(f"{line}\n" for line in lines_of([r for r in rows if r is not None]))
    return 0


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    raise SystemExit(main())
