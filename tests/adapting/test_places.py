"""Places are proven by slicing, never believed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from recallm_core.adapting import is_at, nearest, occurrences, proven_place, stable_id

texts = st.text(alphabet="ab ", max_size=12)


@given(texts, st.text(alphabet="ab ", min_size=1, max_size=3))
def test_occurrences_are_all_there_are(original: str, text: str) -> None:
    places = [at for at in range(len(original)) if original.startswith(text, at)]
    assert list(occurrences(text, original)) == places
    assert list(occurrences(text, original, 2)) == places[:2]


@given(texts, texts, st.none() | st.integers(-3, 15))
def test_a_proven_place_holds_the_text(original: str, text: str, claimed: int | None) -> None:
    place = proven_place(text, original, claimed)
    if place is None:
        assert original.count(text) != 1 or len(list(occurrences(text, original))) > 1
    else:
        assert original[place : place + len(text)] == text
        assert place == claimed or original.find(text, place + 1) < 0
    if is_at(text, original, claimed):
        assert place == claimed


@given(
    original=st.text("ab", max_size=30),
    text=st.text("ab", min_size=1, max_size=4),
    expected=st.none() | st.integers(0, 40),
    low=st.integers(0, 20),
    size=st.none() | st.integers(1, 20),
)
def test_the_nearest_occurrence_is_the_one_that_looking_at_all_finds(
    original: str, text: str, expected: int | None, low: int, size: int | None
) -> None:
    high = None if size is None else low + size
    places = [at for at in occurrences(text, original) if low <= at < (high or len(original) + 1)]
    wanted = low if expected is None else expected
    best = min(places, key=lambda at: (abs(at - wanted), at), default=None)
    assert nearest(text, original, expected, low=low, high=high) == best


def test_ids_follow_from_their_parts() -> None:
    one = stable_id("packed", "a", 0, 5)
    assert one == stable_id("packed", "a", 0, 5)
    assert one.startswith("packed-")
    assert len({one, stable_id("packed", "a", 0, 6), stable_id("cite", "a", 0, 5)}) == 3
    assert len(stable_id("cite", 1, size=6)) == len("cite-") + 12
