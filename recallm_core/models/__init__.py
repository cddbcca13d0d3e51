"""The checkpoints that come with the library."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).resolve().parent
_NAMES = ("recallm-mini", "recallm-smol")  # a whole model; an adapter
SHIPPED = tuple(name for name in _NAMES if (_FOLDER / name).is_dir())


def shipped(name: str) -> Path | None:
    """Returns the folder of a shipped model; None for any other name."""
    return _FOLDER / name if name in SHIPPED else None
