"""Values of a spec as plain JSON and back; what comes back is untrusted."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recallm_core.errors import ConstraintError

MAX_IDS = 2**31 - 1  # ids and positions are 32-bit integers


def require_kind(value: Any, kind: type | tuple[type, ...]) -> Any:
    """The value, if it has exactly the kind that was asked for: a bool is no number here."""
    if type(value) not in (kind if isinstance(kind, tuple) else (kind,)):
        raise TypeError(f"expected {kind}, got {str(value)[:60]!r}")
    return value


def read_number(value: Any, low: int = 0) -> int:
    """A number that is an id, a position or a count."""
    if not low <= require_kind(value, int) <= MAX_IDS:
        raise ValueError(f"expected a number in [{low}, {MAX_IDS}], got {str(value)[:60]}")
    return int(value)


def read_amount(value: Any) -> float:
    """A number that needn't be whole."""
    return float(require_kind(value, (int, float)))


def read_ids(values: Any) -> tuple[int, ...]:
    """A list of such numbers."""
    return tuple(read_number(value) for value in require_kind(values, list))


def refuse_name(name: str) -> float:
    """Refuses what JSON has for infinity and for no number."""
    raise ValueError(f"{name} is no number")


def pack_bits(bits: NDArray[np.bool_]) -> str:
    """Bools as text, eight to a byte."""
    return base64.b64encode(np.packbits(bits).tobytes()).decode("ascii")


def unpack_bits(text: str, size: int) -> NDArray[np.bool_]:
    """The bools behind such a text, which must be ``size``."""
    data = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    if len(data) != (size + 7) // 8:
        raise ConstraintError(f"a bitmap of {size} bits needs {(size + 7) // 8} bytes")
    return np.unpackbits(data, count=size).astype(np.bool_)


def pack_floats(values: NDArray[np.float32]) -> str:
    """Scores as text, in 32 bits."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")


def unpack_floats(text: str, size: int) -> NDArray[np.float32]:
    """The scores behind such a text, which must be ``size`` and finite."""
    values = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4")
    if len(values) != size or not np.isfinite(values).all():
        raise ConstraintError(f"the prior needs {size} finite scores, got {len(values)}")
    return values.astype(np.float32)
