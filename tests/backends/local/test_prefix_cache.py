"""The tree of blocks against a plain dictionary of prefixes."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.backends.local.prefix_cache import BLOCK, PrefixCache

WIDTH = 4
BLOCK_BYTES = 2 * WIDTH * BLOCK * 4  # keys and values, four bytes each


def prompt(letters: str) -> np.ndarray:
    """One letter is one block of equal tokens."""
    return np.repeat([ord(c) for c in letters], BLOCK).astype(np.int32)


def states(ids: np.ndarray) -> torch.Tensor:
    """What a model would keep: it depends on everything up to each token."""
    return torch.tensor(np.cumsum(ids * 7 % 1009), dtype=torch.float32)


class Reader:
    def __init__(self, ids: np.ndarray) -> None:
        self.states = states(ids)
        self.read: list[int] = []

    def __call__(self, start: int, stop: int) -> list[torch.Tensor]:
        self.read.append(start // BLOCK)
        part = self.states[start:stop, None].expand(-1, WIDTH).clone()
        return [part, -part]


def check(cache: PrefixCache, ids: np.ndarray) -> int:
    """What is found is right, whatever it is; returns how many blocks."""
    blocks = cache.match(ids)
    for number, (keys, values) in enumerate(blocks):
        expected = states(ids)[number * BLOCK : (number + 1) * BLOCK]
        assert torch.equal(keys[:, 0], expected)
        assert torch.equal(values[:, 0], -expected)
    return len(blocks)


@given(
    prompts=st.lists(st.text("abc", max_size=6), max_size=30),
    room=st.integers(0, 12),
    tail=st.integers(0, BLOCK - 1),
)
def test_it_finds_only_what_is_right_and_stays_within_its_bytes(
    prompts: list[str], room: int, tail: int
) -> None:
    cache = PrefixCache(room * BLOCK_BYTES)
    seen: set[str] = set()
    for letters in prompts:
        ids = np.concatenate([prompt(letters), prompt("z")[:tail]])
        found = check(cache, ids)
        assert all(letters[: n + 1] in seen for n in range(found))
        reader = Reader(ids)
        cache.store(ids, reader)
        assert cache.stored_bytes == len(cache) * BLOCK_BYTES <= cache.max_bytes
        assert reader.read[: len(letters) - found] == list(range(found, found + len(reader.read)))
        assert check(cache, ids) == min(len(letters), room)
        seen |= {letters[: n + 1] for n in range(len(letters))}


def test_equal_blocks_after_different_beginnings_are_kept_apart() -> None:
    cache = PrefixCache(100 * BLOCK_BYTES)
    for letters in ("ab", "cb"):
        cache.store(prompt(letters), Reader(prompt(letters)))
    assert check(cache, prompt("ab")) == check(cache, prompt("cb")) == 2
    assert check(cache, prompt("bb")) == 0


def test_the_leaf_used_longest_ago_goes_first() -> None:
    cache = PrefixCache(4 * BLOCK_BYTES)
    for letters in ("xa", "xb", "xc"):
        cache.store(prompt(letters), Reader(prompt(letters)))
    assert check(cache, prompt("xa")) == 2  # used again
    cache.store(prompt("xd"), Reader(prompt("xd")))
    assert [check(cache, prompt(p)) for p in ("xa", "xb", "xc", "xd")] == [2, 1, 2, 2]


def test_clearing_and_refusing() -> None:
    cache = PrefixCache(10 * BLOCK_BYTES)
    cache.store(prompt("abc"), Reader(prompt("abc")))
    cache.clear()
    assert (cache.stored_bytes, len(cache), check(cache, prompt("abc"))) == (0, 0, 0)
    with pytest.raises(ValueError, match="0 or more"):
        PrefixCache(-1)


def test_many_threads_at_once() -> None:
    cache = PrefixCache(5 * BLOCK_BYTES)
    failed: list[BaseException] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(60):
                ids = prompt("".join(rng.choice(list("ab"), size=rng.integers(1, 6))))
                cache.store(ids, Reader(ids))
                check(cache, ids)
                assert cache.stored_bytes <= cache.max_bytes
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
