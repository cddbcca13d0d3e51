"""Where the data of HELMET-style tasks comes from, and what makes a sample of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recallm_core.evaluation.datasets import MissingDataError
from recallm_core.evaluation.frame.sample import Sample
from recallm_core.train.tasks.datasets import read_rows

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a task's data comes from.

    Attributes:
        data: The data folder.
        released: HELMET's own files, for who has them; None: rebuilt from the data folder.
    """

    data: Path
    released: Path | None = None


Make = Callable[[random.Random, int, int, Place], Sample]


def rows_of(folder: Path, name: str) -> tuple[dict[str, Any], ...]:
    """Returns the rows of a file of the data folder.

    Raises:
        MissingDataError: It isn't there.
    """
    if not (folder / f"{name}.jsonl.gz").is_file():
        raise MissingDataError(f"no {name}.jsonl.gz in {folder}; set RECALLM_DATA to its folder")
    return tuple(read_rows(folder, name))
