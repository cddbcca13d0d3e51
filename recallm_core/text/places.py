"""Where a text stands inside another, every place, in linear time."""

from __future__ import annotations

from collections.abc import Iterator


def find_all(text: str, source: str) -> Iterator[int]:
    """Yields every place of a non-empty text in another, overlapping ones too, in linear time."""
    period = 0
    at = source.find(text)
    while at >= 0:
        yield at
        following = source.find(text[:1], at + 1)
        if not 0 <= following < at + len(text):
            at = source.find(text, at + 1)
            continue
        period = period or _period(text)
        size = len(text)
        # No copy begins before one period later; there, only the last period is new to check.
        if source.startswith(text[size - period :], at + size):
            at += period
        else:
            at = source.find(text, at + period)


def _period(text: str) -> int:
    """The least shift at which a text agrees with itself (Knuth, Morris and Pratt)."""
    border = [0] * len(text)
    size = 0
    for i in range(1, len(text)):
        while size and text[i] != text[size]:
            size = border[size - 1]
        size += text[i] == text[size]
        border[i] = size
    return len(text) - border[-1]
