"""What a cited query engine returns: LlamaIndex responses with citations, and the citation."""

from __future__ import annotations

import asyncio
import html
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote

from llama_index.core.base.llms.types import CitationBlock, TextBlock
from llama_index.core.base.response.schema import (
    AsyncStreamingResponse,
    PydanticResponse,
    Response,
    StreamingResponse,
)
from llama_index.core.bridge.pydantic import BaseModel, Field
from llama_index.core.schema import NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode
from llama_index.core.types import TokenAsyncGen

from llama_index_recallm.streams import AsyncTextStream, Recording, TextStream

Level = Literal["document", "node", "text"]
KEY = "recallm"
"""Key of a response's metadata under which the citations stand as plain data."""


_FRAGMENT_WORDS = 16  # longer quotes are named by their first and last words


def _escape(text: str) -> str:
    """A dash, too, has a meaning of its own in a text fragment."""
    return quote(text, safe="").replace("-", "%2D")


class NodeRange(BaseModel):
    """A range of a node's text: ``node.text[node_start:node_end]``, in code points."""

    node_id: str
    node_start: int
    node_end: int


class Citation(NodeRange):
    """A quote: ``node.text[node_start:node_end] == text``, always.

    Attributes:
        n: Its number in the answer, from 1; citations of the same place share one.
        text: The quote.
        node_id: The node among the response's sources.
        ref_doc_id: The document the node was cut from.
        doc_start: First character in that document, where known.
        doc_end: One past the last.
        utf16_range: The range in the document in UTF-16 units, as browsers and JavaScript count;
            where the level is ``document``.
        utf8_range: The same in bytes of the UTF-8 form.
        node_utf16_range: The range in the node's text in UTF-16 units.
        node_utf8_range: The same in bytes.
        level: ``document``: the range was checked in the document's own text. ``node``: it is what
            the node's offsets claim. ``text``: no offsets in a document are known.
        basis: ``recalled`` (copied under the constraint), ``pointed`` (the model named a numbered
            sentence) or ``matched`` (found for the answer's words after the fact).
        answer_start: First character of the answer that it supports; None: the whole answer.
        answer_end: One past the last.
        ambiguous: Whether the quote stands in more than one place of what was read, or its node in
            more than one place of the document.
        occurrences: Every place in the nodes that were read where the quote stands.
        parts: For a node that was merged: the quote in the retrieved nodes it was merged from.
        derived: Whether the node is a sub-answer that another model call wrote.
        title: A name for people.
        page_label: As in the node's metadata.
    """

    n: int
    text: str
    ref_doc_id: str | None = None
    doc_start: int | None = None
    doc_end: int | None = None
    utf16_range: tuple[int, int] | None = None
    utf8_range: tuple[int, int] | None = None
    node_utf16_range: tuple[int, int] | None = None
    node_utf8_range: tuple[int, int] | None = None
    level: Level = "text"
    basis: Literal["recalled", "pointed", "matched"] = "recalled"
    answer_start: int | None = None
    answer_end: int | None = None
    ambiguous: bool = False
    occurrences: list[NodeRange] = Field(default_factory=list)
    parts: list[NodeRange] = Field(default_factory=list)
    derived: bool = False
    title: str | None = None
    page_label: str | None = None

    def text_fragment(self) -> str:
        """Returns what makes a browser show the quote, to be put behind the address of a page."""
        words = self.text.split()
        if len(words) <= _FRAGMENT_WORDS:
            return f"#:~:text={_escape(' '.join(words))}"
        half = _FRAGMENT_WORDS // 2
        first, last = (" ".join(part) for part in (words[:half], words[-half:]))
        return f"#:~:text={_escape(first)},{_escape(last)}"

    def as_block(self) -> CitationBlock:
        """Returns the citation as a block of a LlamaIndex message."""
        keys = ("node_start", "node_end", "doc_start", "doc_end", "answer_start", "answer_end")
        location = {key: getattr(self, key) for key in keys}
        return CitationBlock(
            cited_content=TextBlock(text=self.text),
            source=self.ref_doc_id or self.node_id,
            title=self.title or "",
            additional_location_info={k: v for k, v in location.items() if v is not None},
        )

    def as_node(self) -> NodeWithScore:
        """Returns the quote as a node of its own, which survives where responses don't."""
        related = {}
        if self.ref_doc_id is not None:
            related[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=self.ref_doc_id)
        keys = {"citation": self.n, "node_id": self.node_id, "level": self.level}
        node = TextNode(
            id_=f"citation-{self.n}-{self.node_id}-{self.node_start}-{self.node_end}",
            text=self.text,
            start_char_idx=self.doc_start,
            end_char_idx=self.doc_end,
            relationships=related,
            metadata=keys,
            excluded_llm_metadata_keys=list(keys),
            excluded_embed_metadata_keys=list(keys),
        )
        return NodeWithScore(node=node, score=1.0)


@dataclass(kw_only=True)
class Evidence:
    """What a response says beyond its text.

    Attributes:
        citations: In the order of the text that they support.
        cited_nodes: The source nodes that are cited, each once.
        abstained: Whether the sources hold no answer, as the model said or showed; the response is
            then the model's phrase for that, without citations.
        nearest: Of an abstention, the evidence that came nearest. It answers nothing.
        reasoning: The thinking, quotes included.
        finish_reason: ``stop``, ``length`` (cut off) or ``empty`` (there was nothing to read);
            empty while a stream isn't over.
    """

    citations: list[Citation] = field(default_factory=list)
    cited_nodes: list[NodeWithScore] = field(default_factory=list)
    abstained: bool = False
    nearest: list[Citation] = field(default_factory=list)
    reasoning: str = ""
    finish_reason: str = ""

    def take(self, other: Evidence) -> None:
        """Takes over everything that another one says."""
        for name in Evidence.__dataclass_fields__:
            setattr(self, name, getattr(other, name))

    def _text(self) -> str:
        raise NotImplementedError

    def marked_text(self) -> str:
        """Returns the answer with ``[n]`` behind what each citation supports."""
        return mark_citations(self._text(), self.citations)

    def with_quotes(self) -> str:
        """Returns the answer with ``[n]`` and, below it, the quotes with their sources."""
        quotes = list_quotes(self.citations)
        return f"{self.marked_text()}\n\n{quotes}" if quotes else self.marked_text()

    def to_json(self) -> dict[str, Any]:
        """Returns answer and evidence as plain data, for workflows and logs."""
        return {"response": self._text(), **plain(self), "reasoning": self.reasoning}

    def _repr_html_(self) -> str:
        lines = list_quotes(self.citations).splitlines()
        quotes = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
        return f"<p>{html.escape(self.marked_text())}</p><ul>{quotes}</ul>"


def plain(evidence: Evidence) -> dict[str, Any]:
    """Returns what is known of an answer as small plain data; the reasoning is left out."""
    return {
        "citations": [c.model_dump(mode="json", exclude_none=True) for c in evidence.citations],
        "cited_nodes": [node.node.node_id for node in evidence.cited_nodes],
        "abstained": evidence.abstained,
        "nearest": [c.model_dump(mode="json", exclude_none=True) for c in evidence.nearest],
        "finish_reason": evidence.finish_reason,
    }


def mark_citations(text: str, citations: list[Citation]) -> str:
    """Returns an answer with ``[n]`` behind each stretch that a citation supports."""
    out, last = [], 0
    places: dict[int, list[int]] = {}
    for citation in citations:
        end = len(text) if citation.answer_end is None else citation.answer_end
        numbers = places.setdefault(end, [])
        if citation.n not in numbers:
            numbers.append(citation.n)
    for end in sorted(places):
        out.append(text[last:end] + "".join(f" [{n}]" for n in places[end]))
        last = end
    return "".join(out) + text[last:]


def list_quotes(citations: list[Citation]) -> str:
    """Returns the quotes as numbered lines."""
    lines: dict[int, str] = {}
    for citation in citations:
        where = citation.title or citation.ref_doc_id or citation.node_id
        page = f", page {citation.page_label}" if citation.page_label else ""
        lines.setdefault(citation.n, f'[{citation.n}] "{citation.text}" ({where}{page})')
    return "\n".join(lines[n] for n in sorted(lines))


@dataclass
class CitedResponse(Evidence, Response):
    """A complete answer with its citations."""

    def _text(self) -> str:
        return self.response or ""


@dataclass
class CitedPydanticResponse(Evidence, PydanticResponse):
    """An answer that is an object; ``answer_start`` and ``answer_end`` count in its text.

    That text is the JSON that the model wrote, kept as ``text``.
    """

    text: str = field(default="", kw_only=True)

    def _text(self) -> str:
        return self.text

    def get_response(self) -> CitedResponse:
        """Returns the same with the JSON as text."""
        return _complete(self, self.text)


class _RecordingHolder:
    """Holds a recording outside the fields: what dumps fields must not read the model."""

    _recording: Recording

    @property
    def recording(self) -> Recording:
        """The pieces that were read so far, and the way to the rest."""
        return self._recording


@dataclass
class CitedStreamingResponse(_RecordingHolder, Evidence, StreamingResponse):
    """An answer that is still being written; the evidence is there when the stream ends.

    Reading it, by anyone, doesn't take it from others: ``str()`` always gives the whole text, and
    ``response_gen`` can be looped over again once it is exhausted.
    """

    @classmethod
    def of(
        cls, recording: Recording, source_nodes: list[NodeWithScore], metadata: dict[str, Any]
    ) -> CitedStreamingResponse:
        """Returns the response for a recording."""
        response = cls(TextStream(recording), source_nodes, metadata)
        response._recording = recording
        return response

    def _text(self) -> str:
        return self.response_txt or ""

    def __str__(self) -> str:
        return self.recording.all() or "None"

    def get_response(self) -> CitedResponse:
        """Waits for the end and returns the complete answer."""
        return _complete(self, self.recording.all())


@dataclass
class AsyncCitedStreamingResponse(_RecordingHolder, Evidence, AsyncStreamingResponse):
    """``CitedStreamingResponse`` for asynchronous readers, on any event loop."""

    @classmethod
    def of(
        cls, recording: Recording, source_nodes: list[NodeWithScore], metadata: dict[str, Any]
    ) -> AsyncCitedStreamingResponse:
        """Returns the response for a recording."""
        response = cls(AsyncTextStream(recording), source_nodes, metadata)
        response._recording = recording
        return response

    def _text(self) -> str:
        return self.response_txt or ""

    def __str__(self) -> str:
        return self.recording.all() or "None"

    async def _async_str(self) -> str:
        return await asyncio.to_thread(self.recording.all) or "None"

    async def _yield_response(self) -> TokenAsyncGen:
        async for text in AsyncTextStream(self.recording):
            yield text

    async def get_response(self) -> CitedResponse:
        """Waits for the end and returns the complete answer."""
        return _complete(self, await asyncio.to_thread(self.recording.all))


def _complete(
    response: CitedStreamingResponse | AsyncCitedStreamingResponse | CitedPydanticResponse,
    text: str,
) -> CitedResponse:
    out = CitedResponse(text, response.source_nodes, response.metadata)
    out.take(response)
    return out
