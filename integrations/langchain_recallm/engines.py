"""Names for loaded models, which no other has had."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from recallm_core.adapting import ForkSafeLock

if TYPE_CHECKING:
    from recallm_core import RecaLLM

_NAMES: WeakKeyDictionary[RecaLLM, str] = WeakKeyDictionary()
_NAMING = ForkSafeLock()


def name_of(engine: RecaLLM) -> str:
    """Returns a name that no other model has had, for the keys of caches."""
    with _NAMING:
        return _NAMES.setdefault(engine, uuid.uuid4().hex)
