from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core.answers.answer import Answer, Usage
from recallm_core.answers.trace import ToolCall, Trace
from recallm_core.rendering import to_dict, to_json, visible


@settings(max_examples=30)
@given(st.data())
def test_json_gives_back_exactly_the_same_and_acts_on_no_terminal(
    hostile_answers: st.SearchStrategy[Answer], data: st.DataObject
) -> None:
    answer = data.draw(hostile_answers)
    plain = answer.to_dict()
    for ascii_only in (False, True):
        text = to_json(plain, ascii_only=ascii_only)
        assert json.loads(text) == plain
        assert text == visible(text)
        assert text.isascii() or not ascii_only
    for citation, entry in zip(answer.citations, plain["citations"], strict=True):
        source = answer.sources[citation.document_id].text
        assert source[entry["start"] : entry["end"]] == entry["text"]


def test_keys_are_stable() -> None:
    answer = Answer(
        "",
        (),
        False,
        Trace(),
        Usage(),
        "tool_calls",
        tool_calls=(ToolCall("look", {"a": ({"b": [1, None, 0.5]},)}, "id"),),
    )
    plain = to_dict(answer)
    assert list(plain) == [
        *("schema", "question", "model", "text", "abstained", "support"),
        *("finish_reason", "citations", "nearest"),
        *("tool_calls", "usage", "trace", "sources"),
    ]
    assert plain["tool_calls"] == [
        {"name": "look", "arguments": {"a": [{"b": [1, None, 0.5]}]}, "id": "id"}
    ]
