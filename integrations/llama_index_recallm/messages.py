"""LlamaIndex messages to what the core reads: plain turns, and documents that may be quoted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

import recallm_core as recallm
from recallm_core.adapting import (
    NO_RESULTS,
    Turn,
    call_text,
    check_text,
    decoded_text,
    found_nothing,
    result_heading,
    turn_of,
    with_system,
)

_ROLES = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.TOOL: "tool",
    MessageRole.FUNCTION: "tool",
}
_NOTHING = (*NO_RESULTS, "Empty Response")  # the last is what query engines say
_CITABLE = "citable"
_MESSAGE = "message"


@dataclass(frozen=True, slots=True)
class Place:
    """A range of something that the caller gave: a citable block, or a message of the user.

    Attributes:
        source: Its name: the block's source, or ``message:`` and a number.
        title: The block's title.
        location: Integers that say which block or message it is, and which characters of it.
        offset: Where in the quote this range begins; 0 but for a quote over two messages.
    """

    source: str
    title: str
    location: dict[str, int]
    offset: int = 0

    @property
    def size(self) -> int:
        """Characters in the range."""
        return self.location["end_char_idx"] - self.location["start_char_idx"]


@dataclass(frozen=True, slots=True)
class Conversation:
    """What the core is called with.

    Attributes:
        turns: ``{"role", "content"}``.
        documents: The texts of the citable blocks; None: there was no such block, and no tool that
            found nothing.
        flat: Whether there was none, so that the user's messages may be quoted.
    """

    turns: tuple[dict[str, Any], ...]
    documents: tuple[recallm.Document, ...] | None
    flat: bool
    _sources: dict[str, tuple[str, str]]
    _users: tuple[Turn, ...]

    def places(self, document_id: str, start: int, end: int) -> list[Place]:
        """Returns a range of a core document as ranges of blocks or messages; usually one."""
        if not document_id.startswith(f"{_MESSAGE}:"):
            source, title = self._sources[document_id]
            number, block = citable_of(document_id)
            location = {"citable_index": number, "block_index": block}
            return [Place(source, title, {**location, **_range(start, end)})]
        turn = self._users[int(document_id.partition(":")[2])]
        out = []
        for piece in turn.ranges(start, end):
            location = {"message_index": piece.message, **_range(piece.start, piece.end)}
            out.append(Place(f"{_MESSAGE}:{piece.message}", "", location, piece.offset))
        return out


def _range(start: int, end: int) -> dict[str, int]:
    return {"start_char_idx": start, "end_char_idx": end}


def citable_id(number: int, block: int = 0) -> str:
    """Returns the id that the core knows a text of a citable block by.

    Args:
        number: Counts the citable (and document) blocks of a call.
        block: Counts the texts in one block.
    """
    return f"{_CITABLE}:{number}:{block}"


def citable_of(document_id: str) -> tuple[int, int]:
    """Returns what ``citable_id`` was given."""
    _, number, block = document_id.split(":")
    return int(number), int(block)


def read(messages: Sequence[ChatMessage], *, scope: str | None = None) -> Conversation:
    """Returns a conversation for the core.

    Args:
        messages: Texts; what may be quoted stands in ``CitableBlock`` or text ``DocumentBlock``.
        scope: ``documents`` or ``prompt``; None: documents where there are any.

    Raises:
        ValueError: There are no messages, or one has something other than text.
        DocumentError: A text can't be used as it is.
    """
    if not messages:
        raise ValueError("there are no messages; give at least one user message")
    documents: list[recallm.Document] = []
    sources: dict[str, tuple[str, str]] = {}
    system = Turn("system")
    turns: list[Turn] = []
    names: dict[str, str] = {}
    results: list[str] = []
    blocks = 0
    for number, message in enumerate(messages):
        role = _ROLES.get(message.role)
        if role is None:
            raise ValueError(f"message {number} has the unknown role {message.role!r}")
        text = _text(message, number, role)
        names |= _names(message)
        blocks = _add_documents(message, number, documents, sources, blocks)
        if role == "tool":
            results.append(text)
        if role == "system":
            if text:
                system.add(number, text)
        elif role == "tool":  # also one of no words: it answers a call
            turn_of(turns, "user").add(number, text, _heading(message, names))
        elif text or role == "user":
            turn_of(turns, role).add(number, text)
    absent = not blocks and not found_nothing(results, _NOTHING)
    return Conversation(
        turns=tuple(turn.to_core() for turn in with_system(system, turns)),
        documents=None if absent else tuple(documents),
        flat=scope == "prompt" or (scope is None and absent),
        _sources=sources,
        _users=tuple(turn for turn in turns if turn.role == "user"),
    )


def _names(message: ChatMessage) -> dict[str, str]:
    """Which tool each call of a message is for, by the call's id."""
    calls = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    return {call.tool_call_id: call.tool_name for call in calls if call.tool_call_id}


def _heading(message: ChatMessage, names: Mapping[str, str]) -> str:
    """What stands before the result of a tool; not part of what may be quoted from it."""
    extra = message.additional_kwargs
    name = extra.get("name") or names.get(str(extra.get("tool_call_id")))
    return result_heading(None if name is None else str(name))


def _text(message: ChatMessage, number: int, role: str) -> str:
    """The words of a message; of an assistant also its tool calls."""
    text = "\n".join(block.text for block in message.blocks if isinstance(block, TextBlock))
    check_text(text, f"message {number}")
    if role == "assistant":
        return "\n".join([text, *_calls(message)] if text else list(_calls(message)))
    return text


def _calls(message: ChatMessage) -> Iterator[str]:
    for block in message.blocks:
        if isinstance(block, ToolCallBlock):
            arguments = block.tool_kwargs
            if isinstance(arguments, str):
                arguments = json.loads(arguments or "{}")
            yield call_text(block.tool_name, arguments)


def _add_documents(
    message: ChatMessage,
    number: int,
    documents: list[recallm.Document],
    sources: dict[str, tuple[str, str]],
    count: int,
) -> int:
    """Adds the documents of a message's blocks; returns how many such blocks there are so far."""
    for block in message.blocks:
        if isinstance(block, CitableBlock):
            texts = [_citable_text(part, number) for part in block.content]
            source, title = block.source, block.title
        elif isinstance(block, DocumentBlock):
            texts, title = [_decode(block, number)], block.title or ""
            source = title
        elif isinstance(
            block, TextBlock | ThinkingBlock | CitationBlock | ToolCallBlock | CachePoint
        ):
            continue
        else:
            raise ValueError(
                f"message {number} has a {type(block).__name__}, but the model reads text only; "
                "give TextBlock or CitableBlock"
            )
        for place, text in enumerate(texts):
            document_id = citable_id(count, place)
            documents.append(recallm.Document(text, document_id, title or None))
            sources[document_id] = (source, title)
        count += 1
    return count


def _citable_text(block: Any, number: int) -> str:
    if isinstance(block, TextBlock):
        return block.text
    if isinstance(block, DocumentBlock):
        return _decode(block, number)
    raise ValueError(
        f"message {number} has a CitableBlock with a {type(block).__name__}; only text can be "
        "quoted, so give its text"
    )


def _decode(block: DocumentBlock, number: int) -> str:
    """The text of a document block; nothing is fetched, opened or converted."""
    data, mime = block.data, block.document_mimetype or ""
    if isinstance(data, bytes) and (mime.startswith("text/") or not mime):
        return decoded_text(data, f"message {number} has a document block")
    raise ValueError(
        f"message {number} has a document block without text data (mime type {mime!r}); nothing "
        "is fetched or converted: load it with a reader and give its text as a CitableBlock"
    )
