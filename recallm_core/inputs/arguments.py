"""Numbers that callers give, checked at the door."""

from __future__ import annotations

import math
import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from numbers import Real
from operator import index
from reprlib import repr as _short
from typing import Any

MOST = 2**63 - 1
MOST_COUNTED = 10**9
MOST_TOKENS = 10**7
MOST_THREADS = 1024
_PRIVATE = re.compile(r"(?<=//).*(?=@)|(?<=\?).*", re.DOTALL)


def whole_number(
    name: str,
    value: Any,
    low: int = 0,
    high: int = MOST,
    *,
    error: type[ValueError] = ValueError,
) -> int:
    """Returns a whole number within bounds, both included.

    Args:
        name: How the caller calls it.
        value: What was given; anything that counts as an index, but no bool.
        low: The least.
        high: The most.
        error: What is raised.

    Raises:
        ValueError: It is something else.
    """
    try:
        number = None if isinstance(value, bool) else index(value)
    except TypeError:
        number = None
    if number is None or not low <= number <= high:
        raise error(f"{name} must {_bounds(number, low, high)}, got {shown(value)}")
    return number


def whole_option(low: int, high: int) -> Callable[[str], int]:
    """Returns what reads an option of a command as a whole number within bounds.

    Args:
        low: The least.
        high: The most.
    """

    def read(text: str) -> int:
        number = int(text) if re.fullmatch(r"\s*[-+]?[0-9]{1,20}\s*", text) else None
        if number is None or number > high:
            raise ArgumentTypeError(
                f"must be a whole number from {low:,} to {high:,}, got {shown(text)}"
            )
        if number < low:
            raise ArgumentTypeError(f"must be at least {low:,}, got {number:,}")
        return number

    return read


def _bounds(number: int | None, low: int, high: int) -> str:
    if high != MOST:
        return f"be a whole number in [{low}, {high}]"
    if number is None or number > high:
        return f"be a whole number of at least {low}"
    return f"be at least {low}" if low else "not be negative"


def real_number(
    name: str, value: Any, low: float = 0.0, high: float = math.inf, *, above: bool = False
) -> float:
    """Returns a finite number within bounds.

    Args:
        name: How the caller calls it.
        value: What was given; no bool, and no text.
        low: The least.
        high: The most.
        above: Whether ``low`` itself is too little.

    Raises:
        ValueError: It is something else, infinite or not a number.
    """
    try:
        number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else None
    except (OverflowError, ValueError):
        number = None
    fits = number is not None and math.isfinite(number) and low <= number <= high
    if number is None or not fits or (above and number == low):
        bounds = f"above {low:g}" if above else f"of at least {low:g}"
        if math.isfinite(high):
            bounds = f"in [{low:g}, {high:g}]"
        raise ValueError(f"{name} must be a number {bounds}, got {shown(value)}")
    return number


def without_password(address: str) -> str:
    """Returns an address without user, password and query, for messages."""
    return _PRIVATE.sub("…", address[:200])


def shown(value: object) -> str:
    """Returns any value as a short text for a message."""
    try:
        return _short(value)
    except Exception:  # a number of too many digits, or a repr that fails
        return f"one {type(value).__name__}"
