"""What ends a text on its way out: a closing mark, unless words inside it are set in such marks."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.answers.text_flow import TextFlow

WORDS = st.text("ab 1.\n([", max_size=12)
ENDING = st.text("ab1.", min_size=1, max_size=4)


def let_through(*pieces: str, closing: str = '"') -> tuple[str, bool]:
    flow = TextFlow(closing=closing)
    text = "".join(map(flow.text, pieces))
    return text + flow.end(), flow.stopped


@given(words=WORDS, ending=ENDING, rest=st.text('ab "', max_size=8))
def test_a_closing_mark_ends_the_words_before_it(words: str, ending: str, rest: str) -> None:
    expected = (words + ending).strip()
    assert let_through(f'{words}{ending}"{rest}') == (expected, True)


@given(text=st.text('ab "\\(.\n', max_size=24), cuts=st.sets(st.integers(1, 23), max_size=4))
def test_pieces_end_where_the_whole_does(text: str, cuts: set[int]) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [text[a:b] for a, b in pairwise(edges)]
    assert let_through(*pieces) == let_through(text)


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ('In 1889."', "In 1889."),
        ('In 1889" is what it says.', "In 1889"),
        ('The song "Hey Jude" by the Beatles" it is', 'The song "Hey Jude" by the Beatles'),
        ('The song "Hey Jude""', 'The song "Hey Jude"'),
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
