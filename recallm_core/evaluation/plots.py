"""Pictures of a run, drawn with matplotlib."""

from __future__ import annotations

from pathlib import Path

from recallm_core.evaluation.runner import Results


def draw(results: Results, folder: Path) -> list[str]:
    """Draws what the run has rows for; returns the files' names relative to the folder."""
    return []
