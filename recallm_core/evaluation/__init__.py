"""Evaluation: suites of questions, conditions, metrics, and the report of a run."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``recallm eval``; see ``commands``."""
    from recallm_core.evaluation.commands import main as run

    return run(argv)
