"""What the engine needs of whatever runs a model; no library of tensors is named here."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recallm_core.backends.local.prefix_cache import PrefixCache
from recallm_core.backends.local.sampling import Best, Scores
from recallm_core.decoding.constraint import Mask

Ids = NDArray[np.int32]


@dataclass(eq=False, slots=True)
class Slot:
    """One sequence inside a runner.

    Attributes:
        length: Tokens whose keys and values are valid.
        row: Its row of the batch buffers.
        state: The cache object of a one-by-one runner.
        seen: Its tokens, for models that keep nothing between calls.
    """

    length: int = 0
    row: int = -1
    state: Any = None
    seen: list[int] = field(default_factory=list)


class Runner(Protocol):
    """What the engine needs of a model. At most one slot at a time is open but not active."""

    can_rollback: bool  # whether tokens that were read can be taken back
    ragged: bool  # whether rows of unequal width cost the sum of their widths
    token_bytes: int

    def session(self) -> AbstractContextManager[Any]:
        """What the worker's thread runs in."""

    def open(self, token_ids: Ids, cache: PrefixCache) -> Slot:
        """Starts a sequence with what the cache holds of its tokens."""

    def prefill(self, slot: Slot, token_ids: Ids, chunk: int) -> int:
        """Reads the next tokens of a prompt, about ``chunk`` at most; returns how many."""

    def remember(self, slot: Slot, token_ids: Ids, cache: PrefixCache) -> None:
        """Puts the beginning of a sequence into the cache."""

    def activate(self, slot: Slot) -> None:
        """Lets a sequence whose prompt is read take part in ``step``."""

    def step(
        self,
        slots: Sequence[Slot],
        tokens: Sequence[Sequence[int]],
        logit_places: Sequence[Sequence[int]],
    ) -> Any:
        """Reads tokens of active sequences; returns the logits at the wanted places.

        One row each, in the runner's own kind, good for ``score`` until the next step. What was
        read becomes valid only with ``keep``. Active sequences that aren't named stay as they are.
        """

    def score(
        self, logits: Any, masks: Sequence[Mask], greedy: Sequence[bool]
    ) -> list[Scores | Best]:
        """Reduces rows of logits to what a choice under each mask needs."""

    def keep(self, slot: Slot, count: int) -> None:
        """Makes the first ``count`` tokens of the last step valid; the others never were."""

    def close(self, slot: Slot) -> None:
        """Forgets a sequence; never between a step and the ``keep`` of its sequences."""

    def release(self, spare_bytes: int) -> None:
        """Frees what no sequence uses, unless it is smaller than ``spare_bytes``."""

    def clear(self) -> None:
        """Forgets all sequences and frees everything."""
