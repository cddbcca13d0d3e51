"""How many threads a forward pass takes: a short one by a small model is quicker on one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_SMALL = 1 << 27  # multiplications of a pass, shared among layers: too few to wake a thread for


@contextmanager
def fitting_threads(work: int, device: torch.device) -> Iterator[None]:
    """Has what is done here use one of the processor's threads, where more would lose.

    Threads of torch wait for each other after every operation, busily. Between the short ones of a
    small model most of their time goes into that; where something else runs on the cores, nearly
    all of it. The number is this thread's, but for threads that call torch for the first time
    meanwhile: those stay at one.

    Args:
        work: Weights times tokens, about.
        device: Where the model is.
    """
    usual = torch.get_num_threads()
    if device.type != "cpu" or work > _SMALL or usual == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(usual)
