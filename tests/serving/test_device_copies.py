"""Copies are begun, marked and awaited in this order; a device that is the host has no queue."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from recallm_core.backends.device_copies import HostCopies, copy_to_device, to_numpy


def test_on_the_host_a_copy_is_there_at_once() -> None:
    device = torch.device("cpu")
    down, values = HostCopies(device), copy_to_device(np.arange(3, dtype=np.int32), device)
    found = down.begin(values)
    down.mark()
    values += 1
    down.finish()
    array = to_numpy(found)
    found += 5
    assert array.tolist() == [0, 1, 2]


def test_a_device_is_awaited_up_to_the_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    empty, copy = torch.empty, torch.Tensor.copy_

    class Event:
        def __init__(self, device: torch.device) -> None:
            seen.append(device.type)

        def record(self) -> None:
            seen.append("record")

        def synchronize(self) -> None:
            seen.append("synchronize")

    def pinned(*shape: Any, pin_memory: bool, **options: Any) -> torch.Tensor:
        assert pin_memory
        return empty(*shape, **options)

    def queued(self: torch.Tensor, source: torch.Tensor, *, non_blocking: bool) -> torch.Tensor:
        seen.append(("copy", non_blocking))
        return copy(self, source)

    monkeypatch.setattr(torch, "Event", Event)
    monkeypatch.setattr(torch, "empty", pinned)
    monkeypatch.setattr(torch.Tensor, "copy_", queued)
    down = HostCopies(torch.device("cuda", 0))
    found = down.begin(torch.ones(2, dtype=torch.int32))
    down.mark()
    down.finish()
    assert seen == ["cuda", ("copy", True), "record", "synchronize"]
    assert found.tolist() == [1, 1]
