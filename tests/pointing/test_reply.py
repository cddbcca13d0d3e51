"""The reader of replies: all that the schema allows and nothing else, however it is cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core import ReplyError
from recallm_core.pointing import reply as module
from recallm_core.pointing.reply import ReplyParser
from recallm_core.pointing.schema import MOST_POINTERS, MOST_STATEMENTS
from tests.pointing.conftest import TEXTS, reply

NUMBERS = st.lists(st.integers(1, 40), max_size=MOST_POINTERS)
STATEMENTS = st.lists(st.tuples(NUMBERS, TEXTS), max_size=4)


def parsed(text: str, count: int = 40, **options: Any) -> ReplyParser:
    parser = ReplyParser(count, **options)
    parser.feed(text)
    return parser


def read(parser: ReplyParser) -> list[tuple[Any, str]]:
    return [(statement.pointers, statement.text) for statement in parser.statements]


@given(STATEMENTS, st.booleans(), st.booleans(), st.none() | st.integers(0, 3), st.data())
def test_what_is_written_is_read_in_pieces_of_any_size(
    statements: Any, answered: bool, ascii_only: bool, indent: int | None, data: st.DataObject
) -> None:
    written = json.loads(reply(*statements, answered=answered))
    text = json.dumps(written, ensure_ascii=ascii_only, indent=indent)
    if data.draw(st.booleans()):
        text = f" <think>\n{text} </think </think>\n{text}"
    elif data.draw(st.booleans()):
        text = f"```json\n{text}\n```\n"
    parser = ReplyParser(40)
    while text:
        size = data.draw(st.integers(1, len(text)))
        parser.feed(text[:size])
        text = text[size:]
    assert parser.over
    assert parser.answered is answered
    assert read(parser) == [(tuple(dict.fromkeys(ns)), words) for ns, words in statements]


@given(st.lists(st.tuples(NUMBERS, TEXTS), min_size=1, max_size=3), st.data())
def test_a_reply_that_breaks_off_is_read_as_far_as_it_goes(
    statements: Any, data: st.DataObject
) -> None:
    text = reply(*statements)
    parser = parsed(text[: data.draw(st.integers(0, len(text) - 1))])
    assert not parser.over
    for (pointers, words), (numbers, whole) in zip(read(parser), statements, strict=False):
        assert pointers in (None, tuple(dict.fromkeys(numbers)))
        assert whole.startswith(words)


@given(st.text(alphabet='{}[]":,answeredstatementssentencestext0123456789 \\\n`', max_size=60))
def test_what_is_no_json_of_the_schema_is_refused_as_json_reads_it(text: str) -> None:
    try:
        parser = parsed(text)
    except ReplyError:
        return
    if parser.over and "`" not in text:
        value = json.loads(text)
        assert set(value) == {"answered", "statements"}


@pytest.mark.parametrize(
    "text",
    [
        "The ferry leaves at 9:30.",
        "[]",
        "null",
        '{"answered": null, "statements": []}',
        '{"answered": 1, "statements": []}',
        '{"answered": true, "statements": [,]}',
        '{"answered": true, "statements": [{"sentences": [1,], "text": ""}]}',
        '{"answered": true, "answered": true, "statements": []}',
        '{"answered": true, "statements": [], "more": 1}',
        '{"answered": true, "statements": []} and more',
        '{"answered": true, "statements": [{"sentences": ["1"], "text": "x"}]}',
        '{"answered": true, "statements": [{"sentences": [1.0], "text": "x"}]}',
        '{"answered": true, "statements": [{"sentences": [01], "text": "x"}]}',
        '{"answered": true, "statements": [{"sentences": [0], "text": "x"}]}',
        '{"answered": true, "statements": [{"sentences": [-1], "text": "x"}]}',
        '{"answered": true, "statements": [{"sentences": [41], "text": "x"}]}',
        '{"answered": true, "statements": [{"sentences": [9' + "9" * 5000 + '], "text": "x"}]}',
        '{"answered": true, "statements": [{"sentences": [\u0661], "text": "x"}]}',
        '{"answered": true, "statements": [{"sentences": 1, "text": "x"}]}',
        '{"answered": true, "statements": [{"text": "x"}]}',
        '{"answered": true, "statements": [{"sentences": [], "text": "\n"}]}',
        '{"answered": true, "statements": [{"sentences": [], "text": "\\x"}]}',
        '{"answered": true, "statements": [{"sentences": [], "text": "\\ud83d"}]}',
        '{"answered": true, "statements": [{"sentences": [], "text": "\\ude00\\ud83d"}]}',
        '{"answered": true, "statements": [{"sentences": [], "text": "\\ud83d\\u0041"}]}',
        '{"answered": true, "statements": [{"sentences": [], "text": "\ud83d"}]}',
        "{" * 5000,
        '{"answered":' + "[" * 5000,
        "``\n{}",
        "<thought>x</thought>",
        "<think></think>x",
        "```json\n" + reply() + "\n``x",
        reply(*[((), "x")] * (MOST_STATEMENTS + 1)),
        reply((range(1, MOST_POINTERS + 2), "x")),
    ],
)
def test_anything_else_is_an_error_that_says_what_was_expected(text: str) -> None:
    with pytest.raises(ReplyError, match=r"isn't the JSON .*: expected .*, got .* as character"):
        parsed(text)


def test_where_it_may_a_wrong_number_takes_the_others_of_its_statement_along() -> None:
    text = reply(((1, 41), "a"), ((0,), "b"), ((2,), "c"), ((10**17,), "d"))
    assert read(parsed(text, strict=False)) == [((), "a"), ((), "b"), ((2,), "c"), ((), "d")]


def test_a_reply_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CHARACTERS", 1000)
    with pytest.raises(ReplyError, match="at most 1,000 characters"):
        parsed(reply(((1,), "x" * 1000)))
