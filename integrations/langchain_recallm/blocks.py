"""What a LangChain message holds: its words, and the documents in its blocks or its artifact."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ToolMessage,
)

from recallm_core.adapting import (
    check_text,
    decoded_text,
)

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
            carries = carries or (_carries(block) and not is_uncited(block))
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
    if is_uncited(block):
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


def is_uncited(block: Any) -> bool:
    """Whether a block is a document that may be read but not cited."""
    settings = block.get("citations") if isinstance(block, Mapping) else None
    kinds = ("text-plain", "document", "search_result", "file")
    off = isinstance(settings, Mapping) and settings.get("enabled") is False
    return off and block.get("type") in kinds


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
        return [_decode(source.get("data"), source.get("media_type"), kind, where)]
    if kind == "search_result":
        return _text_entries(block.get("content"), where)
    if isinstance(block.get("text"), str):
        return [str(block["text"])]
    return [_decode(block.get("base64"), block.get("mime_type"), kind, where)]


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


def _decode(data: Any, mime_type: Any, kind: str, where: str) -> str:
    """Text from base64, if it is text."""
    if isinstance(data, str) and isinstance(mime_type, str) and mime_type.startswith("text/"):
        return decoded_text(data, f"{where} has a {kind} block")
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
