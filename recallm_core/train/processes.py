"""A run on several processes: which of them writes, and where they wait for each other."""

from __future__ import annotations

import os


def is_main_process() -> bool:
    """Says whether this process writes what there is one of; the launcher numbers them."""
    return os.environ.get("RANK", "0") == "0"


def wait_for_all() -> None:
    """Goes on once every process of the run has come here."""
    from accelerate import PartialState

    PartialState().wait_for_everyone()


def is_true_anywhere(flag: bool) -> bool:
    """Says whether a flag is set in any process; each has to ask, at the same place."""
    from accelerate.utils import gather_object

    return any(gather_object([flag]))
