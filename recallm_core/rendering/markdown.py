"""An answer as Markdown: footnotes with the quotes, and every other character just text."""

from __future__ import annotations

import re

from recallm_core.answers.answer import Answer, Citation
from recallm_core.documents.document import Document
from recallm_core.rendering.layout import (
    GRADES,
    MOST_NEAREST,
    NEAREST,
    NOT_FOUND,
    elsewhere,
    markers,
    place_of,
)
from recallm_core.rendering.links import quote_url
from recallm_core.rendering.visible import one_line, visible, visible_slice

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# What a renderer could take for markup, in CommonMark or a usual extension of it: emphasis, code,
# links, tables, math, strike-through, attributes; "!" before our own footnote mark or a bracket;
# ":" of an address or an emoji name; "." of "www."; "@" of an e-mail address.
_INLINE = re.compile(
    r"[\\`*_\[\]{}|~$^&<>]|!(?=\[|\Z)|:(?=[^\s\d]|\d+:)|(?<=www)\.|(?<=\w)@(?=\w)", re.IGNORECASE
)
_STARTS = frozenset("#+-=:.)")
_LEAD = re.compile(r"\A[^\S\n]+")
_TRAIL = re.compile(r"[^\S\n]+\Z")


def to_markdown(answer: Answer) -> str:
    """Returns the answer with footnotes; quotes are block quotes in them.

    Nothing in the answer's text, a quote or a title is markup to a CommonMark renderer: no link,
    image, HTML, heading, list, code or emphasis. Line breaks are kept. Renderers without footnotes
    show the marks and notes as text.
    """
    blocks = [f"*{NOT_FOUND}*"] if answer.abstained else []
    body = _body(answer)
    if body:
        blocks.append(body)
    blocks += [_note(answer, n, c) for n, c in enumerate(answer.citations, 1)]
    if answer.nearest:
        blocks.append(NEAREST)
        blocks += [_nearest(answer, citation) for citation in answer.nearest[:MOST_NEAREST]]
    return "\n\n".join(blocks) + "\n"


def escape(text: str, *, after_mark: bool = False) -> str:
    """Returns Markdown that shows the text, line breaks included, and nothing else.

    Args:
        text: Any text; control characters are made visible.
        after_mark: The text follows a footnote mark, which an opening parenthesis, bracket or
            colon would turn into something else.
    """
    shown = visible(text)
    core = shown.rstrip("\n")
    lines = [
        _line(line, after_mark=after_mark and number == 0)
        for number, line in enumerate(core.split("\n"))
    ]
    # A backslash breaks a line only where another follows.
    return "\\\n".join(lines) + "&#10;" * (len(shown) - len(core))


def _line(line: str, *, after_mark: bool) -> str:
    if line.isspace():
        return _as_entities(line)
    lead, trail = _LEAD.search(line), _TRAIL.search(line)
    head = lead.group() if lead and not after_mark else ""
    tail = trail.group() if trail else ""
    escaped = _INLINE.sub(_escape, line[len(head) : len(line) - len(tail)])
    escaped = re.sub(r"\A[(:]", r"\\\g<0>", escaped) if after_mark else _guard_start(escaped)
    return _as_entities(head) + escaped + _as_entities(tail)


def _guard_start(line: str) -> str:
    """Escapes what would make a line a heading, a list, a rule, a definition."""
    number = re.match(r"\d{1,9}(?=[.)])", line)
    at = number.end() if number else 0
    return f"{line[:at]}\\{line[at:]}" if line[at : at + 1] in _STARTS else line


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    return _ENTITIES.get(character) or "\\" + character


def _as_entities(space: str) -> str:
    return "".join(f"&#{ord(c)};" for c in space)


def _body(answer: Answer) -> str:
    text, marks = answer.text, markers(answer)
    out: list[str] = []
    start, after_mark = 0, False
    for end in sorted({*marks, len(text)}):
        if start < end:
            out.append(escape(visible_slice(text, start, end), after_mark=after_mark))
        out.append("".join(f"[^{n}]" for n in marks.get(end, ())))
        start, after_mark = end, True
    return "".join(out)


def _note(answer: Answer, number: int, citation: Citation) -> str:
    # Two plain words first: "[^1]: word" alone would be a link's definition to a renderer that
    # has no footnotes.
    grade = GRADES[citation.basis]
    graded = f" ({grade})" if grade else ""
    link = _link(citation, answer.sources.get(citation.document_id))
    lines = [f"[^{number}]: Quoted from {link}{graded}:"]
    lines += [f"    {line}" for line in _block(citation.text).split("\n")]
    others = elsewhere(answer, citation)
    if others:
        listed = ", ".join(f"**{escape(place)}**" for place in others[:5])
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        lines += ["    >", f"    > The same words stand in {listed}{more}."]
    return "\n".join(lines)


def _nearest(answer: Answer, citation: Citation) -> str:
    link = _link(citation, answer.sources.get(citation.document_id))
    return f"{link}:\n{_block(citation.text)}"


def _block(text: str) -> str:
    """A quote as a block."""
    return "\n".join(f"> {line}" for line in escape(text).split("\n"))


def _link(citation: Citation, document: Document | None) -> str:
    place = f"**{escape(place_of(citation))}**"
    title = one_line(citation.title or "")
    if title and title not in place_of(citation):
        place = f"{escape(title)}, {place}"
    url = quote_url(citation, document)
    return f"[{place}](<{url}>)" if url and url.startswith("http") else place
