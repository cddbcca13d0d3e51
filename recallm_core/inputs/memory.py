"""How much memory this machine has."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress


def memory_bytes() -> int:
    """Physical memory of this machine; a careful guess where it can't be told."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 8 << 30


def give_back() -> None:
    """Returns freed memory to the system where glibc would keep it: much, after a tokenizer."""
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
