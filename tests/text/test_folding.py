"""Folded texts: what reads alike is alike, and the way back is exact."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from recallm_core.text.boundaries import grapheme_boundaries, word_boundaries
from recallm_core.text.folding import fold

AWKWARD = [
    *"aZ9 -\n\t.'",
    *("ß", "İ", "ﬁ", "Ａ", "９", "²", "½", "①", "…", "\u201c", "\u2019", "\u2014", "\u2011"),
    *("\u00ad", "\u200b", "\ufeff", "\u200d", "\ufe0f", "\u00a0", "\u2028", "\r\n", "e\u0301"),
    *(
        "\u0301",
        "が",
        "ｶﾞ",
        "한",
        "\u1112",
        "\u1161",
        "न",
        "\u094d",
        "م",
        "👨",
        "👩",
        "🇩",
        "🇪",
        "日",
    ),
]
TEXTS = st.lists(st.sampled_from(AWKWARD), max_size=30).map("".join)
ANY_TEXT = TEXTS | st.text(max_size=30)
WORDS = st.text("abcdéüß", min_size=1, max_size=9)


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("The GUARAN-\n   tee", "the guarantee"),
        ("well-\nknown", "wellknown"),
        ("well-known", "wellknown"),
        ("COVID-\r\n19, 1990-\n95", "covid-19, 1990-95"),
        ("a -\nb", "a - b"),
        ("end-\n\nNew", "end- new"),
        ("a \t\n\n b\u00a0c", "a b c"),
        ("e\ufb03cient Ｆｕｌｌ ９", "efficient full 9"),
        ("\u201cIt\u2019s\u201d \u2026 \u22125", '"it\'s" ... -5'),
        ("guar\u00adantee\u200b \ufeffx", "guarantee x"),
        ("Cafe\u0301 STRASSE straße", "caf\u00e9 strasse strasse"),
        ("10² m², 1½ ① x₂", "10² m², 1½ ① x₂"),
        ("ｶﾞ ℃ Ⅷ", "ガ °c viii"),
        ("", ""),
        ("\u200b\u00ad", ""),
    ],
)
def test_what_reads_alike_is_alike(text: str, folded: str) -> None:
    assert fold(text).text == folded


@given(ANY_TEXT)
def test_folding_twice_is_folding_once(text: str) -> None:
    once = fold(text).text
    assert fold(once).text == once


@given(ANY_TEXT)
def test_the_way_back_is_ascending_divides_no_grapheme_and_skips_only_what_is_dropped(
    text: str,
) -> None:
    folded = fold(text)
    edges = grapheme_boundaries(text)
    assert len(folded.starts) == len(folded.ends) == len(folded.text)
    assert np.all(folded.starts < folded.ends)
    assert np.all(np.diff(folded.starts) >= 0)
    assert np.all(np.diff(folded.ends) >= 0)
    assert np.all(edges[folded.starts])
    assert np.all(edges[folded.ends])
    covered = np.zeros(len(text), dtype=bool)
    for start, end in zip(folded.starts.tolist(), folded.ends.tolist(), strict=True):
        covered[start:end] = True
    for at in np.flatnonzero(~covered).tolist():
        dropped = text[at]
        assert dropped.isspace() or dropped in "-\u2011\u2014" or fold(dropped).text in ("", "-")


@given(ANY_TEXT, st.data())
def test_ranges_go_there_and_back(text: str, data: st.DataObject) -> None:
    folded = fold(text)
    start = data.draw(st.integers(0, len(folded.text)))
    end = data.draw(st.integers(start, len(folded.text)))
    outer = folded.span(start, end)
    first, last = folded.folded_range(*outer)
    if start < end:
        assert first <= start < end <= last
        assert folded.span(first, last) == outer
    else:
        assert outer[0] == outer[1]


@given(ANY_TEXT, st.data())
def test_a_piece_between_words_folds_as_it_does_in_its_text(text: str, data: st.DataObject) -> None:
    edges = np.flatnonzero(word_boundaries(text)).tolist()
    words = [(a, b) for a, b in pairwise(edges) if text[a].isalnum() and text[b - 1].isalnum()]
    if not words:
        return
    start = data.draw(st.sampled_from(words))[0]
    end = data.draw(st.sampled_from([b for _, b in words if b > start]))
    folded = fold(text)
    first, last = folded.folded_range(start, end)
    assume(folded.span(first, last) == (start, end))  # no unseen character split off a mark
    assert fold(text[start:end]).text == folded.text[first:last]


@given(st.lists(WORDS, min_size=1, max_size=12), st.data())
def test_a_text_wrapped_at_any_width_folds_alike(words: list[str], data: st.DataObject) -> None:
    out = []
    for word in words:
        cut = data.draw(st.integers(0, len(word)))
        hyphen = data.draw(st.sampled_from(["-", "\u00ad", "\u2010"]))
        broken = 0 < cut < len(word) and word[cut].isalpha()
        out.append(
            f"{word[:cut]}{hyphen}\n  {word[cut:]}" if broken and hyphen != "\u00ad" else word
        )
    gaps = st.sampled_from([" ", "\n", "\r\n", "\n\n\t", "  "])
    wrapped = "".join(word + data.draw(gaps) for word in out)
    assert fold(wrapped).text == fold(" ".join(words) + " ").text


@given(ANY_TEXT, st.data())
def test_what_is_found_reads_like_the_needle(text: str, data: st.DataObject) -> None:
    folded = fold(text)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    needle = text[start:end]
    wanted = fold(needle).text.strip()
    for a, b in folded.find(needle):
        first, last = folded.folded_range(a, b)
        assert folded.text[first:last] == wanted
        assert text[a:b].strip()


def test_all_places_are_found_whatever_the_wording_of_the_break() -> None:
    text = "A guaran-\ntee. GUARANTEE! a well-known, well-\nknown guar\u00adantee"
    found = [text[a:b] for a, b in fold(text).find("guarantee")]
    assert found == ["guaran-\ntee", "GUARANTEE", "guar\u00adantee"]
    assert [text[a:b] for a, b in fold(text).find("Well\u2011known")] == [
        "well-known",
        "well-\nknown",
    ]
    assert list(fold(text).find(" \n ")) == []


def test_half_of_a_character_is_found_nowhere() -> None:
    assert list(fold("ﬁt, İ, e\u0301").find("i")) == []
    assert list(fold("e\u0301e").find("e")) == [(2, 3)]
    assert list(fold("fit").find("i")) == [(1, 2)]


@pytest.mark.parametrize("bad", [(-1, 0), (1, 0), (0, 4)])
def test_ranges_outside_are_refused(bad: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="3 characters"):
        fold("abc").span(*bad)
    with pytest.raises(ValueError, match="3 characters"):
        fold("abc").folded_range(*bad)


def test_hostile_repeats_are_no_trap() -> None:
    for text in (
        "-\n" * 50_000,
        " " * 100_000,
        "a-" * 50_000,
        "\u0301" * 50_000,
        "\u200b" * 50_000,
    ):
        fold(text)
    assert sum(1 for _ in fold("a" * 100_000).find("a" * 4000)) == 96_001
