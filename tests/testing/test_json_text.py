"""JSON that a script says means the same however it is written."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.testing.json_text import QuotedJson, plainly

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values, st.booleans())
def test_the_meaning_stays_and_every_byte_has_an_origin(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    plain, origin = plainly(text)
    assert json.loads(plain) == value
    assert len(origin) == len(plain) + 1
    assert origin == sorted(origin)
    assert origin[-1] == len(text)
    assert b"\x7f" not in plain


@given(st.text(), st.integers(0, 40))
def test_the_state_after_a_text_is_the_one_after_its_parts(text: str, cut: int) -> None:
    data = json.dumps([text]).encode()
    assert (
        QuotedJson().after(data) == QuotedJson().after(data[:cut]).after(data[cut:]) == QuotedJson()
    )


@pytest.mark.parametrize(
    ("token", "size"),
    [(b'{"a"', 5), (b'{ "a" ', 5), (b'{"a": ', 6), (b'{"b', None), (b" ", 0), (b'{" ', None)],
)
def test_a_token_may_differ_by_white_space_outside_strings_only(
    token: bytes, size: int | None
) -> None:
    assert QuotedJson().matched_length(token, b'{ "a":1}') == size
