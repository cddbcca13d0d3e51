"""Locks that are free in a forked child, whoever held them at the fork."""

from __future__ import annotations

import os
import threading
from typing import Any
from weakref import WeakSet


class ForkSafeLock:
    """A reentrant lock.

    A process has only the thread that forked it. A lock that another thread held at that moment
    would be held for ever there, so a child begins with new ones.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _all.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: Any) -> None:
        self._lock.release()

    def renew(self) -> None:
        """Makes the lock free."""
        self._lock = threading.RLock()


_all: WeakSet[ForkSafeLock] = WeakSet()


def _renew() -> None:
    for lock in list(_all):
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
