"""Helpers around documents and citations: documents into messages, citations out of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage

from langchain_recallm.blocks import GROUNDED, content_of
from langchain_recallm.sources import title_of, url_of
from recallm_core.adapting import occurrences
from recallm_core.errors import DocumentError

BlockKind = Literal["text-plain", "document", "search_result"]

Located = tuple[int, int, int]  # document, start, end
Location = tuple[int, int]  # message, offset


def documents_to_content_blocks(
    documents: Iterable[Document], *, kind: BlockKind = "text-plain"
) -> list[dict[str, Any]]:
    """Returns documents as content blocks, one each, their texts untouched.

    No documents are one empty text block, which says that nothing was found: ``ChatRecaLLM`` then
    abstains, where a message without any documents may be quoted itself.

    Args:
        documents: What may be quoted.
        kind: ``text-plain`` for human messages (standard, also understood by ChatAnthropic);
            ``search_result`` or ``document`` for what a tool returns, as in Anthropic's format.
    """
    if kind not in ("text-plain", "document", "search_result"):
        raise ValueError(f"kind must be text-plain, document or search_result, got {kind!r}")
    blocks = [_block(document, kind) for document in documents]
    return blocks or [{"type": "text", "text": "", "extras": {GROUNDED: True}}]


def _block(document: Document, kind: BlockKind) -> dict[str, Any]:
    extras: dict[str, Any] = {"citations": {"enabled": True}}
    if document.id:
        extras["document_id"] = document.id
    metadata = {k: v for k, v in document.metadata.items() if _plain(v)}
    if metadata:
        extras["metadata"] = metadata
    title, text = title_of(document.metadata), document.page_content
    named = {"title": title} if title else {}
    if kind == "text-plain":
        url = url_of(document.metadata)
        linked = {"url": url} if url else {}
        mime = {"mime_type": "text/plain", "text": text}
        return {"type": kind, **mime, **named, **linked, "extras": extras}
    if kind == "document":
        source = {"type": "text", "media_type": "text/plain", "data": text}
        return {"type": kind, "source": source, **named, "extras": extras}
    return {
        "type": kind,
        "source": str(document.metadata.get("source") or document.id or title or "document"),
        "title": title or "document",
        "content": [{"type": "text", "text": text}],
        "citations": {"enabled": True},
        "extras": extras,
    }


def documents_to_text(documents: Iterable[Document], *, separator: str = "\n\n") -> str:
    """Returns documents as one string, for models that take no document blocks.

    Answers of ``ChatRecaLLM`` then cite ranges of the message; ``resolve_citations`` lifts them to
    the documents.
    """
    out = []
    for number, document in enumerate(documents, 1):
        title = title_of(document.metadata)
        label = f"[{number}] {title}" if title else f"[{number}]"
        out.append(f"{label}\n{document.page_content}")
    return separator.join(out)


def message_citations(message: BaseMessage) -> list[dict[str, Any]]:
    """Returns the citations of a message, in the order of the text that they support.

    Works on a whole message and on merged chunks, in both output versions, and on messages of other
    providers that cite in LangChain's standard form.
    """
    return [
        dict(annotation)
        for block in message.content_blocks
        if block["type"] == "text"
        for annotation in block.get("annotations") or ()
        if annotation["type"] == "citation"
    ]


def resolve_citations(
    message: AIMessage,
    documents: Sequence[Document],
    *,
    messages: Sequence[BaseMessage] | None = None,
) -> AIMessage:
    """Returns a message whose citations of a flat prompt are citations of your documents.

    A quote is found by comparing characters: it is lifted where a document holds it exactly. If
    several places do, the first is cited and all are listed under ``extras["occurrences"]``. What
    no document holds stays a citation of the message.

    Args:
        message: An answer whose citations have document ids such as ``message:1``.
        documents: The documents that the prompt was made of, in order.
        messages: The messages that the prompt was; then the place of the quote decides, not only
            its text.

    Raises:
        DocumentError: A citation isn't the slice of its message, so it can't be vouched for.
    """
    spans = {} if messages is None else _spans(messages, documents)
    lift = _Lift(documents, spans, messages)
    if isinstance(message.content, str):
        kwargs = dict(message.additional_kwargs)
        for key, one in (("citations", lift.citation), ("recalls", lift.recall)):
            if kwargs.get(key):
                kwargs[key] = [one(citation) for citation in kwargs[key]]
        update: dict[str, Any] = {"additional_kwargs": kwargs}
    else:
        update = {"content": [lift.block(block) for block in message.content]}
    metadata = {**message.response_metadata, "documents": lift.ids(message)}
    return message.model_copy(update={**update, "response_metadata": metadata})


def _spans(
    messages: Sequence[BaseMessage], documents: Sequence[Document]
) -> dict[int, list[Location]]:
    """For each document, where the messages hold its whole text: (message, offset).

    Documents that stand there in their order have one place each; else all places count.
    """
    texts = [content_of(message, number).text for number, message in enumerate(messages)]
    spans: dict[int, list[Location]] = {}
    after = (0, 0)
    for number, document in enumerate(documents):
        places = [
            (place, at)
            for place, text in enumerate(texts)
            for at in occurrences(document.page_content, text)
        ]
        following = [place for place in places if place >= after]
        spans[number] = following[:1] or places
        if following:
            after = (following[0][0], following[0][1] + len(document.page_content))
    return spans


class _Lift:
    """Maps citations of messages to citations of documents."""

    def __init__(
        self,
        documents: Sequence[Document],
        spans: Mapping[int, Sequence[Location]],
        messages: Sequence[BaseMessage] | None,
    ) -> None:
        self._documents, self._spans, self._messages = documents, spans, messages

    def ids(self, message: AIMessage) -> list[str]:
        """The ids of the documents, then those that unresolved citations count."""
        known = [document.id or f"document:{n}" for n, document in enumerate(self._documents)]
        return [*known, *message.response_metadata.get("documents", ())]

    def block(self, block: Any) -> Any:
        """One content block, its annotations and recalls lifted."""
        if not isinstance(block, dict):
            return block
        out = dict(block)
        if block.get("annotations"):
            out["annotations"] = [self.citation(annotation) for annotation in block["annotations"]]
        recalls = block.get("extras", {}).get("recalls")
        if recalls:
            out["extras"] = {**block["extras"], "recalls": [self.recall(r) for r in recalls]}
        return out

    def citation(self, citation: dict[str, Any]) -> dict[str, Any]:
        """One citation, lifted if a document holds it."""
        if citation.get("type") != "citation":
            return citation
        extras = self._lift_range(citation.get("extras", {}), citation.get("cited_text", ""))
        out = {**citation, "extras": extras}
        number = extras.get("document_index", len(self._documents))
        if extras is not citation.get("extras") and number < len(self._documents):
            metadata = self._documents[number].metadata
            labels = {"title": title_of(metadata), "url": url_of(metadata)}
            out.update({key: value for key, value in labels.items() if value})
        return out

    def recall(self, recall: dict[str, Any]) -> dict[str, Any]:
        """One quote of the thinking, lifted if a document holds it."""
        return self._lift_range(recall, recall["cited_text"])

    def _lift_range(self, fields: dict[str, Any], text: str) -> dict[str, Any]:
        """Fields with the range of a document in the place of that of a message."""
        name = str(fields.get("document_id", ""))
        if not name.startswith("message:"):
            return fields
        located = self._locate(text, int(name.partition(":")[2]), fields)
        lifted = {k: v for k, v in fields.items() if k not in ("occurrences", "lines")}
        if not located:
            return {**lifted, "document_index": len(self._documents) + fields["document_index"]}
        places = [self._range(place) for place in located]
        lifted.update(places[0])
        return {**lifted, "occurrences": places} if len(places) > 1 else lifted

    def _range(self, place: Located) -> dict[str, Any]:
        number, start, end = place
        return {
            "document_index": number,
            "document_id": self._documents[number].id or f"document:{number}",
            "start_char_index": start,
            "end_char_index": end,
        }

    def _locate(self, text: str, message: int, extras: Mapping[str, Any]) -> list[Located]:
        if self._messages is None:
            return [
                (number, at, at + len(text))
                for number, document in enumerate(self._documents)
                for at in occurrences(text, document.page_content)
            ]
        start, end = extras["start_char_index"], extras["end_char_index"]
        content = content_of(self._messages[message], message).text
        if content[start:end] != text:
            raise DocumentError(
                f"the citation {text[:60]!r} isn't characters {start}..{end} of message {message}; "
                "pass the messages that the model was called with"
            )
        return [
            (number, start - at, end - at)
            for number, places in self._spans.items()
            for place, at in places
            if place == message
            and at <= start
            and end <= at + len(self._documents[number].page_content)
        ]


def _plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(_plain(v) for v in value)
    return value is None or isinstance(value, str | int | float | bool)
