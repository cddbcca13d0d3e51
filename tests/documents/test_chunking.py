"""Chunks: gapless exact ranges, within their size, never inside a character."""

from bisect import bisect_left
from itertools import groupby, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core.documents.chunking import BYTES_PER_TOKEN, Heading, chunk, headings, split
from recallm_core.documents.document import Document
from recallm_core.errors import DocumentError
from recallm_core.text.boundaries import grapheme_boundaries, grapheme_boundary_before

PIECES = [
    *(
        "word ",
        "A sentence. ",
        "Longer one, with e.g. an aside, ends! ",
        "\n\n",
        "\r\n",
        "\r\n\r\n",
    ),
    *("# Head\n", "\n## Sub head ##\r\n", "\nTitle\n=====\n", "```\n", "~~~\n# no\n", "\f", "\t"),
    *("日本語。", "人工智能「好！」", "สวัสดี", "नमस्ते। ", "한국어 ", "👩‍👩‍👧", "🇩🇪", "e\u0301"),
    *(
        "\u0301" * 9,
        "。\ufe00",
        " \u0301",
        "\x00",
        "x" * 40,
        " " * 30,
        "\u0600",
        "क्ष",
        "\r",
        "שלום. ",
    ),
]
texts = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
sizes = st.integers(1, 40)


@st.composite
def tokenized(draw: st.DrawFn) -> tuple[str, list[int]]:
    """A text with token starts; several tokens may start within one character."""
    text = draw(texts)
    if not text:
        return text, []
    starts = draw(st.lists(st.integers(0, len(text) - 1), max_size=60))
    return text, sorted([0, *starts])


def n_bytes(text: str) -> int:
    return len(text.encode())


@settings(max_examples=300)
@given(texts, sizes)
def test_cuts_cover_the_text_within_their_size_at_character_boundaries(text: str, n: int) -> None:
    cuts = split(text, max_tokens=n)
    assert cuts[0] == 0
    assert cuts[-1] == len(text)
    marks = grapheme_boundaries(text)
    for start, end in pairwise(cuts):
        assert start < end
        assert marks[end]
        one_grapheme = not marks[start + 1 : end].any()
        assert one_grapheme or n_bytes(text[start:end]) <= n * BYTES_PER_TOKEN


@settings(max_examples=300)
@given(tokenized(), sizes)
def test_cuts_respect_the_callers_tokens(given_: tuple[str, list[int]], n: int) -> None:
    text, starts = given_
    cuts = split(text, max_tokens=n, token_starts=starts)
    assert cuts[0] == 0
    assert cuts[-1] == len(text)
    marks = grapheme_boundaries(text)
    for start, end in pairwise(cuts):
        assert marks[end]
        one_grapheme = not marks[start + 1 : end].any()
        assert one_grapheme or bisect_left(starts, end) - bisect_left(starts, start) <= n


@settings(max_examples=200)
@given(texts, sizes, sizes)
def test_chunks_join_to_the_text_and_parents_are_whole_chunks(text: str, n: int, m: int) -> None:
    document = Document(text, "id")
    chunks = chunk(document, max_tokens=n, parent_tokens=n + m)
    assert "".join(c.text for c in chunks) == text
    assert [(c.start, c.end) for c in chunks] == list(pairwise(split(text, max_tokens=n)))
    expected = 0
    for parent, group in groupby(chunks, key=lambda c: c.parent):
        members = list(group)
        assert parent == (members[0].start, members[-1].end)
        assert parent[0] == expected
        expected = parent[1]
        assert len(members) == 1 or n_bytes(text[slice(*parent)]) <= (n + m) * BYTES_PER_TOKEN
    assert expected == len(text)
    assert all(c.text == text[c.start : c.end] and c.document_id == "id" for c in chunks)


@settings(max_examples=300)
@given(texts, st.data())
def test_the_boundary_before_an_offset_is_the_last_one(text: str, data: st.DataObject) -> None:
    marks = grapheme_boundaries(text)
    places = [i for i, mark in enumerate(marks) if mark]
    start = data.draw(st.sampled_from(places))
    offset = data.draw(st.integers(start, len(text)))
    assert grapheme_boundary_before(text, start, offset) == max(p for p in places if p <= offset)


def test_cuts_prefer_headings_then_paragraphs_then_sentences_then_lines_then_spaces() -> None:
    def pieces(text: str) -> list[str]:
        return [text[a:b] for a, b in pairwise(split(text, max_tokens=10))]

    filler = "one two three four five six seven eight nine"
    assert pieces(f"Short text here.\n\n# Head\n\n{filler}")[:2] == [
        *("Short text here.\n\n", "# Head\n\none two three four five six "),
    ]
    assert pieces(f"A sentence. Another one here.\n\n{filler}")[0].endswith("here.\n\n")
    assert pieces(f"The first, e.g. this one. Then {filler}")[0] == "The first, e.g. this one. "
    assert pieces(f"a list of things\n{filler}")[0] == "a list of things\n"
    assert pieces(filler)[0] == "one two three four five six seven eight "
    assert pieces("東京は大きい。大阪も大きいです。") == ["東京は大きい。", "大阪も大きいです。"]
    assert pieces("x" * 100) == ["x" * 40, "x" * 40, "x" * 20]


def test_sections_name_the_headings_above() -> None:
    filler = "A sentence that fills the line.\n\n"
    text = f"Preface. {filler}# One\n\n{filler}## Deep\n\n{filler}# Two\n\n{filler}"
    sections = {c.section for c in chunk(Document(text), max_tokens=12)}
    assert sections == {(), ("One",), ("One", "Deep"), ("Two",)}


def test_headings_are_read_outside_fences_only() -> None:
    text = (
        "# A #\r\n```\n# code\n```\n\nSetext title\n---\n\n#hashtag\n####### seven\n### C\n~~~\n# x"
    )
    assert list(headings(text)) == [
        Heading(0, 1, "A"),
        Heading(text.index("Setext"), 2, "Setext title"),
        Heading(text.index("### C"), 3, "C"),
    ]


def test_titles_of_restructured_text_may_have_a_line_above() -> None:
    text = "*****\nPart\n*****\n\n=====\n Chapter\n=====\n\nSection\n-------\n\nbody"
    assert list(headings(text)) == [
        Heading(0, 1, "Part"),
        Heading(text.index("====="), 1, "Chapter"),
        Heading(text.index("Section"), 2, "Section"),
    ]


def test_a_character_longer_than_a_chunk_stays_whole() -> None:
    text = "a" + "\u0301" * 5000 + "b"
    assert split(text, max_tokens=4) == [0, 5001, 5002]


def test_an_empty_document_has_no_chunks() -> None:
    assert chunk(Document("")) == []
    assert split("") == [0]


def test_sizes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(DocumentError, match="max_tokens must be at least 1, got 0"):
        split("text", max_tokens=0)
    with pytest.raises(DocumentError, match=r"parent_tokens \(5\) must be at least max_tokens"):
        chunk(Document("text"), max_tokens=6, parent_tokens=5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit",
    [
        "A sentence of a few words. ",
        " ",
        "x",
        "\n",
        "\r\n",
        "e\u0301",
        "\u0301",
        "# a\n",
        "```\n",
        ".",
    ],
)
def test_long_monotonous_texts_are_split_in_one_pass(unit: str) -> None:
    text = unit * (2_000_000 // len(unit))
    assert "".join(c.text for c in chunk(Document(text, "d"))) == text


@pytest.mark.parametrize(
    "short", ["Mitte des 18. Jahrhunderts", "as Lee et al. Wrote", "by Dr. Lee"]
)
def test_no_cut_after_an_abbreviation_where_a_sentence_ends_before(short: str) -> None:
    text = (
        f"{'A first sentence of some length ends here. ' * 2}It was built {short} and so on and on."
    )
    cuts = split(text, max_tokens=len(text[: text.index(short) + len(short)]) // 4)
    assert text[: cuts[1]].endswith("here. ")
