"""What the libraries below torch remember of every shape they met, bounded."""

from __future__ import annotations

import os

KERNELS = 16
_VARIABLES = (
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY",  # oneDNN's own, of the process
    "LRU_CACHE_CAPACITY",  # of the layer between it and torch, of every thread
)


def bound_kernels() -> None:
    """Has oneDNN and the layer above keep the kernels of some shapes; a number set before stays.

    Each keeps those of a thousand otherwise, a third of a megabyte apiece. No two prompts are as
    long, so a server that answers for hours would fill hundreds of megabytes with kernels that it
    hardly needs again. They ask for the number when they make their first kernel.
    """
    for variable in _VARIABLES:
        os.environ.setdefault(variable, str(KERNELS))
