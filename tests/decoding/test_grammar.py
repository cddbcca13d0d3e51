"""Whatever is generated under a grammar is JSON that fits its schema."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.decoding.grammar import (
    GrammarEngine,
    GrammarMatcher,
    ToolSpec,
    calls_grammar,
    schema_grammar,
    tool_spec,
)
from recallm_core.errors import ConstraintError
from recallm_core.testing import ByteTokenizer

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 4},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "role": {"enum": ["owner", "guest"]},
    },
    "required": ["name", "age", "role"],
}
TOOLS = [
    ToolSpec(
        "search",
        "finds",
        {
            "type": "object",
            "properties": {"query": {"type": "string", "maxLength": 3}, "k": {"enum": [1, 5]}},
            "required": ["query", "k"],
        },
    ),
    ToolSpec("stop"),
]


@pytest.fixture(scope="module")
def engine() -> GrammarEngine:
    tokenizer = ByteTokenizer()
    return GrammarEngine(tokenizer, vocab_size=tokenizer.vocab_size + 10)


def walk(matcher: GrammarMatcher, data: st.DataObject, limit: int = 400) -> bytes:
    out = bytearray()
    while len(out) < limit:
        allowed = matcher.allowed_tokens()
        if not allowed.size:
            break
        token = data.draw(st.sampled_from(allowed.tolist()))
        matcher.consume_token(token)
        out.append(token)
    return bytes(out)


@given(data=st.data())
def test_any_legal_walk_fits_the_schema(engine: GrammarEngine, data: st.DataObject) -> None:
    matcher = engine.matcher(schema_grammar(PERSON))
    text = walk(matcher, data).decode()
    assert matcher.accepts
    value = json.loads(text)
    assert set(value) == {"name", "age", "role"}
    assert len(value["name"]) <= 4
    assert 0 <= value["age"] <= 150
    assert value["role"] in ("owner", "guest")


@given(data=st.data())
def test_any_legal_walk_is_a_call_of_a_given_tool(
    engine: GrammarEngine, data: st.DataObject
) -> None:
    matcher = engine.matcher(calls_grammar(TOOLS))
    call = json.loads(walk(matcher, data))
    assert matcher.accepts
    assert set(call) == {"name", "arguments"}
    if call["name"] == "stop":
        assert call["arguments"] == {}
    else:
        assert call["name"] == "search"
        assert set(call["arguments"]) == {"query", "k"}
        assert call["arguments"]["k"] in (1, 5)


@given(data=st.data())
def test_a_copy_goes_its_own_way(engine: GrammarEngine, data: st.DataObject) -> None:
    matcher = engine.matcher(schema_grammar(PERSON))
    for token in b'{"name": "':
        matcher.consume_token(token)
    twin = matcher.copy()
    before = twin.allowed_tokens().tolist()
    walk(matcher, data)
    assert twin.allowed_tokens().tolist() == before


def test_a_wrong_token_raises_and_changes_nothing(engine: GrammarEngine) -> None:
    matcher = engine.matcher(schema_grammar(PERSON))
    before = matcher.allowed_tokens().tolist()
    with pytest.raises(ConstraintError, match="doesn't continue"):
        matcher.consume_token(ord("x"))
    assert matcher.allowed_tokens().tolist() == before == [ord("{")]


def test_any_json(engine: GrammarEngine) -> None:
    matcher = engine.matcher(schema_grammar({}))
    for token in b'{"a": [1, null]}':
        matcher.consume_token(token)
    assert matcher.accepts


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"type": "string", "pattern": "("}])
def test_schemas_that_cannot_be_enforced_are_named(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="response schema can't be enforced"):
        schema_grammar(schema)


def test_tools_are_read_in_both_forms_and_checked() -> None:
    bare = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
    assert tool_spec({"type": "function", "function": bare}) == tool_spec(bare)
    assert tool_spec(TOOLS[0]) is TOOLS[0]
    assert tool_spec(bare).to_function()["function"]["name"] == "f"
    for bad in (
        {"name": ""},
        {"description": "x"},
        "f",
        {"name": "f", "parameters": {"type": "string"}},
    ):
        with pytest.raises(ValueError, match=r"tool"):
            tool_spec(bad)
    with pytest.raises(ValueError, match="must be unique"):
        calls_grammar([TOOLS[1], TOOLS[1]])
    with pytest.raises(ValueError, match="no tools"):
        calls_grammar([])


def test_lossy_tokenizers_are_refused() -> None:
    class Lossy(ByteTokenizer):
        def token_bytes(self, token: int) -> bytes | None:
            return None

    with pytest.raises(ConstraintError, match="known as bytes"):
        GrammarEngine(Lossy(), vocab_size=300)


def test_a_grammar_is_compiled_once_whoever_asks(
    engine: GrammarEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import llguidance

    made: list[str] = []
    true = llguidance.LLMatcher

    def counted(tokenizer: Any, grammar: str, **options: Any) -> Any:
        made.append(grammar)
        return true(tokenizer, grammar, **options)

    monkeypatch.setattr(llguidance, "LLMatcher", counted)
    grammar = 'start: "compiled once"'
    with ThreadPoolExecutor(4) as threads:
        matchers = list(threads.map(lambda _: engine.matcher(grammar), range(8)))
    assert made == [grammar]
    matchers[0].consume_token(ord("c"))
    for matcher in matchers[1:]:  # each stands where it stood
        assert matcher.allowed_tokens().tolist() == [ord("c")]
