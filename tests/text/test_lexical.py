from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from recallm_core.text.lexical import BM25, sentences, terms

TEXTS = st.one_of(
    st.text(max_size=200),
    st.lists(
        st.sampled_from(
            ["Dr. Ann Lee", " left.", "\n", "\r\n", "- item", "| a | b |", "a: b", " 東京。", "3.5",
             "word " * 12, "\u2029", "!", '"Yes."', " ", "J. K. Rowling", "\x85", "# Head"]
        ),
        max_size=25,
    ).map("".join),
)  # fmt: skip


@given(TEXTS)
def test_sentences_are_exact_disjoint_and_cover_everything_visible(text: str) -> None:
    covered = set()
    previous = 0
    for start, end in sentences(text):
        assert previous <= start < end <= len(text)
        assert text[start:end] == text[start:end].strip()
        covered.update(range(start, end))
        previous = end
    assert all(i in covered or c.isspace() for i, c in enumerate(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dr. Lee met J. K. Rowling. They left.", ["Dr. Lee met J. K. Rowling.", "They left."]),
        (
            "It cost 3.5 euros. See No. 5 and fig. 2.",
            ["It cost 3.5 euros.", "See No. 5 and fig. 2."],
        ),
        ('He said "Go." Then he left!', ['He said "Go."', "Then he left!"]),
        ("# Title\n- one\n- two\n| a | b |", ["# Title", "- one", "- two", "| a | b |"]),
        ("port: 80\nowner: Ann", ["port: 80", "owner: Ann"]),
        ("東京。大阪！", ["東京。", "大阪！"]),
        ("1. First do this.\n2. Then that.", ["1. First do this.", "2. Then that."]),
        ("", []),
    ],
)
def test_sentences_of_ordinary_text(text: str, expected: list[str]) -> None:
    assert [text[a:b] for a, b in sentences(text)] == expected


def test_wrapped_prose_is_joined_and_rows_are_not() -> None:
    wrapped = "The plan covers every person who works for the company and\ntheir children. It ends."
    assert [wrapped[a:b] for a, b in sentences(wrapped)] == [
        "The plan covers every person who works for the company and\ntheir children.",
        "It ends.",
    ]
    rows = "\n".join(f"{'k' * 36}{i}: {'v' * 36}{i}" for i in range(4))
    assert len(sentences(rows)) == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FY2018", ["fy2018", "fy", "2018"]),
        ("$1,500 and 3.12", ["1500", "3.12"]),
        ("Offices, office's OFFICE", ["offic", "offic", "offic"]),
        ("What is it?", []),
        ("東京都", ["東京", "京都"]),
        ("O'Brien isn't running", ["obrien", "run"]),
        ("Straße café", ["strass", "café"]),
        ("well-known", ["well", "known", "wellknown"]),
        ("cafe\u0301", ["café"]),
        ("COVID-19", ["covid", "19"]),
        ("10²", ["10²"]),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


@pytest.mark.parametrize(
    "written",
    [
        "guaran-\ntee",
        "guaran-\r\n    tee",
        "guaran-tee",
        "guaran-\n> tee",
        "guaran\u2010\ntee",
        "guaran\xad\ntee",
        "gua\xadran\u200btee",
        "\ufeffＧｕａｒａｎｔｅｅ",
    ],
)
def test_terms_hold_the_word_that_a_reader_reads(written: str) -> None:
    assert terms("guarantee")[0] in terms(written)
    assert terms("ﬁnal oﬃce") == terms("final office")


@given(st.text(max_size=100), st.text(max_size=100))
def test_terms_of_joined_lines_are_the_terms_of_each(first: str, second: str) -> None:
    assume(not first.rstrip().endswith(("-", "\u2010", "\u2011", "\xad")))  # a word broken there
    assert terms(first + "\n" + second) == terms(first) + terms(second)


WORDS = st.lists(st.sampled_from("abcdef"), max_size=8)


@given(st.lists(WORDS, max_size=8), WORDS)
def test_bm25_equals_the_formula(texts: list[list[str]], query: list[str]) -> None:
    index = BM25(texts, k1=1.5, b=0.6)
    mean = (sum(map(len, texts)) / len(texts) if texts else 1.0) or 1.0
    expected = []
    for text in texts:
        score = 0.0
        for term in set(query):
            df = sum(term in other for other in texts)
            idf = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
            tf = text.count(term)
            score += idf * tf * 2.5 / (tf + 1.5 * (1 - 0.6 + 0.6 * len(text) / mean))
        expected.append(score)
    np.testing.assert_allclose(index.scores(query), expected, rtol=1e-9)


@pytest.mark.parametrize(
    "sentence",
    [
        "Siehe Abb. 3 und Tab. 2 dort.",
        "Vgl. Kap. 4, Ziff. 12 und Rn. 7.",
        "Voir l\u2019art. 5 du code.",
        "Voir l'art. 5 du code.",
    ],
)
def test_a_number_after_the_word_for_it_begins_no_sentence(sentence: str) -> None:
    text = f"{sentence} Next."
    assert [text[a:b] for a, b in sentences(text)] == [sentence, "Next."]


def test_words_that_name_numbers_end_sentences_before_words() -> None:
    text = "Then press Tab. Go on. He lives in the Anl. Then he left."
    assert [text[a:b] for a, b in sentences(text)][:2] == ["Then press Tab.", "Go on."]


MARKS = st.sampled_from(
    [".", "!", "?", "\u2026", "\u3002", "\uff01", "\u300d", "\uff09", "(", ")", "[12]", "\u201d",
     '"', " ", "  ", "a", "B", "Dr", "3", "12", "e.g", "x = 1;", "\n", "> ", "- ", "The", "fee",
     "\u5927", "\u3068", ": "]
)  # fmt: skip
MARKED = st.lists(MARKS, max_size=25).map("".join)


@given(MARKED, MARKED)
def test_sentences_of_a_paragraph_are_the_same_among_others(first: str, second: str) -> None:
    start = len(first) + 3
    shifted = [(low + start, high + start) for low, high in sentences(second)]
    assert sentences(f"{first}\n\n\n{second}") == sentences(first) + shifted


@given(MARKED)
def test_only_marks_end_a_sentence_within_a_line(text: str) -> None:
    text = text.replace("\n", " ")
    for _, end in sentences(text)[:-1]:
        assert re.search(
            r"[.!?\u2026\u3002\uff01][\u300d\uff09\u201d\")]*(?:\[12\]|[\")])*$", text[:end]
        )
