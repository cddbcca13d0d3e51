"""What the requests of vLLM's second model runner have read and written, known to the host.

That runner keeps all ids on the device, and the newest are there only when the last step has been
sampled. Asking for them while masks are written would wait for the forward pass as well. So the
copies are queued before the forward pass is, and awaited after it: the host then waits for the last
step's ids at most, and follows them while the device computes this step's logits. A prompt goes
down once; after that each step brings two numbers for each request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recallm_core.backends.device_copies import HostCopies, copy_to_device, to_numpy


@dataclass(slots=True)
class History:
    """A request's ids so far."""

    prompt: NDArray[np.int32]
    output: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens of prompt and output."""
        return len(self.prompt) + len(self.output)


class SlotTokens:
    """The histories of the slots that somebody wants to know about.

    Args:
        states: The runner's buffers, ``LogitsProcRequestState``.
    """

    def __init__(self, states: Any) -> None:
        self._states = states
        self._down = HostCopies(states.device)
        self._known: dict[int, History] = {}
        self._new: set[int] = set()
        self._whole: dict[int, torch.Tensor] = {}  # copies under way, of all that a slot began with
        self._sampled: set[int] = set()  # a token was sampled after what is known or under way
        self._newest: dict[int, int] = {}  # columns of the copy under way of lengths, newest ids
        self._columns = torch.empty(0)

    def take(self, slot: int) -> None:
        """Follows a request that comes into a slot; it may be back with an output."""
        self.drop(slot)
        self._new.add(slot)

    def drop(self, slot: int) -> None:
        """Forgets what was in a slot."""
        self._known.pop(slot, None)
        self._whole.pop(slot, None)
        self._newest.pop(slot, None)
        self._new.discard(slot)
        self._sampled.discard(slot)

    def stage(self) -> None:
        """Queues copies of what the host doesn't know; to be called before each forward pass."""
        if not self._new and not self._sampled:
            return
        states = self._states
        for slot in self._new:
            filled = int(states.prefill_len.np[slot])
            self._whole[slot] = self._down.begin(states.all_token_ids.gpu[slot, :filled])
        self._new.clear()
        if self._sampled:
            slots = sorted(self._sampled)  # what was under way has come down before they were read
            where = copy_to_device(np.array(slots, dtype=np.int64), states.device)
            lengths = states.total_len.gpu[where]
            newest = states.all_token_ids.gpu[where, lengths.long() - 1]
            self._columns = self._down.begin(torch.stack([lengths, newest]))
            self._newest = {slot: column for column, slot in enumerate(slots)}
            self._sampled.clear()
        self._down.mark()

    def collect(self) -> None:
        """Takes in the copies that are under way; to be called after the forward pass."""
        if not self._whole and not self._newest:
            return
        self._down.finish()
        for slot, ids in self._whole.items():
            self._known[slot] = self._split(slot, ids)
        columns = self._columns.tolist()
        for slot, column in self._newest.items():
            history, length = self._known.get(slot), columns[0][column]
            if history is not None and history.length == length - 1:
                history.output.append(columns[1][column])
        self._whole.clear()
        self._newest.clear()

    def read(self, slot: int, length: int) -> History:
        """Returns the first ids of a request that is about to get its next.

        Args:
            slot: Its slot.
            length: How many ids it has; others that are known make the host wait for the device.
        """
        history = self._known.get(slot)
        if history is None or history.length != length:
            ids = self._states.all_token_ids.gpu[slot, :length].cpu()
            history = self._known[slot] = self._split(slot, ids)
        self._sampled.add(slot)
        return history

    def _split(self, slot: int, ids: torch.Tensor) -> History:
        whole, size = to_numpy(ids), int(self._states.prompt_len.np[slot])
        return History(whole[:size], whole[size:].tolist())
