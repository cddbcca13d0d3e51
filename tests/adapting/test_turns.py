"""Turns of the core know which characters are whose message."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.adapting import (
    NO_RESULTS,
    Turn,
    call_text,
    decoded_text,
    found_nothing,
    result_heading,
    turn_of,
    with_system,
)

messages = st.lists(st.tuples(st.text(max_size=12), st.text(max_size=6)), min_size=1, max_size=5)


def turn_with(texts: list[tuple[str, str]]) -> Turn:
    turn = Turn("user")
    for number, (text, heading) in enumerate(texts):
        turn.add(number, text, heading)
    return turn


@given(messages)
def test_each_message_stands_where_its_turn_says(texts: list[tuple[str, str]]) -> None:
    turn = turn_with(texts)
    assert [turn.text[start:end] for _, start, end in turn.parts] == [text for text, _ in texts]


@given(messages, st.data())
def test_a_range_of_a_turn_is_ranges_of_its_messages(
    texts: list[tuple[str, str]], data: st.DataObject
) -> None:
    turn = turn_with(texts)
    start = data.draw(st.integers(0, len(turn.text)))
    end = data.draw(st.integers(start, len(turn.text)))
    quote = turn.text[start:end]
    covered = 0
    for piece in turn.ranges(start, end):
        words = texts[piece.message][0][piece.start : piece.end]
        assert words
        assert quote[piece.offset : piece.offset + len(words)] == words
        covered += len(words)
    inside = sum(max(0, min(end, last) - max(start, first)) for _, first, last in turn.parts)
    assert covered == inside


def test_neighbours_of_a_role_are_joined_and_the_system_comes_first() -> None:
    turns: list[Turn] = []
    for number, (role, text) in enumerate([("user", "a"), ("user", "b"), ("assistant", "c")]):
        turn_of(turns, role).add(number, text)
    assert [turn.to_core() for turn in turns] == [
        {"role": "user", "content": "a\n\nb"},
        {"role": "assistant", "content": "c"},
    ]
    system = Turn("system")
    assert with_system(system, turns) == turns
    system.add(0, "Be brief.")
    assert with_system(system, turns)[0] is system


def test_calls_go_to_templates_as_they_are_and_into_words_as_json() -> None:
    calls = [{"function": {"name": "add", "arguments": {"a": 1}}}]
    assert Turn("assistant", calls=calls).to_core()["tool_calls"] == calls
    text = call_text("add", {"a": "é"})
    assert json.loads(text.removeprefix("<tool_call>").removesuffix("</tool_call>")) == {
        "name": "add",
        "arguments": {"a": "é"},
    }
    assert (result_heading("add"), result_heading(None)) == ("Result of add:\n", "Result:\n")


@pytest.mark.parametrize(
    ("results", "signs", "nothing"),
    [
        ([], NO_RESULTS, False),
        ([" \n", "[]"], NO_RESULTS, True),
        (["", "a ferry"], NO_RESULTS, False),
        (["Empty Response"], NO_RESULTS, False),
        (["Empty Response"], (*NO_RESULTS, "Empty Response"), True),
    ],
)
def test_tools_that_found_nothing(
    results: list[str], signs: tuple[str, ...], nothing: bool
) -> None:
    assert found_nothing(results, signs) is nothing


def test_text_in_base64_is_read_and_anything_else_refused() -> None:
    assert decoded_text(base64.b64encode("é".encode()), "a block") == "é"
    for data in (base64.b64encode(b"\xff"), "no base64!", "é"):
        with pytest.raises(ValueError, match="message 2 has a block that isn't UTF-8 text"):
            decoded_text(data, "message 2 has a block")
