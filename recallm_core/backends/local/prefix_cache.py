"""Keys and values of prompts seen before, in blocks that prompts with one beginning share.

Blocks form a tree: a block's place says which tokens came before it, so equal blocks after other
beginnings are never mixed up. The cache is bounded in bytes; the leaf that was used longest ago
goes first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recallm_core.locks import ForkSafeLock

if TYPE_CHECKING:
    import torch

BLOCK = 64

Block: TypeAlias = "Sequence[torch.Tensor]"


@dataclass(slots=True, eq=False)
class _Node:
    parent: _Node | None
    key: bytes
    tensors: Block = ()
    size: int = 0
    used: int = 0
    children: dict[bytes, _Node] = field(default_factory=dict)


class PrefixCache:
    """A bounded tree of blocks; safe to use from many threads.

    Args:
        max_bytes: Bytes of keys and values at most; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes must be 0 or more, got {max_bytes}")
        self.max_bytes = max_bytes
        self._root = _Node(None, b"")
        self._nodes: set[_Node] = set()
        self._bytes = 0
        self._clock = 0
        self._lock = ForkSafeLock()

    @property
    def stored_bytes(self) -> int:
        """Bytes held now; never above ``max_bytes``."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._nodes)

    def match(self, token_ids: NDArray[np.int32]) -> list[Block]:
        """Returns the stored blocks that a prompt begins with, in order."""
        with self._lock:
            self._clock += 1
            blocks: list[Block] = []
            node = self._root
            for key in _keys(token_ids):
                child = node.children.get(key)
                if child is None:
                    break
                child.used = self._clock
                blocks.append(child.tensors)
                node = child
            return blocks

    def store(self, token_ids: NDArray[np.int32], read: Callable[[int, int], Block]) -> None:
        """Keeps the whole blocks of a prompt, as far as they fit.

        Args:
            token_ids: The prompt, or the part of it that is worth keeping.
            read: Returns copies of the tensors of a half-open token range; the token axis is the
                second from the end. It is asked for new blocks only.
        """
        with self._lock:
            self._clock += 1
            node = self._root
            for number, key in enumerate(_keys(token_ids)):
                child = node.children.get(key)
                if child is None:
                    child = self._add(node, key, read(number * BLOCK, (number + 1) * BLOCK))
                    if child is None:
                        return
                child.used = self._clock
                node = child

    def _add(self, parent: _Node, key: bytes, tensors: Block) -> _Node | None:
        size = sum(tensor.numel() * tensor.itemsize for tensor in tensors)
        if not self._make_room(size):
            return None
        node = _Node(parent, key, tensors, size, self._clock)
        parent.children[key] = node
        self._nodes.add(node)
        self._bytes += size
        return node

    def _make_room(self, size: int) -> bool:
        """Evicts what was used longest ago; what this call touched itself stays."""
        while self._bytes + size > self.max_bytes:
            leaves = [n for n in self._nodes if not n.children and n.used < self._clock]
            if not leaves:
                return False
            self._evict(min(leaves, key=lambda n: n.used), self.max_bytes - size)
        return True

    def _evict(self, leaf: _Node, goal: int) -> None:
        """Drops a leaf and, while that isn't enough, the equally old blocks before it."""
        age = leaf.used
        node: _Node | None = leaf
        while node is not None and node.parent is not None and self._bytes > goal:
            if node.children or node.used > age:
                return
            parent = node.parent
            del parent.children[node.key]
            self._nodes.remove(node)
            self._bytes -= node.size
            node = parent

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._root = _Node(None, b"")
            self._nodes.clear()
            self._bytes = 0


def _keys(token_ids: NDArray[np.int32]) -> list[bytes]:
    """The whole blocks of a prompt, as bytes."""
    ids = np.ascontiguousarray(token_ids, dtype="<i4")
    whole = len(ids) // BLOCK * BLOCK
    return [ids[at : at + BLOCK].tobytes() for at in range(0, whole, BLOCK)]
