"""LangChain messages to what the core reads: plain turns, and documents that may be quoted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_recallm.blocks import GROUNDED, Content, content_of, is_uncited
from langchain_recallm.sources import Piece, Sources, collect
from recallm_core.adapting import (
    Turn,
    call_text,
    found_nothing,
    result_heading,
    turn_of,
    with_system,
)

_FOUND = "The results are among the documents."
_ROLES = {"human": "user", "user": "user", "ai": "assistant", "assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class Conversation:
    """What the core is called with.

    Attributes:
        turns: ``{"role", "content"}``.
        documents: What may be quoted: documents, or an index that packs its own; None: nobody
            gave any, or looked for any.
        sources: The same as the caller knows them.
        flat: Whether nothing was marked as a document, so that the users' messages are quoted.
    """

    turns: tuple[dict[str, Any], ...]
    documents: Any
    sources: Sources
    flat: bool


def read(
    messages: Sequence[BaseMessage],
    documents: Any = None,
    *,
    scope: str | None = None,
    with_tools: bool = False,
) -> Conversation:
    """Returns a conversation for the core.

    Args:
        messages: Any LangChain messages. Documents may stand in them as ``text-plain``,
            ``document`` or ``search_result`` blocks, or as the artifact of a tool message. A block
            with ``"citations": {"enabled": False}`` is read as part of its message, not cited.
        documents: Documents given beside the messages, or an index; None: none were.
        scope: ``documents`` or ``prompt``; None: documents where there are any.
        with_tools: Whether tools are offered: then the chat template tells the model of earlier
            calls and results. Otherwise, results are told in plain words, or are just documents.

    Raises:
        ValueError: There are no messages, documents came in two ways, or a message has something
            other than text.
        DocumentError: A document can't be used as it is.
    """
    if not messages:
        raise ValueError("there are no messages; give at least one human message")
    contents = [content_of(message, number) for number, message in enumerate(messages)]
    in_messages = [document for content in contents for document in content.documents]
    absent = documents is None and not in_messages and not _has_searched(messages, contents)
    if in_messages and documents is not None:
        raise ValueError(
            f"documents came in two ways: {len(in_messages)} in the messages (document blocks, "
            "search results or tool artifacts) and others by documents=; give them in one way"
        )
    turns = _tool_turns(messages, contents) if with_tools else _turns(messages, contents)
    quotable = absent and not any(map(_holds_uncited, messages))
    flat = scope == "prompt" or (scope is None and quotable)
    for_core: Any = documents
    if hasattr(documents, "pack_report"):
        sources = Sources(index=documents)
    else:
        sources, for_core = collect(in_messages if documents is None else documents)
    if flat:
        _add_messages(sources, turns)
    turned = tuple(turn.to_core() for turn in turns)
    return Conversation(turned, None if absent else for_core, sources, flat)


def _has_searched(messages: Sequence[BaseMessage], contents: Sequence[Content]) -> bool:
    """Whether a message carries documents, or all that tools were asked for is nothing."""
    if any(content.searched for content in contents):
        return True
    if any(message.additional_kwargs.get(GROUNDED) for message in messages):
        return True
    pairs = zip(messages, contents, strict=True)
    results = [content.text for message, content in pairs if isinstance(message, ToolMessage)]
    return found_nothing(results)


def _add_messages(sources: Sources, turns: Sequence[Turn]) -> None:
    """The users' messages as documents ``message:<number>``, as the core numbers its turns."""
    users = [turn for turn in turns if turn.role == "user"]
    for number, turn in enumerate(users):
        for message, start, end in turn.parts:
            document = Document(id=f"message:{message}", page_content=turn.text[start:end])
            piece = Piece(len(sources.documents), start, end)
            sources.add(document, f"message:{number}", piece)


def _turns(messages: Sequence[BaseMessage], contents: Sequence[Content]) -> list[Turn]:
    """System turns first, neighbours of one role joined, answered retrieval calls left out."""
    answered = {
        message.tool_call_id
        for message, content in zip(messages, contents, strict=True)
        if isinstance(message, ToolMessage) and content.documents and not content.text
    }
    system = Turn("system")
    out: list[Turn] = []
    for number, (message, content) in enumerate(zip(messages, contents, strict=True)):
        role, text = _role(message, number), content.text
        if role == "tool":
            role, text = "user", _tool_text(message, text)
        elif isinstance(message, AIMessage):
            text = _with_calls(message, text, answered)
        if role == "system":
            if text:
                system.add(number, text)
        elif text or (role == "user" and not isinstance(message, ToolMessage)):
            turn_of(out, role).add(number, text)
    while out and out[-1].role == "assistant" and isinstance(messages[-1], ToolMessage):
        out.pop()  # it announced the search whose results are the documents now
    return with_system(system, out)


def _tool_turns(messages: Sequence[BaseMessage], contents: Sequence[Content]) -> list[Turn]:
    """The turns for a template that knows tools: system first, calls and results as they were."""
    system = Turn("system")
    out: list[Turn] = []
    for number, (message, content) in enumerate(zip(messages, contents, strict=True)):
        role, text = _role(message, number), content.text
        if role == "system":
            if text:
                system.add(number, text)
            continue
        if role == "tool" and content.documents:
            text = f"{text}\n{_FOUND}" if text else _FOUND
        calls = _calls(message)
        if calls or role == "tool" or not out or out[-1].role != role or out[-1].calls:
            out.append(Turn(role, calls=calls))
        out[-1].add(number, text)
    return with_system(system, out)


def _calls(message: BaseMessage) -> list[dict[str, Any]]:
    calls = message.tool_calls if isinstance(message, AIMessage) else []
    return [{"function": {"name": c["name"], "arguments": dict(c["args"])}} for c in calls]


def _tool_text(message: BaseMessage, text: str) -> str:
    return result_heading(message.name) + text if text else ""


def _with_calls(message: AIMessage, text: str, answered: set[str]) -> str:
    """An assistant's text with its tool calls, but for those whose results are documents."""
    calls = [call for call in message.tool_calls if call.get("id") not in answered]
    lines = [call_text(call["name"], call["args"]) for call in calls]
    return "\n".join([text, *lines] if text else lines)


def _role(message: BaseMessage, number: int) -> str:
    if isinstance(message, ChatMessage):
        role = {**_ROLES, "system": "system", "developer": "system"}.get(message.role)
        if role is None:
            raise ValueError(
                f"message {number} has the role {message.role!r}; known are user, assistant and "
                "system"
            )
        return role
    if isinstance(message, SystemMessage):
        return "system"
    if isinstance(message, HumanMessage):
        return "user"
    if isinstance(message, AIMessage):
        return "assistant"
    if isinstance(message, ToolMessage):
        return "tool"
    raise ValueError(
        f"message {number} is a {type(message).__name__}; give human, AI, system and tool messages"
    )


def _holds_uncited(message: BaseMessage) -> bool:
    blocks = [] if isinstance(message.content, str) else message.content
    return not isinstance(message, AIMessage) and any(map(is_uncited, blocks))
