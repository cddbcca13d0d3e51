"""Every place of a text in another, in linear time whatever repeats."""

from hypothesis import given
from hypothesis import strategies as st

from recallm_core.text.places import find_all


@given(st.text("ab ", min_size=1, max_size=6), st.text("ab ", max_size=40))
def test_all_places_equal_a_naive_scan(text: str, source: str) -> None:
    naive = [i for i in range(len(source)) if source.startswith(text, i)]
    assert list(find_all(text, source)) == naive


def test_all_places_of_hostile_repeats_are_found_in_linear_time() -> None:
    assert sum(1 for _ in find_all("a" * 5000, "a" * 400_000)) == 395_001
    unit = "a" * 2000 + "b"
    assert sum(1 for _ in find_all(unit * 2, unit * 200)) == 199
