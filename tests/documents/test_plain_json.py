"""What counts as plain JSON can be written and read back; nothing else counts."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.documents.plain_json import check_json
from recallm_core.errors import DocumentError

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(values)
def test_what_passes_comes_back_from_json(value: Any) -> None:
    try:
        check_json(value, "a value")
    except ValueError:
        assert "Infinity" in json.dumps(value)
        return
    assert json.loads(json.dumps(value, allow_nan=False)) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, b"bytes", {1, 2}, object()])
def test_what_json_has_no_word_for_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="a value must be plain JSON"):
        check_json({"key": [value]}, "a value")


def test_what_is_nested_too_deeply_is_refused() -> None:
    value: list[Any] = []
    for _ in range(100):
        value = [value]
    with pytest.raises(ValueError, match="at most 64 levels"):
        check_json(value, "a value")


@pytest.mark.parametrize("value", ["\ud800", {"\ud800": 1}])
def test_a_lone_surrogate_is_refused(value: Any) -> None:
    with pytest.raises(DocumentError, match="lone surrogate"):
        check_json(value, "a value")


def test_a_number_that_python_would_not_write_is_refused() -> None:
    check_json(10**3900, "a value")
    with pytest.raises(ValueError, match="got one int"):
        check_json(10**5000, "a value")
