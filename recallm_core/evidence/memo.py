"""Values that were worked out once, the longest unused ones dropped; for many threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from recallm_core.locks import ForkSafeLock

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class _Entry(Generic[Value]):
    """A value, or that there is none yet; the lock is held while it is worked out."""

    def __init__(self) -> None:
        self.lock = ForkSafeLock()
        self.values: list[Value] = []


class Memo(Generic[Key, Value]):
    """Remembers values by key.

    A value is worked out outside of the lock that all keys share: who asks for another key doesn't
    wait. Who asks for the same one does, and it is worked out once.

    Args:
        size: Values that are remembered.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[Key, _Entry[Value]] = OrderedDict()
        self._lock = ForkSafeLock()

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """Returns the value of a key.

        Args:
            key: What it is remembered by.
            make: Works it out; what it raises is raised here, and nothing is remembered.
        """
        with self._lock:
            entry = self._entries.pop(key, None) or _Entry()
            self._entries[key] = entry
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)
        with entry.lock:
            if not entry.values:
                entry.values.append(make())
            return entry.values[0]
