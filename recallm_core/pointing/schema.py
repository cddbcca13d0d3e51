"""The JSON schema of a reply that points, within what a provider's schemas may hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recallm_core.inputs.arguments import shown, whole_number

MOST_STATEMENTS = 64
MOST_POINTERS = 16  # sentences that one statement rests on


@dataclass(frozen=True, slots=True)
class SchemaLimits:
    """What the schemas of a provider may hold. What a schema can't say is checked in the reply.

    Attributes:
        enum_values: Numbers that may be listed one by one; where there are more sentences, their
            number is an integer within a range.
        ranges: Whether ``minimum`` and ``maximum`` are understood.
        least_items: Whether ``minItems`` of 1 is.
        most_items: Whether ``maxItems`` is.
    """

    enum_values: int = 250
    ranges: bool = False
    least_items: bool = False
    most_items: bool = False

    def __post_init__(self) -> None:
        whole_number("enum_values", self.enum_values)

    @classmethod
    def of(cls, provider: str) -> SchemaLimits:
        """Returns the limits of a provider, by the name that frameworks have for it.

        A provider that isn't known gets the keywords that every one knows.

        Raises:
            TypeError: It is no name.
        """
        if not isinstance(provider, str):
            raise TypeError(f"a provider is named by a str such as 'openai', got {shown(provider)}")
        name = provider.casefold()
        return next((limits for part, limits in _KNOWN.items() if part in name), cls())


_ALL = SchemaLimits(enum_values=1_000, ranges=True, least_items=True, most_items=True)
_COMPACT = SchemaLimits(enum_values=0, ranges=True, least_items=True, most_items=True)
_KNOWN = {
    "azure": SchemaLimits(enum_values=500),  # refuses ranges and counts
    "openai": _ALL,  # 1,000 enum values in a schema
    "anthropic": SchemaLimits(enum_values=250, least_items=True),  # refuses ranges; minItems 0 or 1
    "google": _COMPACT,  # enums of strings only
    "gemini": _COMPACT,
    "vertex": _COMPACT,
    "ollama": _ALL,
    "llama": _ALL,  # some converters to grammars pass over ranges, none over lists
}


def reply_schema(count: int, limits: SchemaLimits) -> dict[str, Any]:
    """Returns the schema of a reply about so many sentences.

    An object with ``answered``, then ``statements``: each the numbers of the sentences that it
    rests on, then its words. Every field is required and nothing else may be there, as strict modes
    want it. The evidence comes first, so that words can be shown while they are written.

    Raises:
        TypeError: The limits are none.
    """
    if not isinstance(limits, SchemaLimits):
        raise TypeError(
            f"limits must be SchemaLimits, got {shown(limits)}; a provider's are "
            "SchemaLimits.of('openai')"
        )
    pointers = _array(_number(count, limits), MOST_POINTERS, limits)
    pointers["description"] = "The numbers of the sentences that this statement rests on."
    text = {"type": "string", "description": "The statement, in your own words."}
    statement = _object({"sentences": pointers, "text": text})
    answered = {
        "type": "boolean",
        "description": "Whether the documents hold an answer.",
    }
    statements = _array(statement, MOST_STATEMENTS, limits)
    statements["description"] = "The answer, in order; where there is none, what comes nearest."
    return {
        "title": "pointed_answer",
        "description": "An answer whose statements name the numbered sentences that they rest on.",
        **_object({"answered": answered, "statements": statements}),
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _array(items: dict[str, Any], max_items: int, limits: SchemaLimits) -> dict[str, Any]:
    minimum = {"minItems": 1} if limits.least_items else {}
    return {
        "type": "array",
        "items": items,
        **minimum,
        **({"maxItems": max_items} if limits.most_items else {}),
    }


def _number(count: int, limits: SchemaLimits) -> dict[str, Any]:
    """A sentence's number: one of a list where that may be as long, else in a range."""
    number: dict[str, Any] = {"type": "integer"}
    if count <= limits.enum_values:
        return {**number, "enum": list(range(1, count + 1))}
    return {**number, "minimum": 1, "maximum": count} if limits.ranges else number
