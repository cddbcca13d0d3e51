"""Where the data of HELMET-style tasks comes from, and what makes a sample of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recallm_core.evaluation.frame.sample import Sample

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
