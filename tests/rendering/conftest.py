from __future__ import annotations

import pytest
from hypothesis import strategies as st

from recallm_core.answers.answer import Answer, Citation, Usage
from recallm_core.answers.trace import AnswerText, Reasoning, RecallSpan, Trace
from recallm_core.documents.document import Document, Location
from recallm_core.documents.source_map import SourceMap

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'onmouseover='alert(1)",
    "</div></article></section>",
    "</title></style></script>",
    "<!--",
    "-->",
    "]]>",
    "&lt;b&gt;&amp;&#0;&#x202e;&nbsp;",
    "![pixel](http://evil.example/x.png)",
    "[click](javascript:alert(1))",
    "(http://evil.example)",
    "<http://evil.example>",
    "http://evil.example/?q=1",
    "www.evil.example",
    "someone@evil.example",
    "[^1]: http://evil.example",
    "[^1]",
    "[label]: http://evil.example 'title'",
    "```\n",
    "~~~",
    "`code`",
    "# heading",
    "- item",
    "* item",
    "+ item",
    "1. item",
    "7) item",
    "> quote",
    "---",
    "***",
    "===",
    "| a | b |\n|---|---|\n| c | d |",
    "**bold** _em_ ~~no~~ $x^2$ {.class}",
    "\\",
    "!",
    ":smile:",
    "    indented",
    "\t",
    "  ",
    "\n",
    "\n\n",
    "\r\n",
    "\r",
    "\x00",
    "\x1b[31mred\x1b[0m",
    "\x1b]8;;http://evil.example\x07link\x1b]8;;\x07",
    "\x07\x08\x0b\x0c\x7f\x85\x9b",
    "\u202eevil\u202c\u2066x\u2069",
    "\u2028\u2029\ufeff\u200b\u200d",
    "ا ب ج שלום",
    "日本語。",
    "👨‍👩‍👧‍👦 e\u0301",
    "words of a text",
]


@pytest.fixture(scope="session")
def hostile_pieces() -> list[str]:
    """What the hostile texts are made of."""
    return HOSTILE


@pytest.fixture(scope="session")
def hostile_texts() -> st.SearchStrategy[str]:
    """Texts that try to act in HTML, Markdown or a terminal."""
    return texts()


def texts(min_size: int = 0) -> st.SearchStrategy[str]:
    characters = st.characters(exclude_categories=["Cs"])
    pieces = st.one_of(st.sampled_from(HOSTILE), st.text(characters, max_size=8))
    return st.lists(pieces, min_size=min_size, max_size=8).map("".join)


@pytest.fixture(scope="session")
def hostile_answers() -> st.SearchStrategy[Answer]:
    """Answers whose every text is hostile, with any number of overlapping citations."""
    return answers()


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    sources = {
        f"d{n}<&\"'>": draw(documents(f"d{n}<&\"'>")) for n in range(draw(st.integers(0, 3)))
    }
    text = draw(texts())
    quotable = [document for document in sources.values() if document.text]
    citations = tuple(
        draw(cited(draw(st.sampled_from(quotable)), text))
        for _ in range(draw(st.integers(0, 5)) if quotable else 0)
    )
    spans = [
        RecallSpan(c.text, c.document_id, c.start, c.end, 0, c.occurrences, "thinking", 0, 3)
        for c in citations
    ]
    trace = Trace((Reasoning(draw(texts())), *spans, AnswerText(text)))
    return Answer(
        text,
        citations,
        draw(st.booleans()),
        trace,
        Usage(10, 2, 3, 4, 5),
        draw(st.sampled_from(["stop", "length"])),
        question=draw(texts()),
        model=draw(texts()),
        sources=sources,
    )


@st.composite
def documents(draw: st.DrawFn, key: str) -> Document:
    text = draw(texts())
    origin = draw(st.sampled_from(["notes/a.md", "/srv/b c.txt", "https://example.org/x?y=1&z"]))
    source_map = draw(st.sampled_from([None, SourceMap(origin), SourceMap(draw(texts()))]))
    return Document(text, key, draw(texts()), source_map=source_map)


@st.composite
def cited(draw: st.DrawFn, document: Document, answer: str) -> Citation:
    text = document.text
    start = draw(st.integers(0, len(text) - 1))
    end = draw(st.integers(start + 1, len(text)))
    # A quote holds whole characters (G3), and CR LF is one.
    start -= text[max(0, start - 1) : start + 1] == "\r\n"
    end += text[end - 1 : end + 1] == "\r\n"
    at = sorted(draw(st.tuples(st.integers(0, len(answer)), st.integers(0, len(answer)))))
    whole = at[0] == at[1] or draw(st.booleans())
    origin = document.source_map.origin if document.source_map else None
    others = [Location(document.id, start, end), Location("elsewhere<b>", 3, 4)]
    return Citation(
        document.id,
        start,
        end,
        text[start:end],
        None if whole else at[0],
        None if whole else at[1],
        occurrences=tuple(others[: draw(st.integers(1, 2))]),
        title=document.title,
        lines=document.lines(start, end),
        page=draw(st.sampled_from([None, 3])),
        source=origin,
    )
