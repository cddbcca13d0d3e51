"""Copies between host and device that are queued on the device's stream, not waited for."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def copy_to_device(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Returns an array's values on a device, where later operations find them."""
    tensor = torch.from_numpy(array)
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


class HostCopies:
    """Copies to the host: begun where the device stands, read once it has come that far.

    Args:
        device: Where the tensors are.
    """

    def __init__(self, device: torch.device) -> None:
        self._event = None if device.type == "cpu" else torch.Event(device)

    def begin(self, tensor: torch.Tensor) -> torch.Tensor:
        """Queues a copy; its values are there after ``finish``."""
        if self._event is None:
            return tensor.clone()
        target = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return target.copy_(tensor, non_blocking=True)

    def mark(self) -> None:
        """Says that the copies begun so far belong together; what is queued later isn't awaited."""
        if self._event is not None:
            self._event.record()

    def finish(self) -> None:
        """Waits for the copies that were begun before ``mark``."""
        if self._event is not None:
            self._event.synchronize()


def to_numpy(tensor: torch.Tensor) -> NDArray[np.int32]:
    """Returns a finished copy as an array that holds no pinned memory."""
    return np.array(tensor.numpy(), dtype=np.int32)
