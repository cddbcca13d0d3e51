"""What a command loads isn't searched for garbage, and its end leaves the collector as it was."""

from __future__ import annotations

import gc
from contextlib import ExitStack

import pytest

from recallm_core.cli.garbage import long_lived


def test_what_is_loaded_is_frozen_until_the_command_ends() -> None:
    before = gc.get_freeze_count()
    with ExitStack() as command:
        with long_lived(command):
            assert not gc.isenabled()
            loaded = [[n] for n in range(1000)]
        assert gc.isenabled()
        assert gc.get_freeze_count() >= before + len(loaded)
    assert gc.get_freeze_count() == 0


def test_a_load_that_fails_leaves_the_collector_on() -> None:
    with ExitStack() as command, pytest.raises(RuntimeError), long_lived(command):
        raise RuntimeError
    assert gc.isenabled()


def test_whoever_turned_the_collector_off_keeps_it_off() -> None:
    gc.disable()
    try:
        with ExitStack() as command, long_lived(command):
            pass
        assert not gc.isenabled()
        assert gc.get_freeze_count() == 0
    finally:
        gc.enable()
