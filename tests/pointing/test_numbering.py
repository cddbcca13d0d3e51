"""Numbered sentences: they hold all words, and nothing in them can pass for a line of its own."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core import DocumentError, Passage
from recallm_core.pointing import numbering
from recallm_core.pointing.numbering import LONGEST, as_json_string, lines, number_sentences
from tests.pointing.conftest import TEXTS

LINE = re.compile(r'\[(\d+)\] (".*")')
HEADING = re.compile(r'Document (\d+)(?:, (".*"))?:')


def passages(texts: list[str], titles: list[str | None]) -> list[Passage]:
    return [
        Passage(f"d{n}", 0, len(text), text, title)
        for n, (text, title) in enumerate(zip(texts, titles, strict=True))
    ]


@given(st.lists(st.tuples(TEXTS, st.none() | TEXTS), max_size=4))
def test_the_lines_say_exactly_what_the_sentences_are(pairs: list[tuple[str, str | None]]) -> None:
    shown = passages([text for text, _ in pairs], [title for _, title in pairs])
    sentences = number_sentences(shown)
    assert [sentence.number for sentence in sentences] == list(range(1, len(sentences) + 1))
    read = []
    for line in lines(sentences, shown).splitlines():
        if LINE.fullmatch(line):
            number, text = LINE.fullmatch(line).groups()
            read.append((int(number), json.loads(text)))
        elif line:
            number, title = HEADING.fullmatch(line).groups()
            assert (json.loads(title) if title else None) == (shown[int(number) - 1].title or None)
    assert read == [(sentence.number, sentence.text) for sentence in sentences]
    for sentence in sentences:
        text = shown[sentence.passage].text
        assert text[sentence.start : sentence.end] == sentence.text == sentence.text.strip()
    for n, passage in enumerate(shown):
        own = "".join(sentence.text for sentence in sentences if sentence.passage == n)
        assert "".join(own.split()) == "".join(passage.text.split())


@given(TEXTS)
def test_a_quoted_text_reads_back_and_holds_no_mark_of_a_chat_template(text: str) -> None:
    string = as_json_string(text)
    assert json.loads(string) == text
    assert len(string.splitlines()) == 1
    assert not re.search(r"<[|/a-z]|\[/?[A-Z_]+\]", string)


def test_a_long_sentence_is_numbered_in_pieces_of_whole_words() -> None:
    text = "word " * 1000 + "x" * 2000 + " end"
    pieces = [sentence.text for sentence in number_sentences(passages([text], [None]))]
    assert "x" * 2000 in pieces
    assert all(len(piece) <= LONGEST for piece in pieces if piece[0] != "x")
    assert {word for piece in pieces for word in piece.split()} == {"word", "x" * 2000, "end"}


def test_too_many_sentences_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbering, "MOST", 3)
    assert len(number_sentences(passages(["One. Two. Three."], [None]))) == 3
    with pytest.raises(DocumentError, match="more than 3 sentences"):
        number_sentences(passages(["Aa bb. Cc dd. Ee ff.", "Gg hh."], [None, None]))
