"""RULER's samples as rows for lm-evaluation-harness, and their scores: plain values, no harness."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from recallm_core.documents.document import Document
from recallm_core.errors import RecallmError
from recallm_core.evaluation.frame.lengths import Fitter
from recallm_core.evaluation.frame.records import AnswerRecord
from recallm_core.evaluation.frame.sample import Sample
from recallm_core.evaluation.ruler.scores import answer_scores
from recallm_core.evaluation.ruler.tasks import TASKS, Texts, fitted_samples
from recallm_core.models import shipped
from recallm_core.train.tasks.datasets import data_folder

_LENGTHS = (4096,)
_N = 100


class TextMeter:
    """Counts the tokens of a sample as one text.

    Args:
        count: Tokens of a text.
    """

    def __init__(self, count: Callable[[str], int]) -> None:
        self._count = count

    def tokens(self, sample: Sample) -> int:
        """Tokens of prompt and answer; a chat template's own aren't known here."""
        return self._count(prompt_text(sample)) + sample.budget

    def room(self, length: int) -> int:
        """All of it."""
        return length


def counter(model: str) -> Callable[[str], int]:
    """Returns what counts tokens with the ``tokenizer.json`` of a model's folder.

    Raises:
        RecallmError: There is none.
    """
    path = Path(shipped(model) or model) / "tokenizer.json"
    if not path.is_file():
        raise RecallmError(
            f"no tokenizer at {path}; name a model's folder: --metadata "
            '\'{"tokenizer": "FOLDER", "max_seq_lengths": [4096]}\''
        )
    tokenizer = Tokenizer.from_file(str(path))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def rows(
    task: str,
    *,
    tokenizer: str,
    lengths: Sequence[int] = _LENGTHS,
    n: int = _N,
    seed: int = 0,
    haystack: str | None = None,
) -> list[dict[str, Any]]:
    """Returns the samples of a task as plain rows.

    Args:
        task: One of RULER's.
        tokenizer: Folder of the model whose tokens are counted.
        lengths: In tokens.
        n: Samples of each length.
        seed: Makes them.
        haystack: Folder of text to hide needles in.

    Raises:
        RecallmError: There is no such task, tokenizer or data.
    """
    if task not in TASKS:
        raise RecallmError(f"no task {task!r}; there are {', '.join(TASKS)}")
    fitter = Fitter(TextMeter(counter(tokenizer)))
    texts = Texts(data_folder(), Path(haystack) if haystack else None)
    return [
        row_of(sample)
        for length in lengths
        for sample in fitted_samples(TASKS[task], length, n, seed=seed, fitter=fitter, texts=texts)
    ]


def row_of(sample: Sample) -> dict[str, Any]:
    """Returns a sample as a row; what has structure is JSON, for tables of plain columns."""
    documents = [[document.id, document.title, document.text] for document in sample.documents]
    return {
        "id": sample.id,
        "task": sample.task,
        "max_length": sample.length,
        "input": prompt_text(sample),
        "outputs": list(sample.answers),
        "recallm_documents": json.dumps(documents),
        "recallm_turns": json.dumps(sample.turns()),
    }


def prompt_text(sample: Sample) -> str:
    """Returns a sample as one text: solved examples, documents, question."""
    shots = [f"{question}\n{answer}" for question, answer in sample.shots]
    texts = [document.text for document in sample.documents]
    if len(texts) > 1:
        texts = [f"Document {n}:\n{text}" for n, text in enumerate(texts, start=1)]
    return "\n\n".join([*shots, *texts, sample.question])


def documents_of(row: Mapping[str, Any]) -> list[Document] | None:
    """Returns a row's documents; None where it isn't one of ours."""
    listed = row.get("recallm_documents")
    if not isinstance(listed, str):
        return None
    return [Document(text, name, title) for name, title, text in json.loads(listed)]


def judge(row: Mapping[str, Any], answer: str) -> dict[str, float]:
    """Returns RULER's score of an answer, and its precision."""
    sample = Sample(row["id"], (), "", tuple(row["outputs"]), group=row["task"])
    figures = answer_scores(sample, AnswerRecord(answer, answer))
    return {"score": figures["score"], "precision": figures["precision"]}
