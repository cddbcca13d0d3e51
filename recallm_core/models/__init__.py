"""The checkpoints that come with the library."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).resolve().parent
SHIPPED = ("recallm-mini",)


def shipped(name: str) -> Path | None:
    """Returns the folder of a shipped model; None for any other name."""
    return _FOLDER / name if name in SHIPPED else None
