"""Messages of a framework to turns of the core, and ranges of a turn back to the messages."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

NO_RESULTS = ("", "[]")
"""What a tool's result reads like that found nothing: retriever tools join the texts of no document
to an empty string."""


@dataclass(frozen=True, slots=True)
class MessageRange:
    """A range of one message's own words.

    Attributes:
        message: Counts the messages of the call.
        start: First character, in that message.
        end: One past the last.
        offset: How far into the turn's range it begins; 0 unless that covers several messages.
    """

    message: int
    start: int
    end: int
    offset: int


@dataclass(slots=True)
class Turn:
    """One turn for the core, and which part of it is which message.

    Attributes:
        role: ``system``, ``user``, ``assistant`` or ``tool``.
        text: The words of its messages, one after another.
        parts: (message, start, end): where in ``text`` the words of each message stand.
        calls: Tool calls, as chat templates take them.
    """

    role: str
    text: str = ""
    parts: list[tuple[int, int, int]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)

    def add(self, message: int, text: str, heading: str = "") -> None:
        """Adds a message; its heading is wording, so no part of what may be quoted from it."""
        if self.text:
            self.text += "\n\n"
        self.text += heading
        self.parts.append((message, len(self.text), len(self.text) + len(text)))
        self.text += text

    def to_core(self) -> dict[str, Any]:
        """Returns the turn as ``RecaLLM.chat`` takes it."""
        calls = {"tool_calls": self.calls} if self.calls else {}
        return {"role": self.role, "content": self.text, **calls}

    def ranges(self, start: int, end: int) -> Iterator[MessageRange]:
        """Yields a range of the turn as ranges of its messages; usually one."""
        for message, first, last in self.parts:
            a, b = max(start, first), min(end, last)
            if a < b:
                yield MessageRange(message, a - first, b - first, a - start)


def turn_of(turns: list[Turn], role: str) -> Turn:
    """Returns the last turn, if it has this role, or a new one: neighbours of a role are joined."""
    if not turns or turns[-1].role != role:
        turns.append(Turn(role))
    return turns[-1]


def with_system(system: Turn, turns: Sequence[Turn]) -> list[Turn]:
    """Returns the turns with what the system says before them, if it says anything."""
    return [system, *turns] if system.text else list(turns)


def call_text(name: str, arguments: Mapping[str, Any]) -> str:
    """Returns a tool call as words, for models whose template has no place for calls."""
    call = {"name": name, "arguments": arguments}
    return f"<tool_call>{json.dumps(call, ensure_ascii=False)}</tool_call>"


def result_heading(name: str | None) -> str:
    """Returns what stands before a tool's result where it is told in words."""
    return f"Result of {name}:\n" if name else "Result:\n"


def found_nothing(results: Iterable[str], signs: Collection[str] = NO_RESULTS) -> bool:
    """Whether tools were asked, and all that they returned says that nothing was found."""
    texts = [text.strip() for text in results]
    return bool(texts) and all(text in signs for text in texts)


def decoded_text(data: str | bytes, where: str) -> str:
    """Returns the text in base64; nothing is fetched, opened or converted.

    Args:
        data: Base64.
        where: What holds it, for the error: ``message 2 has a document block``.

    Raises:
        ValueError: It isn't base64 of UTF-8.
    """
    try:
        return base64.b64decode(data, validate=True).decode("utf-8")
    except ValueError as error:
        raise ValueError(f"{where} that isn't UTF-8 text: {error}") from None
