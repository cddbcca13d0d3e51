"""Texts and messages of any maker, read without their libraries: words, quotes, cited sources.

Known shapes, as objects or as plain data: Anthropic messages (every ``*_location`` citation);
OpenAI chat completions, responses and assistants' messages (``file_citation``, ``url_citation``);
Cohere's ``citations``; LangChain messages (``citation`` annotations, native blocks) and results of
its retrieval chains; LlamaIndex responses (source nodes) and chat messages (citation blocks); this
library's answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from recallm_core.answers.answer import Answer
from recallm_core.checking.reading import read
from recallm_core.checking.written import Claim, WrittenQuote
from recallm_core.documents.document import Document
from recallm_core.errors import MessageError

_BESIDE = 40  # characters between a quote and the annotation that names its source
_LABEL = re.compile(r"\ASource \d+:\n")  # what LlamaIndex's citation engine puts before a node
_SOURCES = ("document_id", "source", "url", "file_id", "filename", "title", "document_title", "id")
_BESIDE_WORDS = frozenset(("reasoning", "file_search_call", "web_search_call", "function_call"))
_DEPTH = 6  # wrappings around a message


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read.

    Attributes:
        text: The words.
        quotes: The quotes in them and in the data beside them, in order.
        documents: The texts that the message brings along itself.
    """

    text: str
    quotes: tuple[WrittenQuote, ...]
    documents: tuple[Document, ...] = ()


@dataclass(frozen=True, slots=True)
class _Mark:
    """A source named for a range of the words, without a quote of it."""

    start: int
    end: int
    claim: Claim


@dataclass(slots=True)
class _Parts:
    """A message taken apart."""

    text: str = ""
    quotes: list[WrittenQuote] = field(default_factory=list)
    marks: list[_Mark] = field(default_factory=list)
    nodes: list[Document] = field(default_factory=list)
    names: list[tuple[str, ...]] = field(default_factory=list)  # of each node, by its number


def read_any(message: Any) -> Reading:
    """Returns the words and quotes of a text or a message.

    Raises:
        MessageError: It is neither.
    """
    if isinstance(message, str):
        return Reading(message, read(message))
    if isinstance(message, Answer):
        return _from_answer(message)
    parts = _Parts()
    if not _take(message, parts, _DEPTH):
        raise MessageError(
            f"expected a text, or a message with content, got {type(message).__name__}; pass the "
            "text itself, or the message or response as the provider or framework returned it"
        )
    inline = [
        _resolve_node_numbers(_attribute(written, parts.marks), parts)
        for written in read(parts.text)
    ]
    quotes = sorted([*inline, *parts.quotes], key=_order)
    return Reading(parts.text, tuple(quotes), tuple(parts.nodes))


def _from_answer(answer: Answer) -> Reading:
    cited = [
        WrittenQuote(
            c.text, c.answer_start, c.answer_end, "citation",
            Claim(names=(c.document_id,), at=(c.start, c.end)),
        )
        for c in answer.citations
    ]  # fmt: skip
    quotes = sorted([*read(answer.text), *cited], key=_order)
    return Reading(answer.text, tuple(quotes), tuple(answer.sources.values()))


def _order(written: WrittenQuote) -> tuple[bool, int, int]:
    start, end = written.start, written.end
    return (start is None, start or 0, end or 0)


def _get(value: Any, name: str) -> Any:
    """A field of a mapping, or an attribute; None where it has none."""
    if isinstance(value, Mapping):
        return value.get(name)
    return None if isinstance(value, str | list | tuple) else getattr(value, name, None)


def _take(message: Any, parts: _Parts, depth: int) -> bool:
    """Takes a message apart; whether it is one."""
    if depth == 0 or message is None:
        return False
    if isinstance(message, list | tuple):
        return bool(message) and _take(message[-1], parts, depth - 1)
    _take_nodes(message, parts)
    for name in ("blocks", "content", "answer", "response", "text"):
        value = _get(message, name)
        if isinstance(value, str) or (isinstance(value, list | tuple) and name != "answer"):
            _take_content(value, parts, joint="\n" if name == "blocks" else "")
            _take_beside(message, parts)
            return True
    inner = (
        _get(message, name) for name in ("output", "choices", "message", "messages", "response")
    )
    return any(_take(_last(value), parts, depth - 1) for value in inner if value is not None)


def _last(value: Any) -> Any:
    """The message in a list: the last one, but for what a model puts out beside its words."""
    if not isinstance(value, list | tuple):
        return value
    spoken = [item for item in value if _get(item, "type") not in _BESIDE_WORDS]
    return spoken[-1] if spoken else None


def _take_content(value: str | Sequence[Any], parts: _Parts, *, joint: str) -> None:
    for block in [value] if isinstance(value, str) else value:
        text = block if isinstance(block, str) else _get(block, "text")
        annotations = list(_as_list(_get(block, "citations")))
        annotations += _as_list(_get(block, "annotations"))
        if text is not None and not isinstance(text, str):  # OpenAI's assistants: {"value": ...}
            annotations += _as_list(_get(text, "annotations"))
            text = _get(text, "value")
        cited = _get(_get(block, "cited_content"), "text")
        if isinstance(cited, str):
            parts.quotes.append(WrittenQuote(cited, None, None, "citation", _claim(block)))
        if not isinstance(text, str):
            continue
        if parts.text and text:
            parts.text += joint
        start = len(parts.text)
        parts.text += text
        for annotation in annotations:
            _take_annotation(annotation, parts, start, len(parts.text))


def _take_beside(message: Any, parts: _Parts) -> None:
    """Citations beside a message's words rather than in its blocks."""
    extra = _get(message, "additional_kwargs")
    for holder in (message, extra):
        for name in ("citations", "annotations"):
            for annotation in _as_list(_get(holder, name)):
                _take_annotation(annotation, parts, 0, len(parts.text))


def _take_annotation(annotation: Any, parts: _Parts, start: int, end: int) -> None:
    """One citation of whatever maker, of words ``[start, end)`` unless it says which."""
    inner = _get(annotation, "url_citation") or _get(annotation, "file_citation") or annotation
    first, past = _range(annotation, inner)
    if first is not None and past is not None and 0 <= first < past <= end - start:
        start, end = start + first, start + past
    quote = _get(inner, "cited_text") or _get(inner, "quote")
    claim = _claim(annotation, inner)
    if isinstance(quote, str) and quote.strip():
        parts.quotes.append(WrittenQuote(quote.strip(), start, end, "citation", claim))
    elif claim is not None:
        at = _get(annotation, "index")
        if first is None and isinstance(at, int) and _get(annotation, "type") == "file_citation":
            start = end = min(max(at, 0), len(parts.text))
        parts.marks.append(_Mark(start, end, claim))


def _range(*holders: Any) -> tuple[int | None, int | None]:
    """The words that a citation says it supports."""
    for holder in holders:
        for first, past in (("start_index", "end_index"), ("start", "end")):
            start, end = _get(holder, first), _get(holder, past)
            if isinstance(start, int) and isinstance(end, int):
                return start, end
    return None, None


def _claim(*holders: Any) -> Claim | None:
    """What a citation says of its source, by whatever names its maker uses."""
    numbers: list[int] = []
    names: list[str] = []
    at = None
    for holder in _deeper(holders):
        for name in ("document_index", "search_result_index"):
            value = _get(holder, name)
            if isinstance(value, int) and value >= 0:
                numbers.append(value + 1)
        names += [v for name in _SOURCES if isinstance(v := _get(holder, name), str) and v.strip()]
        names += [name for name in _as_list(_get(holder, "document_ids")) if isinstance(name, str)]
        first, past = _get(holder, "start_char_index"), _get(holder, "end_char_index")
        if isinstance(first, int) and isinstance(past, int):
            at = (first, past)
    if not numbers and not names:
        return None
    return Claim(tuple(numbers[:1]), tuple(dict.fromkeys(names)), loose=not numbers, at=at)


def _deeper(holders: Iterable[Any]) -> Iterator[Any]:
    """Holders with what they hold of sources."""
    for holder in holders:
        yield holder
        yield _get(holder, "extras")
        for source in _as_list(_get(holder, "sources")):
            yield source
            yield _get(source, "document")


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _take_nodes(message: Any, parts: _Parts) -> None:
    """The texts that a framework's result was made from, in the order of their numbers."""
    for name in ("source_nodes", "context"):
        for entry in _as_list(_get(message, name)):
            node = _get(entry, "node") or entry
            text = _get(node, "page_content") or _get(node, "text")
            if not isinstance(text, str):
                continue
            names = [_get(node, key) for key in ("node_id", "id", "ref_doc_id")]
            metadata = _get(node, "metadata")
            names += [_get(metadata, key) for key in ("source", "file_name", "file_path", "title")]
            known = tuple(dict.fromkeys(str(name) for name in names if name))
            parts.names.append(known)
            label = _LABEL.match(text)
            body = text[label.end() :] if label else text
            parts.nodes.append(Document(body, known[0] if known else None))


def _attribute(written: WrittenQuote, marks: Sequence[_Mark]) -> WrittenQuote:
    """A quote with the source that an annotation names for it, where the words name none."""
    if written.start is None or written.end is None:
        return written
    if written.claim is not None and written.claim.numbers:
        return written
    for mark in marks:
        over = mark.start < written.end and written.start < mark.end
        if over or written.end <= mark.start <= written.end + _BESIDE:
            return replace(written, claim=mark.claim)
    return written


def _resolve_node_numbers(written: WrittenQuote, parts: _Parts) -> WrittenQuote:
    """A quote whose ``[2]`` means the second source node."""
    claim = written.claim
    if claim is None or not claim.numbers or not parts.names or written.form == "citation":
        return written
    names = [
        name
        for number in claim.numbers
        if 0 < number <= len(parts.names)
        for name in parts.names[number - 1]
    ]
    return replace(written, claim=Claim(names=(*names, *claim.names)))
