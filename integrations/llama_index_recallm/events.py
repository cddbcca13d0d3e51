"""What RecaLLM tells handlers of LlamaIndex's instrumentation beyond the usual events."""

from __future__ import annotations

from llama_index.core.instrumentation.events import BaseEvent


class RecallSpanEvent(BaseEvent):
    """The model has completed a verbatim quote, while it thinks or answers.

    Attributes:
        text: The quote, an exact slice of its source.
        source: The source of the citable block, or ``message:`` and the number of the message.
        start_char_idx: First character in the block or message.
        end_char_idx: One past the last.
        section: ``thinking``, ``evidence`` (recalled for the answer, before its first word) or
            ``answer``.
    """

    text: str
    source: str
    start_char_idx: int
    end_char_idx: int
    section: str

    @classmethod
    def class_name(cls) -> str:
        """Returns the name of the event."""
        return "RecallSpanEvent"
