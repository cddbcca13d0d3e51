"""LangChain messages to what the core reads: plain turns, and documents that may be quoted."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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

from langchain_recallm.sources import Piece, Sources, collect
from recallm_core.documents.document import check_text

GROUNDED = "recallm_grounded"
"""Key in ``additional_kwargs`` of a message whose documents were looked for, even if none came."""

_IGNORED = frozenset(
    {
        "reasoning",
        "thinking",
        "redacted_thinking",
        "tool_use",
        "tool_call",
        "tool_call_chunk",
        "invalid_tool_call",
        "server_tool_call",
        "server_tool_call_chunk",
        "server_tool_result",
        "non_standard",
        "refusal",
    }
)
_DOCUMENTS = ("text-plain", "document", "search_result", "file")
_NOTHING = ("", "[]")
"""What a tool's result reads like that found nothing: retriever tools join the texts of no document
to an empty string."""

_FOUND = "The results are among the documents."
_ROLES = {"human": "user", "user": "user", "ai": "assistant", "assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class Content:
    """What one message holds.

    Attributes:
        text: Its words.
        documents: What may be quoted.
        searched: Whether it carries documents, be it none: a search that found nothing.
    """

    text: str
    documents: tuple[Document, ...] = ()
    searched: bool = False


@dataclass(slots=True)
class _Turn:
    """One turn for the core, and which part of it is which message."""

    role: str
    text: str = ""
    parts: list[tuple[int, int, int]] = field(default_factory=list)  # message, start, end
    calls: list[dict[str, Any]] = field(default_factory=list)

    def add(self, number: int, text: str) -> None:
        if self.text:
            self.text += "\n\n"
        self.parts.append((number, len(self.text), len(self.text) + len(text)))
        self.text += text

    def to_core(self) -> dict[str, Any]:
        """Returns the turn as the core wants it."""
        calls = {"tool_calls": self.calls} if self.calls else {}
        return {"role": self.role, "content": self.text, **calls}


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
    absent = documents is None and not in_messages and not _searched(messages, contents)
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


def _searched(messages: Sequence[BaseMessage], contents: Sequence[Content]) -> bool:
    """Whether a message carries documents, or all that tools were asked for is nothing."""
    if any(content.searched for content in contents):
        return True
    if any(message.additional_kwargs.get(GROUNDED) for message in messages):
        return True
    pairs = zip(messages, contents, strict=True)
    results = [content.text for message, content in pairs if isinstance(message, ToolMessage)]
    return bool(results) and all(text.strip() in _NOTHING for text in results)


def _add_messages(sources: Sources, turns: Sequence[_Turn]) -> None:
    """The users' messages as documents ``message:<number>``, as the core numbers its turns."""
    users = [turn for turn in turns if turn.role == "user"]
    for number, turn in enumerate(users):
        for message, start, end in turn.parts:
            document = Document(id=f"message:{message}", page_content=turn.text[start:end])
            piece = Piece(len(sources.documents), start, end)
            sources.add(document, f"message:{number}", piece)


def _turns(messages: Sequence[BaseMessage], contents: Sequence[Content]) -> list[_Turn]:
    """System turns first, neighbours of one role joined, answered retrieval calls left out."""
    answered = {
        message.tool_call_id
        for message, content in zip(messages, contents, strict=True)
        if isinstance(message, ToolMessage) and content.documents and not content.text
    }
    system = _Turn("system")
    out: list[_Turn] = []
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
            if not out or out[-1].role != role:
                out.append(_Turn(role))
            out[-1].add(number, text)
    while out and out[-1].role == "assistant" and isinstance(messages[-1], ToolMessage):
        out.pop()  # it announced the search whose results are the documents now
    return [system, *out] if system.text else out


def _tool_turns(messages: Sequence[BaseMessage], contents: Sequence[Content]) -> list[_Turn]:
    """The turns for a template that knows tools: system first, calls and results as they were."""
    system = _Turn("system")
    out: list[_Turn] = []
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
            out.append(_Turn(role, calls=calls))
        out[-1].add(number, text)
    return [system, *out] if system.text else out


def _calls(message: BaseMessage) -> list[dict[str, Any]]:
    calls = message.tool_calls if isinstance(message, AIMessage) else []
    return [{"function": {"name": c["name"], "arguments": dict(c["args"])}} for c in calls]


def _tool_text(message: BaseMessage, text: str) -> str:
    if not text:
        return ""
    name = f" of {message.name}" if message.name else ""
    return f"Result{name}:\n{text}"


def _with_calls(message: AIMessage, text: str, answered: set[str]) -> str:
    """An assistant's text with its tool calls, but for those whose results are documents."""
    calls = [call for call in message.tool_calls if call.get("id") not in answered]
    lines = [
        "<tool_call>"
        + json.dumps({"name": call["name"], "arguments": call["args"]}, ensure_ascii=False)
        + "</tool_call>"
        for call in calls
    ]
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


def content_of(message: BaseMessage, number: int = 0) -> Content:
    """Returns a message's text and documents.

    Raises:
        ValueError: It holds an image, audio, a PDF or an unknown kind of block.
        DocumentError: A text has a lone surrogate.
    """
    texts: list[str] = []
    documents: list[Document] = []
    carries = isinstance(message, ToolMessage) and message.content == []  # no block came
    blocks = [message.content] if isinstance(message.content, str) else message.content
    for block in blocks:
        where = f"message {number}"
        if isinstance(block, str):
            texts.append(block)
        elif isinstance(message, AIMessage):
            if block.get("type") == "text":
                texts.append(str(block.get("text", "")))
        else:
            _read_block(block, where, texts, documents)
            carries = carries or (_carries(block) and not _is_uncited(block))
    text = "".join(texts)
    check_text(text, f"the text of message {number}")
    if isinstance(message, ToolMessage):
        text, documents = _with_artifact(message, text, documents)
        carries = carries or _documents_of(message.artifact) is not None
    return Content(text, tuple(documents), carries)


def _carries(block: Mapping[str, Any]) -> bool:
    """Whether a block is for documents, even if it holds none."""
    extras = block.get("extras")
    marked = isinstance(extras, Mapping) and bool(extras.get(GROUNDED))
    return marked or block.get("type") in _DOCUMENTS


def _read_block(
    block: Mapping[str, Any], where: str, texts: list[str], documents: list[Document]
) -> None:
    kind = block.get("type")
    if _is_uncited(block):
        texts.extend(_as_words(block, where))
    elif kind == "text":
        texts.append(str(block.get("text", "")))
    elif kind == "json":
        texts.append(json.dumps(block.get("json"), ensure_ascii=False))
    elif kind in _DOCUMENTS:
        documents.extend(_documents(block, where))
    elif kind not in _IGNORED:
        raise ValueError(
            f"{where} has a block of type {kind!r}, but the model reads text only; give text, "
            "text-plain, document or search_result blocks"
        )


def _is_uncited(block: Any) -> bool:
    """Whether a block is a document that may be read but not cited."""
    settings = block.get("citations") if isinstance(block, Mapping) else None
    kinds = ("text-plain", "document", "search_result", "file")
    off = isinstance(settings, Mapping) and settings.get("enabled") is False
    return off and block.get("type") in kinds


def _holds_uncited(message: BaseMessage) -> bool:
    blocks = [] if isinstance(message.content, str) else message.content
    return not isinstance(message, AIMessage) and any(map(_is_uncited, blocks))


def _as_words(block: Mapping[str, Any], where: str) -> Iterator[str]:
    """The texts of a document, with its title, as part of a message."""
    for document in _documents(block, where):
        title = document.metadata.get("title")
        yield f"{title}:\n" if title else ""
        yield f"{document.page_content}\n\n"


def _documents(block: Mapping[str, Any], where: str) -> Iterator[Document]:
    """The documents of a block, one for each text that it holds."""
    kind = block["type"]
    extras = block.get("extras") if isinstance(block.get("extras"), Mapping) else {}
    assert isinstance(extras, Mapping)
    metadata: dict[str, Any] = dict(extras.get("metadata") or {})
    title = block.get("title") or extras.get("title")
    if isinstance(title, str) and title:
        metadata["title"] = title
    source = block.get("url") if kind in ("text-plain", "file") else block.get("source")
    if isinstance(source, str):
        metadata["source"] = source
    for text in _texts(block, where):
        check_text(text, f"a {kind} block of {where}")
        document_id = extras.get("document_id")
        yield Document(
            id=document_id if isinstance(document_id, str) and document_id else None,
            page_content=text,
            metadata=dict(metadata),
        )


def _texts(block: Mapping[str, Any], where: str) -> list[str]:
    """The plain texts of a document block."""
    kind, source = block["type"], block.get("source")
    if kind == "document" and isinstance(source, Mapping):
        if source.get("type") == "text":
            return [str(source.get("data", ""))]
        if source.get("type") == "content":
            return _text_entries(source.get("content"), where)
        return [_decoded(source.get("data"), source.get("media_type"), kind, where)]
    if kind == "search_result":
        return _text_entries(block.get("content"), where)
    if isinstance(block.get("text"), str):
        return [str(block["text"])]
    return [_decoded(block.get("base64"), block.get("mime_type"), kind, where)]


def _text_entries(entries: Any, where: str) -> list[str]:
    if isinstance(entries, str):
        return [entries]
    if not isinstance(entries, Sequence):
        entries = [entries]
    out = []
    for entry in entries:
        if not isinstance(entry, Mapping) or entry.get("type") != "text":
            raise ValueError(f"{where} has a document whose content isn't text blocks: {entry!r}")
        out.append(str(entry.get("text", "")))
    return out


def _decoded(data: Any, mime_type: Any, kind: str, where: str) -> str:
    """Text from base64, if it is text."""
    if isinstance(data, str) and isinstance(mime_type, str) and mime_type.startswith("text/"):
        try:
            return base64.b64decode(data, validate=True).decode("utf-8")
        except ValueError as error:
            raise ValueError(f"{where} has a {kind} block that isn't UTF-8 text: {error}") from None
    raise ValueError(
        f"{where} has a {kind} block without its text (mime type {mime_type!r}); nothing is "
        "fetched or converted: load it with a document loader and give the text"
    )


def _with_artifact(
    message: ToolMessage, text: str, documents: list[Document]
) -> tuple[str, list[Document]]:
    """The documents of a tool's artifact; a text that only repeats them is left out.

    The cited-answer tool's text is made from its documents, so it is left out too.
    """
    artifact = message.artifact
    if isinstance(artifact, Mapping) and "citations" in artifact:
        text = ""
    documents_of_artifact = _documents_of(artifact)
    if not documents_of_artifact:
        return text, documents
    if documents:  # search results for the model, the same as documents for the program
        return text, documents_of_artifact
    at = 0
    for document in documents_of_artifact:
        place = text.find(document.page_content, at)
        if place < 0:
            return text, documents_of_artifact
        at = place + len(document.page_content)
    return "", documents_of_artifact


def _documents_of(artifact: Any) -> list[Document] | None:
    """The documents of a tool's artifact, be it none; None: it is something else."""
    listed = artifact.get("documents") if isinstance(artifact, Mapping) else artifact
    if not isinstance(listed, list | tuple):
        return None
    documents = [item for item in listed if isinstance(item, Document)]
    return documents if documents or not listed else None
