"""Keeps the search for garbage off what a command loads once and uses to its end."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def long_lived(command: ExitStack) -> Iterator[None]:
    """Has what is loaded here left alone by the garbage collector until the command ends.

    Modules, a model and a large index are hundreds of thousands of objects, of which none is
    garbage; going through them again and again takes longer than packing a prompt.

    Args:
        command: Ended where it ends.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
    gc.freeze()
    command.callback(gc.unfreeze)
