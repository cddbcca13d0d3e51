"""Short passes on the processor run on one thread, and nothing is left changed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from recallm_core.backends.local.threads import fitting_threads

CPU = torch.device("cpu")


@pytest.fixture
def two_threads() -> Iterator[None]:
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(usual)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("work", "device", "threads"),
    [(4_000_000, CPU, 1), (4_000_000_000, CPU, 2), (4_000_000, torch.device("meta"), 2)],
)
def test_only_short_passes_on_the_processor_take_one(
    work: int, device: torch.device, threads: int
) -> None:
    with fitting_threads(work, device):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_a_pass_that_fails_leaves_the_number_as_it_was() -> None:
    with pytest.raises(RuntimeError, match="broken"), fitting_threads(1, CPU):
        raise RuntimeError("broken")
    assert torch.get_num_threads() == 2
