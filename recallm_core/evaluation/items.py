"""What is asked: a question over some documents, and what would be right."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from recallm_core.documents.document import Document


@dataclass(frozen=True, slots=True)
class Item:
    """One question.

    Attributes:
        id: Its name within its suite.
        documents: What may be quoted.
        question: What is asked.
        answers: Every wording that counts as right; none where the documents hold no answer.
        gold: Number of the document that answers it.
        group: The part of its suite that it is counted in besides the whole.
        reasoning: Words that the output is made to begin with.
        opens: Whether a recall span is opened after them.
    """

    id: str
    documents: tuple[Document, ...]
    question: str
    answers: tuple[str, ...]
    gold: int = 0
    group: str = ""
    reasoning: str = ""
    opens: bool = False

    @property
    def answerable(self) -> bool:
        """Whether the documents hold an answer."""
        return bool(self.answers)

    @property
    def gold_id(self) -> str:
        """The document that answers it."""
        return self.documents[self.gold].id

    @property
    def digest(self) -> str:
        """Changes with anything in the item, so that results of another question don't count."""
        texts = [[d.id, d.title, d.text] for d in self.documents]
        head = [self.id, self.question, self.answers, self.gold, self.group]
        whole = [*head, texts, self.reasoning, self.opens]
        return hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:16]

    def more(self) -> dict[str, Any]:
        """Returns what a row tells besides; nothing of a plain question."""
        return {}
