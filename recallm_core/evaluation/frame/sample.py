"""One sample of a long-context task: a question, its budget, its shots and what rows tell of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recallm_core.evaluation.items import Item


@dataclass(frozen=True, slots=True)
class Sample(Item):
    """A question of a task; its group is the task's name.

    Attributes:
        length: Tokens that prompt and answer are to fill; 0: as long as it is.
        budget: Tokens of the answer; thought and evidence have a budget of their own.
        shots: Solved examples, as earlier turns of the conversation.
        facts: What a row tells besides: plain values (depth, position, what else stands there).
    """

    length: int = 0
    budget: int = 64
    shots: tuple[tuple[str, str], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> str:
        """The task that it belongs to."""
        return self.group

    @property
    def digest(self) -> str:
        """Changes with anything in the sample."""
        texts = [[d.id, d.title, d.text] for d in self.documents]
        head = [self.id, self.question, self.answers, self.gold, self.group, self.reasoning]
        whole = [*head, self.opens, self.length, self.budget, self.shots, dict(self.facts), texts]
        return hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:16]

    def more(self) -> dict[str, Any]:
        """Returns what a row tells of a sample besides question and answers."""
        return {"task": self.task, "length": self.length, "facts": dict(self.facts)}

    def turns(self) -> list[dict[str, str]]:
        """The conversation that asks it."""
        earlier = [
            {"role": role, "content": text}
            for shot in self.shots
            for role, text in zip(("user", "assistant"), shot, strict=True)
        ]
        return [*earlier, {"role": "user", "content": self.question}]
