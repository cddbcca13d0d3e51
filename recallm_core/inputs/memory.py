"""How much memory this machine has."""

from __future__ import annotations

import os


def memory_bytes() -> int:
    """Physical memory of this machine; a careful guess where it can't be told."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 8 << 30
