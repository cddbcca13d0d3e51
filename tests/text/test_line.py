"""What a line may be by itself, by examples of each kind."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.text.line import GOES_ON, Line, is_code

SIGNS_OF_CODE = re.compile(  # as one would write them; the module's are faster
    r"[;{}]$|[)\]]:$|\w\([^()\s]*\)?$|\w\.\w+\(|[-=]>|[!=<>+:-]=|\s=\s|::|^(?:@\w|import\s|def\s|\$\s)"
)
PIECES = st.sampled_from(
    ["f", "x1", "é", "(", ")", "[", "]", "()", ".", "=", "-", ">", "<", "!", "+", ":", ";", "{",
     "}", " ", "  ", "\t", "$ ", "@", "import ", "def ", ",", "\u2013", "against", "which", "der"]
)  # fmt: skip
KINDS = [
    ("The fee is due on Monday", None),
    ("- the first of them", "item"),
    ("2) the second", "item"),
    ("2024-05-06 10:30 started", "time"),
    ("[WARN] disk is full", "level"),
    ("name: value", "key"),
    ("| a | b |", "table"),
    ("300 of them", "number"),
    ("first    second", "columns"),
    ("return total;", "code"),
    ("00:00:01,000 --> 00:00:02,500", "cue"),
]


@pytest.mark.parametrize(("words", "kind"), KINDS)
def test_the_kind_of_a_line(words: str, kind: str | None) -> None:
    assert Line(words, 0, len(words), 0, "").kind == kind


def test_a_line_is_measured_after_its_mark() -> None:
    line = Line("x\n>   and the\nx", 2, 13, 3, ">")
    assert (line.words, line.first, line.indent, line.width) == ("and the", "and", 3, 10)
    assert line.goes_on
    assert not line.is_finished
    assert not line.begins_anew


def test_a_sentence_is_finished_behind_its_closing_marks() -> None:
    words = 'He said "it is over."'
    line = Line(words, 0, len(words), 0, "")
    assert line.is_finished
    assert line.begins_anew


@given(st.lists(PIECES, max_size=12).map("".join).map(str.strip))
def test_signs_of_code_are_looked_for_faster_not_otherwise(words: str) -> None:
    assert is_code(words) == (SIGNS_OF_CODE.search(words) is not None)


@given(st.lists(PIECES, max_size=12).map("".join))
def test_the_last_word_says_whether_a_line_goes_on(words: str) -> None:
    line = Line(words, 0, len(words), 0, "")
    assert line.goes_on == (GOES_ON.search(line.words) is not None)
