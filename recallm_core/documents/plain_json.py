"""Values that are plain JSON: what may be shown to a model, or saved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from recallm_core.documents.document import check_text

_DEEPEST = 64  # levels; what writes such values goes down by recursion
_MOST_BITS = 13_000  # Python writes no more than 4,300 digits


def check_json(value: Any, what: str, *, depth: int = 0) -> None:
    """Raises unless a value is plain JSON: no other types, no NaN, not nested too deeply.

    Raises:
        ValueError: It isn't.
        DocumentError: A text in it has a lone surrogate.
    """
    if depth > _DEEPEST:
        raise ValueError(f"{what} must be nested at most {_DEEPEST} levels deep")
    if isinstance(value, str):
        check_text(value, f"a text in {what}")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            check_text(key, f"a key in {what}")
            check_json(inner, what, depth=depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            check_json(inner, what, depth=depth + 1)
    elif not _is_plain(value):
        raise ValueError(
            f"{what} must be plain JSON (objects, lists, strings, finite numbers of up to 4,000 "
            f"digits, booleans, null), got {_describe(value)}"
        )


def _is_plain(value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int):
        return value.bit_length() < _MOST_BITS
    return isinstance(value, float) and math.isfinite(value)


def _describe(value: Any) -> str:
    return repr(value) if isinstance(value, float) else f"one {type(value).__name__}"
