"""What the page is told: plain data in which no text can act."""

from __future__ import annotations

from typing import Any

from recallm_core.answering.stream import Event, Finished
from recallm_core.answers.answer import Answer, Citation
from recallm_core.answers.trace import (
    AnswerDelta,
    ReasoningDelta,
    RecallDelta,
    RecallEnded,
    RecallStarted,
)
from recallm_core.documents.document import Document
from recallm_core.rendering.layout import (
    GRADES,
    NEAREST,
    NOT_FOUND,
    answer_pieces,
    cut,
    elsewhere,
    name_of,
    place_of,
)
from recallm_core.rendering.links import quote_url
from recallm_core.rendering.visible import VisibleStream, one_line, visible, visible_slice

_WHOLE = 300_000  # characters of a source that is shown whole
_AROUND = 30_000  # characters before and after a quote, in longer ones


class EventWriter:
    """Turns the events of one answer into data; text in them is made visible as it comes."""

    def __init__(self) -> None:
        self._texts = {kind: VisibleStream() for kind in ("reasoning", "quote", "answer")}

    def write(self, event: Event) -> dict[str, Any] | None:
        """Returns what the page is told of an event; None for what it doesn't show."""
        match event:
            case ReasoningDelta(text):
                return self._text("reasoning", text)
            case AnswerDelta(text):
                return self._text("answer", text)
            case RecallStarted(section):
                self._texts["quote"] = VisibleStream()
                return {"type": "quote-start", "section": section}
            case RecallDelta(text):
                return self._text("quote", text)
            case RecallEnded(span):
                return {"type": "quote-end", "kept": span is not None}
            case Finished(answer):
                return answer_page(answer)
        return None

    def _text(self, kind: str, text: str) -> dict[str, Any]:
        return {"type": kind, "text": self._texts[kind].feed(text)}


def answer_page(answer: Answer) -> dict[str, Any]:
    """Returns a complete answer as the page shows it."""
    numbered = list(enumerate(answer.citations, 1))
    return {
        "type": "finished",
        "text": answer.text,
        "abstained": answer.abstained,
        "notice": NOT_FOUND if answer.abstained else "",
        "pieces": [
            [shown_slice(answer.text, piece.start, piece.end), list(piece.closes)]
            for piece in answer_pieces(answer)
        ],
        "citations": [citation(answer, number, c) for number, c in numbered],
        "nearest_title": NEAREST,
        "nearest": [citation(answer, n, c) for n, c in enumerate(answer.nearest[:3], 1)],
        "cut_off": answer.finish_reason == "length",
        "model": one_line(answer.model),
        "tokens": [answer.usage.prompt_tokens, answer.usage.output_tokens],
        "markdown": answer.to_markdown(),
    }


def citation(answer: Answer, number: int, quoted: Citation) -> dict[str, Any]:
    """Returns one citation as the page shows it."""
    document = answer.sources.get(quoted.document_id)
    return {
        "number": number,
        "text": visible(quoted.text),
        "name": name_of(quoted, document),
        "place": place_of(quoted),
        "grade": GRADES[quoted.basis],
        "elsewhere": list(elsewhere(answer, quoted)[:5]),
        "url": quote_url(quoted, document),
        "document_id": quoted.document_id,
        "start": quoted.start,
        "end": quoted.end,
        "page": quoted.page,
    }


def source_view(document: Document, start: int, end: int) -> dict[str, Any]:
    """Returns a source's text, or what surrounds the range in a long one, with the range marked."""
    text = document.text
    first, past = 0, len(text)
    if len(text) > _WHOLE:
        first, past = max(0, start - _AROUND), min(len(text), end + _AROUND)
    source = document.source_map
    paged = source is not None and source.pages is not None
    return {
        "name": one_line(document.title or (source.origin if source else document.id)),
        "origin": one_line(source.origin) if source else "",
        "pieces": [
            [shown_slice(text, piece.start, piece.end), bool(piece.numbers)]
            for piece in cut(first, past, [(start, end, 1)])
        ],
        "left_out": [first, len(text) - past],
        "line": None if paged else document.line_at(start),
        "page": document.page_at(start),
        "pdf": paged and source is not None and source.origin.casefold().endswith(".pdf"),
    }


def shown_slice(text: str, start: int, end: int) -> str:
    """Returns a slice as it is shown."""
    return visible(visible_slice(text, start, end))
