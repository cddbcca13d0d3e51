"""What a line may be by itself, by examples of each kind."""

import pytest

from recallm_core.text.line import Line

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
