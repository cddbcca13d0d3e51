"""lm-evaluation-harness: our models in it, and our tasks for any model of it."""

from __future__ import annotations

from pathlib import Path

TASKS = Path(__file__).resolve().parent / "tasks"
"""The folder to give it: ``TaskManager(include_path=str(TASKS))``, or ``--include_path``."""
