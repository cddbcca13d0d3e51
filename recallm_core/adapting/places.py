"""Where a text stands in its source: claimed offsets are checked by slicing, or found again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator


def occurrences(text: str, original: str, limit: int | None = None) -> Iterator[int]:
    """Yields where a text stands in another, in order, overlapping ones too."""
    at = original.find(text) if text else -1
    while at >= 0 and (limit is None or limit > 0):
        yield at
        limit = None if limit is None else limit - 1
        at = original.find(text, at + 1)


def nearest(
    text: str, original: str, expected: int | None, *, low: int = 0, high: int | None = None
) -> int | None:
    """Returns the occurrence nearest to an expected offset; without one, the first.

    Args:
        text: What is looked for.
        original: Where.
        expected: Of two that are equally near, the first is taken.
        low: The occurrence begins here or later.
        high: And before this.
    """
    high = len(original) + 1 if high is None else high
    middle = min(max(low, low if expected is None else expected), high - 1)
    before = original.rfind(text, low, middle + len(text))
    after = original.find(text, middle)
    candidates = [at for at in (before, after) if low <= at < high]
    return min(candidates, key=lambda at: abs(at - middle), default=None)


def is_at(text: str, original: str, claimed: int | None) -> bool:
    """Whether a text stands where it is said to stand."""
    return claimed is not None and claimed >= 0 and original.startswith(text, claimed)


def proven_place(text: str, original: str, claimed: int | None) -> int | None:
    """Returns the claimed place of a text if that is true, else the only one that there is."""
    if is_at(text, original, claimed):
        return claimed
    at = original.find(text)
    return at if at >= 0 and original.find(text, at + 1) < 0 else None


def stable_id(kind: str, *parts: object, size: int = 10) -> str:
    """Returns an id that follows from some parts alone: equal ones, equal ids.

    Args:
        kind: What it names; its beginning.
        parts: What it depends on.
        size: Bytes of the hash.
    """
    identity = "\0".join(map(str, parts))
    return f"{kind}-{hashlib.blake2b(identity.encode('utf-8'), digest_size=size).hexdigest()}"
