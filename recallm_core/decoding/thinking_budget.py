"""The budget of thinking: once it is spent, the end of thinking is forced."""

from __future__ import annotations

import sys
from dataclasses import replace

from recallm_core.decoding.spec import ConstraintSpec
from recallm_core.decoding.state import Cursor


class ThinkingBudget:
    """How long an output may think.

    Assumes that thinking, where there is any, is what an output begins with: so as long as it
    goes on, all tokens are its own. Guarantees that it ends within the budget, but for a mark that
    had begun and an open span, which closes at its next legal end first.
    """

    def __init__(self, spec: ConstraintSpec) -> None:
        self._limit = spec.max_thinking_tokens
        self._ending = spec.think_close

    def spent(self, cursor: Cursor, length: int) -> bool:
        """Whether an output of ``length`` tokens that thinks has thought enough."""
        return self._limit is not None and length >= self._limit and cursor.section == "thinking"

    def until(self, cursor: Cursor) -> int:
        """The length of output at which the end of thinking may be due."""
        if self._limit is None or cursor.section != "thinking":
            return sys.maxsize
        return self._limit

    def tokens_left(self, cursor: Cursor, length: int) -> int | None:
        """Tokens that may still be thought; None: any number."""
        if self._limit is None or cursor.section != "thinking":
            return None
        return max(self._limit - length, 0)

    def enforce(self, cursor: Cursor, length: int) -> Cursor:
        """The same place, the end of thinking forced if it is due."""
        ending = self._ending
        if ending is None or cursor.forced or cursor.matcher is not None:
            return cursor
        if not self.spent(cursor, length):
            return cursor
        state = cursor.watch[2]
        return replace(cursor, forced=ending.rest[state] if state else ending.ids)
