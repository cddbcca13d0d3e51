"""One call of the synthesizer: what is asked, and how its response is completed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.schema import NodeWithScore

from llama_index_recallm.answers import RAW
from llama_index_recallm.evidence import Reader
from llama_index_recallm.responses import KEY, Evidence, plain


@dataclass(frozen=True, slots=True)
class Plan:
    """One call: what the model is sent, and what its answer is made of.

    Attributes:
        messages: With the nodes; none where there is nothing to read.
        reader: Turns the answer into evidence.
        given: All nodes that came, read or not.
        left_out: Those that aren't read, with reasons.
        rules: Settings of this call.
        streaming: Whether to stream.
    """

    messages: list[ChatMessage]
    reader: Reader
    given: list[NodeWithScore]
    left_out: list[dict[str, Any]]
    rules: dict[str, Any]
    streaming: bool


@dataclass(slots=True)
class Ending:
    """Fills in a response when its stream ends, if anyone still has it."""

    metadata: dict[str, Any]
    left_out: list[dict[str, Any]]
    evidence: Evidence = field(default_factory=Evidence)
    response: Any = None  # a weak reference, so that dropping the response stops the model

    def __call__(self, text: str) -> None:
        """Takes the whole text."""
        self.metadata[KEY] = {**plain(self.evidence), "left_out": self.left_out}
        response = None if self.response is None else self.response()
        if response is not None:
            response.take(self.evidence)
            response.response_txt = text


def raw_answer(response: ChatResponse) -> dict[str, Any]:
    """Returns the whole answer, as plain data, that a response of ``RecaLLM`` carries.

    Raises:
        TypeError: Another LLM made it.
    """
    raw = response.raw
    if not isinstance(raw, dict) or RAW not in raw:
        raise TypeError("the response has no raw['recallm']; was it made by another LLM?")
    answer: dict[str, Any] = raw[RAW]
    return answer
