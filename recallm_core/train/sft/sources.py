"""The sources that a config names, opened: data folder, plain text, own examples."""

from __future__ import annotations

import sys
from pathlib import Path

from recallm_core.documents.loading import Skipped, load_documents
from recallm_core.errors import RecallmError
from recallm_core.train.sft.config import SftConfig
from recallm_core.train.tasks.curriculum import Curriculum
from recallm_core.train.tasks.datasets import data_folder, pieces, read_pool
from recallm_core.train.tasks.training_example import read_examples

_PIECE = 1200  # characters of one passage of plain text, about


def curriculum(config: SftConfig) -> Curriculum:
    """Opens what a config names.

    Raises:
        RecallmError: Something isn't there, or can't be read.
    """
    pool = read_pool(data_folder()) if config.data else None
    examples = [example for name in config.lessons for example in read_examples(Path(name))]
    texts = plain_passages(config.texts)
    return Curriculum(config.tasks, pool=pool, texts=texts, examples=examples)


def plain_passages(paths: tuple[str, ...]) -> list[tuple[str, str]]:
    """Returns pieces of files and folders of text, with the names of their files.

    Raises:
        RecallmError: A path isn't there, or nothing of it is text.
    """
    if not paths:
        return []
    documents = load_documents(paths, on_skip=_tell).documents
    passages = [
        (document.title or "", piece)
        for document in documents
        for piece in pieces(document.text, _PIECE)
    ]
    if not passages:
        raise RecallmError(f"no text of any length in {list(paths)}; name folders of documents")
    return passages


def _tell(skipped: Skipped) -> None:
    sys.stderr.write(f"left out {skipped.path}: {skipped.reason}\n")
