"""Nothing larger than the limit is made: what passes is measured before it exists."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.tokenization.template_meter import (
    Meter,
    TooMuchError,
    check_filter,
    check_method,
    check_operands,
)


def meter(most: int) -> Meter:
    small = Meter()
    small.most = most
    return small


@given(st.text(max_size=9), st.integers(-3, 60), st.integers(0, 120))
def test_a_repeated_text_that_passes_is_no_longer_than_the_limit(
    text: str, times: int, most: int
) -> None:
    try:
        check_operands(meter(most), "*", text, times)
    except TooMuchError:
        return
    assert len(text * times) <= most


@given(st.text("ab", max_size=20), st.text("ab", max_size=2), st.text(max_size=9))
def test_a_replaced_text_that_passes_is_no_longer_than_the_limit(
    text: str, old: str, new: str
) -> None:
    for check in (
        lambda: check_method(meter(60), text.replace, (old, new), {}),
        lambda: check_filter(meter(60), "replace", (text, old, new), {}),
    ):
        try:
            check()
        except TooMuchError:
            continue
        assert len(text.replace(old, new)) <= 60


@given(st.lists(st.text(max_size=5), max_size=9), st.text(max_size=5))
def test_a_joined_list_that_passes_is_no_longer_than_the_limit(
    texts: list[str], between: str
) -> None:
    try:
        check_filter(meter(50), "join", (texts, between), {})
    except TooMuchError:
        return
    assert len(between.join(texts)) <= 50


@pytest.mark.parametrize(
    ("sign", "first", "second"),
    [("**", 10, 65), ("**", 2**65, 2), ("%", "%99999d", 1), ("%", "%*d", 1), ("*", [0], 10**9)],
)
def test_what_would_grow_without_end_is_refused(sign: str, first: Any, second: Any) -> None:
    with pytest.raises(TooMuchError):
        check_operands(Meter(), sign, first, second)


def test_a_value_that_holds_itself_is_measured_to_the_limit() -> None:
    value: list[Any] = []
    value += [value, value]
    with pytest.raises(TooMuchError, match="nests more than"):
        Meter().size(value)
