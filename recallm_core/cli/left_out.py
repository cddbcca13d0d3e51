"""What a command says of the files that gave it no document: each reason once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from recallm_core.documents.loading import Loaded, Skipped

_REASONS = 20  # that are said, and notes
_NAMED = 3  # files that are named for each


def left_out(skipped: Iterable[Skipped]) -> list[str]:
    """Returns one line a reason, in order: the first files by name, how many more, and why."""
    by_reason: dict[str, list[str]] = {}
    for skip in skipped:
        by_reason.setdefault(skip.reason, []).append(skip.path)
    return [f"{_named(paths)}: {reason}" for reason, paths in by_reason.items()]


def tell_left_out(loaded: Loaded, write: Callable[[str], None]) -> None:
    """Writes the lines of what was skipped, and the notes, as far as anybody reads them."""
    lines = left_out(loaded.skipped)
    for line in lines[:_REASONS]:
        write(f"skipped {line}")
    if len(lines) > _REASONS:
        write(f"skipped more, for {len(lines) - _REASONS:,} other reasons")
    for note in loaded.notes[:_REASONS]:
        write(f"{note.path}: {note.text}")


def to_stderr(line: str) -> None:
    """Writes a line, with what would act on a terminal made visible."""
    from recallm_core.rendering.visible import one_line

    sys.stderr.write(f"{one_line(line)}\n")


def _named(paths: list[str]) -> str:
    more = len(paths) - _NAMED
    named = ", ".join(paths[:_NAMED])
    return f"{named} and {more:,} more" if more > 0 else named
