"""What the libraries below torch remember of every shape they met, bounded."""

from __future__ import annotations

import os

KERNELS = 64
_VARIABLE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


def bound_kernels() -> None:
    """Has oneDNN keep the kernels of some shapes only; whoever set a number keeps it.

    It keeps those of a thousand otherwise. No two prompts are as long, so a server that answers
    for hours would fill hundreds of megabytes with kernels that it hardly needs again. It asks for
    the number when it makes its first kernel.
    """
    os.environ.setdefault(_VARIABLE, str(KERNELS))
