"""The schema of a reply: within a provider's limits, and what it allows is what is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from recallm_core import SchemaLimits
from recallm_core.pointing.schema import MOST_POINTERS, MOST_STATEMENTS, reply_schema

KEYWORDS = {"minimum", "maximum", "minItems", "maxItems"}


def number(schema: dict[str, Any]) -> dict[str, Any]:
    statement = schema["properties"]["statements"]["items"]
    found: dict[str, Any] = statement["properties"]["sentences"]["items"]
    return found


def test_numbers_are_listed_as_long_as_a_provider_takes_them_then_a_range() -> None:
    limits = SchemaLimits.of("openai")
    assert number(reply_schema(1000, limits))["enum"] == list(range(1, 1001))
    assert number(reply_schema(1001, limits)) == {"type": "integer", "minimum": 1, "maximum": 1001}
    assert "enum" not in number(reply_schema(501, SchemaLimits.of("azure_openai_llm")))
    assert number(reply_schema(251, SchemaLimits())) == {"type": "integer"}
    assert number(reply_schema(1, SchemaLimits.of("google_genai")))["maximum"] == 1


@pytest.mark.parametrize(
    "provider", ["openai", "azure_openai_llm", "anthropic-chat", "ollama", "somebody"]
)
def test_the_schema_is_bounded_and_strict(provider: str) -> None:
    limits = SchemaLimits.of(provider)
    for count in (1, 250, 1000, 50_000):
        schema = reply_schema(count, limits)
        text = json.dumps(schema)
        assert len(text) < 15_000
        assert list(schema["properties"]) == schema["required"] == ["answered", "statements"]
        statement = schema["properties"]["statements"]["items"]
        assert list(statement["properties"]) == statement["required"] == ["sentences", "text"]
        assert schema["additionalProperties"] is statement["additionalProperties"] is False
    used = {key for key in KEYWORDS if f'"{key}"' in text}
    known = {
        "minimum": limits.ranges, "maximum": limits.ranges,
        "minItems": limits.least_items, "maxItems": limits.most_items,
    }  # fmt: skip
    assert used == {key for key, understood in known.items() if understood}


def test_an_unknown_provider_gets_the_keywords_that_all_know() -> None:
    text = json.dumps(reply_schema(3000, SchemaLimits.of("x")))
    assert not any(key in text for key in (*KEYWORDS, "enum"))
    assert str(MOST_STATEMENTS) in (full := json.dumps(reply_schema(3, SchemaLimits.of("openai"))))
    assert str(MOST_POINTERS) in full
    with pytest.raises(ValueError, match="must not be negative"):
        SchemaLimits(enum_values=-1)
