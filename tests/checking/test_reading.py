"""Readers of quotes: marks of many languages, block quotes, tags, JSON; and references beside."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.checking.checker import check_quotes
from recallm_core.checking.reading import read
from recallm_core.checking.streaming import QuoteChecker


def quotes(text: str) -> list[str]:
    return [written.text for written in read(text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('He said "one two" and "three".', ["one two", "three"]),
        ("“one ‘two’ three” ‘four five’", ["one ‘two’ three", "four five"]),
        ("„eins zwei“ ‚drei‘ »vier fünf«", ["eins zwei", "drei", "vier fünf"]),
        ("« un deux » ‹ trois › „jeden dwa”", ["un deux", "trois", "jeden dwa"]),
        ("「一二『三』四」『五』〝六〟", ["一二『三』四", "五", "六"]),
        ('他说“你好世界”。她说"再见"。', ["你好世界", "再见"]),
        ("”ett två” är svenska", ["ett två"]),
        ("it's the dogs' bone, 'tis 'a b c' o'clock rock 'n' roll", ["a b c"]),
        ("'it's the dogs' bone' he said", ["it's the dogs' bone"]),
        ("‘it’s the dogs’ bone’ he said", ["it’s the dogs’ bone"]),
        ('a 5" pipe and a 6" pipe', []),
        ('a "never closed\n\nb "closed here"', ["closed here"]),
        ("a “never closed\n\nb “closed here”", ["never closed", "closed here"]),
        ('- "one\n- two"', []),
        ('code `print("x y")` and "z w"', ["z w"]),
        ('```python\nprint("x y")\n```\n"z w"', ["z w"]),
        ("> one\n> two\n\nthree\n>four", ["one\ntwo", "four"]),
        ('> "one two"', ["one two"]),
        ("> one two\n> — Handbook", ["one two"]),
        ("> [!NOTE]\n> see “one two”", ["one two"]),
        ("<quote>one &amp; two</quote> <Q>three</Q> <cite>four", ["one & two", "three"]),
        ('<blockquote>\n"one two"\n</blockquote>', ["one two"]),
        ('{"quote": "one \\"two\\" \\u00e9", "n": 1}', ['one "two" é']),
        ('[{"evidence": ["one", "two"]}, {"cited_text": "three"}]', ["one", "two", "three"]),
        ('{"answer": "he said “one two”", "quote": "thr', ["one two"]),
        ('x\n```json\n{"excerpt": "one two"}\n```\n', ["one two"]),
        ("[1] says “one two”", ["one two"]),
        ('<quote>"one two" and "three"</quote>', ['"one two" and "three"']),
    ],
)
def test_quotes_are_read_however_they_are_marked(text: str, found: list[str]) -> None:
    assert quotes(text) == found


@pytest.mark.parametrize(
    ("text", "numbers", "names"),
    [
        ('"a b" [2]', (2,), ()),
        ('"a b" [1][3]', (1, 3), ()),
        ('"a b" [^2], and', (2,), ()),
        ('"a b" [1, 4]', (1, 4), ()),
        ('"a b"【3:1†source】', (1,), ()),
        ('"a b" (Source 2)', (2,), ()),
        ('"a b" [doc 5].', (5,), ()),
        ('[2]: "a b"', (2,), ()),
        ('- [2] "a b"', (2,), ()),
        ('"a b" (handbook.md, p. 3)', (), ("handbook.md, p. 3",)),
        ('"a b" — Handbook', (), ("Handbook",)),
        ("> a b\n> -- Handbook", (), ("Handbook",)),
        ("> a b [2]", (2,), ()),
        ('<quote source="x.md">a b</quote>', (), ("x.md",)),
        ("<quote id=3>a b</quote>", (3,), ("3",)),
        ("<q>a b</q> [3]", (3,), ()),
        ('{"quote": "a b", "document_index": 0}', (1,), ()),
        ('{"source": "x.md", "quotes": ["a b"]}', (), ("x.md",)),
    ],
)
def test_what_is_said_of_a_quotes_source_is_read(
    text: str, numbers: tuple[int, ...], names: tuple[str, ...]
) -> None:
    (written,) = read(text)
    assert written.text == "a b"
    assert written.claim is not None
    assert (written.claim.numbers, written.claim.names) == (numbers, names)


@pytest.mark.parametrize(
    "block",
    [
        "a half-timbered house of 1530",
        "the house \u2014 a ruin by then \u2014 was sold in 1830",
        "the house was sold - so they say - in 1830",
        "well-known in the 1830s",
        "two rules:\n- the first of 1829\n- the second of 1830",
        "\u2014 Is it sold?\n\u2014 It was, in 1830.",
        "It was sold. \u2014 Was it not sold in 1830?",
    ],
)
def test_a_dash_in_a_block_quote_is_the_quotes_own(block: str) -> None:
    """What came behind it was taken for a name, and was never checked."""
    (written,) = read("\n".join(f"> {line}" for line in block.split("\n")))
    assert written.text == block


@pytest.mark.parametrize(
    ("block", "name"),
    [
        ("It was sold in 1830. \u2014 Handbook", "Handbook"),
        ("*It was sold in 1830* -- Handbook, p. 3", "Handbook, p. 3"),
        ("It was sold in 1830\n\u2014 The well-known Handbook", "The well-known Handbook"),
        ("It was a half-timbered house\n- Handbook", "Handbook"),
    ],
)
def test_the_name_under_a_block_quote_is_no_part_of_it(block: str, name: str) -> None:
    (written,) = read("\n".join(f"> {line}" for line in block.split("\n")))
    assert written.claim is not None
    assert written.claim.names == (name,)
    assert name not in written.text


@given(st.text("ab \n\"'“”‘’„«»`>-[]1<q/>{}:,\\", max_size=120))
def test_quotes_are_in_order_and_apart(text: str) -> None:
    places = [(w.start, w.end) for w in read(text)]
    assert all(0 <= (a or 0) < (b or 0) <= len(text) for a, b in places)
    assert all((one[1] or 0) <= (other[0] or 0) for one, other in pairwise(places))


PIECES = [
    'He said "the annual leave is 30 days" ', "[1]", "[2] ", "(handbook.md) ", "\n\n", "\n",
    "> block of leave\n", "> next line [1]\n", "“curly of leave” ", "„german text“ ", "«fr text» ",
    "'single text' ", "dogs' ", "it's ", '`code "x y" ` ', "``", "`", "```\n", "~~~\n",
    '```json\n{"quote": "a b c", "source": "x"}\n```\n', '<quote source="a">in a tag</quote> ',
    "<quote>", "</quote>", "<q>short one</q>", '"', "“", "‘", "’", "«", "word ", "Word. ",
    "- item ",
    "1. ", "— Handbook\n", "【4:0†source】", "「日本語 です」", '{"', "[", "> [!NOTE]\n", "<",
    "&amp;",
    " ", "...", "'", " ( ", '5" ', '他说"你好"。', "x" * 300, "y" * 701,
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=25), st.lists(st.integers(1, 40), min_size=1))
def test_a_text_in_pieces_gives_what_the_whole_gives(pieces: list[str], sizes: list[int]) -> None:
    text = "".join(pieces)
    documents = ["The annual leave is 30 days. In a tag: a b c.", "block of leave"]
    checker = QuoteChecker(documents, min_words=1)
    fed: list[Any] = []
    at = turn = 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        fed += checker.feed(text[at : at + size])
        at, turn = at + size, turn + 1
    fed += checker.finish()
    whole = check_quotes(text, documents, min_words=1)
    assert tuple(fed) == whole.quotes
    assert checker.report.quotes == whole.quotes
    assert checker.report.text == text


def test_a_quote_is_handed_out_as_soon_as_the_words_after_it_begin() -> None:
    checker = QuoteChecker(["The annual leave is 30 days."])
    text = 'It says "the annual leave is 30 days" [1] and more'
    given_out = [len(checker.feed(character)) for character in text]
    assert given_out.index(1) == text.index("and")
