from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from recallm_core.answers.answer import Answer, Citation, Usage
from recallm_core.answers.trace import AnswerText, Trace
from recallm_core.documents.document import Document, Location
from recallm_core.rendering import quote_url, to_markdown, visible
from recallm_core.rendering.layout import markers
from recallm_core.rendering.markdown import escape
from recallm_core.rendering.visible import visible_slice

RENDERER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
PLAIN = {"paragraph_open", "paragraph_close", "inline"}


def inline(tokens: Iterable[Token]) -> list[Token]:
    return [child for token in tokens for child in token.children or ()]


def shown(tokens: Iterable[Token]) -> str:
    return "".join(
        {"hardbreak": "\n", "softbreak": "\n"}.get(token.type, token.content)
        for token in inline(tokens)
    )


def quoted_blocks(tokens: list[Token]) -> list[list[Token]]:
    """The tokens of each block quote."""
    opens = [n for n, token in enumerate(tokens) if token.type == "blockquote_open"]
    closes = [n for n, token in enumerate(tokens) if token.type == "blockquote_close"]
    return [tokens[a + 1 : b] for a, b in zip(opens, closes, strict=True)]


@given(st.data())
def test_escaped_text_renders_as_itself(
    hostile_texts: st.SearchStrategy[str], data: st.DataObject
) -> None:
    text = data.draw(hostile_texts)
    tokens = RENDERER.parse(escape(text))
    assert {token.type for token in tokens} <= PLAIN
    assert {token.type for token in inline(tokens)} <= {"text", "hardbreak"}
    assert shown(tokens) == visible(text)
    assert len(tokens) in (0, 3)


def test_every_piece_at_every_place_renders_as_itself(hostile_pieces: list[str]) -> None:
    for piece in hostile_pieces:
        for text in (piece, f"a\n{piece}", f"a\n{piece}\nb", f"a\n\n{piece}\n\nb", f"  {piece}  "):
            tokens = RENDERER.parse(escape(text))
            assert [token.type for token in tokens] == [
                "paragraph_open",
                "inline",
                "paragraph_close",
            ]
            assert {token.type for token in inline(tokens)} <= {"text", "hardbreak"}
            assert shown(tokens) == visible(text)


@given(st.data())
def test_also_in_a_block_quote_a_list_and_after_a_mark(
    hostile_texts: st.SearchStrategy[str], data: st.DataObject
) -> None:
    text = data.draw(hostile_texts)
    for prefix in ("> ", "    > "):
        block = "\n".join(prefix + line for line in escape(text).split("\n"))
        tokens = RENDERER.parse(re.sub(r"(?m)^    ", "", block))
        if text:
            assert shown(tokens) == visible(text)
        assert {t.type for t in tokens} <= PLAIN | {"blockquote_open", "blockquote_close"}
    tokens = RENDERER.parse("before[^1]" + escape(text, after_mark=True))
    assert {token.type for token in tokens} <= PLAIN
    assert {token.type for token in inline(tokens)} <= {"text", "hardbreak"}
    assert shown(tokens) == "before[^1]" + visible(text)


@given(st.data())
def test_an_answer_has_no_markup_but_ours(
    hostile_answers: st.SearchStrategy[Answer], data: st.DataObject
) -> None:
    check_answer(data.draw(hostile_answers))


def check_answer(answer: Answer) -> None:
    body, *notes = re.split(r"\n\n(?=\[\^\d+\]: Quoted from )", to_markdown(answer))
    assert len(notes) == len(answer.citations)
    if answer.text:
        tokens = RENDERER.parse(body.removesuffix("\n"))
        assert shown(tokens[-3:]) == marked(answer)
        assert {t.type for t in inline(tokens[-3:])} <= {"text", "hardbreak"}
    for note, citation in zip(notes, answer.citations, strict=True):
        check_note(note, citation, answer.sources[citation.document_id])
    everything = RENDERER.parse(to_markdown(answer))
    assert {token.type for token in everything} <= PLAIN
    check_inline(
        everything, {quote_url(c, answer.sources[c.document_id]) for c in answer.citations}
    )


def marked(answer: Answer) -> str:
    """The visible text with our marks in it, and no other change."""
    marks, text, shown = markers(answer), answer.text, ""
    for start, end in pairwise(sorted({-1, 0, *marks, len(text)})):
        shown += visible(visible_slice(text, max(start, 0), end))
        shown += "".join(f"[^{number}]" for number in marks.get(end, ()))
    return shown


def check_note(note: str, citation: Citation, document: Document) -> None:
    """As a renderer with footnotes sees it: the note's lines without their indent."""
    content = re.sub(r"(?m)^ {4}", "", re.sub(r"\A\[\^\d+\]: ", "", note))
    tokens = RENDERER.parse(content)
    allowed = PLAIN | {"blockquote_open", "blockquote_close"}
    assert {token.type for token in tokens} <= allowed
    (block,) = quoted_blocks(tokens)
    assert shown(block[:3]) == visible(citation.text)
    check_inline(tokens, {quote_url(citation, document)})


def check_inline(tokens: list[Token], links: set[str | None]) -> None:
    for token in inline(tokens):
        if token.type == "link_open":
            assert token.attrs["href"] in links
        else:
            assert token.type in {
                "text", "hardbreak", "softbreak", "link_close",
                "strong_open", "strong_close", "em_open", "em_close",
            }, token  # fmt: skip


def test_the_footnotes_of_an_ordinary_answer() -> None:
    document = Document("Leave\n\nYou have 27 days.\nNot more.", "leave", title="Leave (2024)")
    text = "27 days, not more."
    citations = (
        Citation("leave", 16, 23, "27 days", 0, 7, title="Leave (2024)", lines=(3, 3)),
        Citation(
            "leave",
            16,
            34,
            "27 days.\nNot more.",
            occurrences=(Location("leave", 16, 34), Location("other", 1, 2)),
            source="https://example.org/leave",
            page=2,
        ),
    )
    answer = Answer(
        text,
        citations,
        False,
        Trace((AnswerText(text),)),
        Usage(),
        "stop",
        sources={"leave": document},
    )
    assert (
        to_markdown(answer)
        == """\
27 days[^1], not more.[^2]

[^1]: Quoted from **Leave (2024):3**:
    > 27 days

[^2]: Quoted from [**https\\://example.org/leave, page 2**](<https://example.org/leave#page=2>):
    > 27 days.\\
    > Not more.
    >
    > The same words stand in **other, characters 1-2**.
"""
    )


def test_an_abstention_is_marked() -> None:
    answer = Answer("It isn't there.", (), True, Trace(()), Usage(), "stop")
    assert to_markdown(answer).startswith("*The documents hold no answer")


@pytest.mark.parametrize("text", ["", " ", "\n", "\n\n a\n\n", "\\", "a\\\n", "1.", "#", "!"])
def test_edges(text: str) -> None:
    assert shown(RENDERER.parse(escape(text))) == text


def test_nothing_in_the_text_joins_with_our_own_mark() -> None:
    """``![^1]`` and ``[^1](`` and ``[^1]:`` mean other things where footnotes are known."""
    text = "Yes!(no):[x]"
    cited = [Citation("d", 0, 1, "q", a, b) for a, b in ((0, 4), (4, 8), (8, 9))]
    answer = Answer(text, tuple(cited), False, Trace(()), Usage(), "stop")
    assert to_markdown(answer).startswith("Yes\\![^1]\\(no)[^2]\\:[^3]\\[x\\]\n")
