"""What ends a text on its way out: a closing mark, unless words inside it are set in such marks."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.answers.text_flow import TextFlow, measures_in

WORDS = st.text("ab 1.\n([", max_size=12)
ENDING = st.text("ab1.", min_size=1, max_size=4)


def let_through(*pieces: str, closing: str = '"', evidence: str = "") -> tuple[str, bool]:
    flow = TextFlow(closing=closing, measures=measures_in([evidence], closing))
    text = "".join(map(flow.text, pieces))
    return text + flow.end(), flow.stopped


@given(words=WORDS, ending=ENDING, rest=st.text('ab "', max_size=8))
def test_a_closing_mark_ends_the_words_before_it(words: str, ending: str, rest: str) -> None:
    expected = (words + ending).strip()
    assert let_through(f'{words}{ending}"{rest}') == (expected, True)


@given(text=st.text('ab 12"\\(.\n', max_size=24), cuts=st.sets(st.integers(1, 23), max_size=4))
def test_pieces_end_where_the_whole_does(text: str, cuts: set[int]) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [text[a:b] for a, b in pairwise(edges)]
    for evidence in ("", 'A 12" or 2" one.'):
        assert let_through(*pieces, evidence=evidence) == let_through(text, evidence=evidence)


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ('In 1889."', "In 1889."),
        ('In 1889" is what it says.', "In 1889"),
        ('The song "Hey Jude" by the Beatles" it is', 'The song "Hey Jude" by the Beatles'),
        ('The song "Hey Jude""', 'The song "Hey Jude"'),
        ('The "Old" Man" it is', 'The "Old" Man'),
        ('Songs ("Help", "Yesterday")" and', 'Songs ("Help", "Yesterday")'),
        (r'The song \"Help\" by them" and', r"The song \"Help\" by them"),
        ('"Help", a song" and', '"Help", a song'),
        ("It isn't so\"", "It isn't so"),
        ('<a href="x">"', '<a href="x">'),
        ('{"year":"1889"}" or so', '{"year":"1889"}'),
        ('In 1889," it says', "In 1889,"),
    ],
)
def test_words_in_marks_of_their_own_end_nothing(output: str, text: str) -> None:
    assert let_through(output) == (text, True)
    assert let_through(*output) == (text, True)


def test_without_a_closing_mark_marks_are_text() -> None:
    assert let_through('a" b', closing="") == ('a" b', False)


@pytest.mark.parametrize(
    ("output", "evidence", "text"),
    [
        ('A 12" record" and', 'It is a 12" record.', 'A 12" record'),
        ('12"" and', 'It is a 12" record.', '12"'),
        ('12" \nLong answer: a record"', 'It is a 12" record.', '12"'),
        ('A 12" record.\n\nIt is', 'It is a 12" record.', 'A 12" record.'),
        ('12" and 7" discs" it is', 'The 12" and 7" versions of "Hey" came.', '12" and 7" discs'),
        ('5\' 11" tall"', 'She is 5\u203211" tall.', "5' 11\" tall"),
        ('A 3/4" pipe" or', "Use a 3/4\u2033 pipe.", 'A 3/4" pipe'),
        ('12" record" and', "It is a record of twelve inches.", "12"),
        ('112" record" and', 'It is a 12" record.', "112"),
        ('The "Studio 12" show" is', 'A 12" record.', 'The "Studio 12" show'),
    ],
)
def test_inches_of_the_evidence_end_nothing(output: str, evidence: str, text: str) -> None:
    assert let_through(output, evidence=evidence) == (text, True)
    assert let_through(*output, evidence=evidence) == (text, True)


@pytest.mark.parametrize(
    "evidence",
    [
        'Joseph Heller wrote "Catch 22" in 1961.',
        'His 1958" Auergesellschaft" is lost.',  # a mark that stands on the wrong side of a space
        'It is a sequel to" Gangster 2".',
        'At 77" Auer" won.',
        'The HF2" is an amplifier.',
        'The "12" vinyl" came.',
    ],
)
def test_marks_that_close_words_or_do_not_pair_are_no_inches(evidence: str) -> None:
    assert not measures_in([evidence], '"')
    assert let_through('In 1961" he', evidence=evidence) == ("In 1961", True)
