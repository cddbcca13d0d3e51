"""Tools and schemas of a call, from LangChain's many forms to the core's one; calls back out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import InvalidToolCall, ToolCall
from langchain_core.messages.tool import invalid_tool_call, tool_call
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool

from recallm_core import Answer

OPTIONS = ("tools", "tool_choice", "parallel_tool_calls", "response_format")

_CHOICES = {"any": "required", "required": "required", "auto": "auto", "none": "none"}
_NAMED = re.compile(r'"name"\s*:\s*"([^"\\]+)"')


def to_core(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the core's arguments for the tools and the schema of a call.

    Raises:
        ValueError: A choice, tool or schema isn't of a known form.
    """
    tools = [convert_to_openai_tool(tool) for tool in options.get("tools") or ()]
    out: dict[str, Any] = {}
    if tools:
        out["tools"] = tools
        out["parallel_tool_calls"] = options.get("parallel_tool_calls") is not False
        named = choice(options.get("tool_choice"))
        if named is not None:
            out["tool_choice"] = named
    schema = response_schema(options.get("response_format"))
    if schema is not None:
        out["response_schema"] = schema
    return out


def choice(value: Any) -> str | None:
    """Returns a ``tool_choice`` of any provider as ``auto``, ``required``, ``none`` or a name.

    Raises:
        ValueError: It is none of the known forms.
    """
    if value is None or value is False:
        return None
    if value is True:
        return "required"
    if isinstance(value, str):
        return _CHOICES.get(value, value)
    if isinstance(value, Mapping):
        name = value.get("function", value).get("name")
        if isinstance(name, str):
            return name
        if value.get("type") in _CHOICES:
            return _CHOICES[value["type"]]
    raise ValueError(
        f"tool_choice must be 'any', 'auto', 'none', a tool's name or True, got {value!r}"
    )


def response_schema(response_format: Any) -> Any:
    """Returns the JSON schema that a ``response_format`` asks for; None: free text.

    Raises:
        ValueError: It is none of the known forms.
    """
    if response_format is None:
        return None
    if not isinstance(response_format, Mapping):
        return convert_to_json_schema(response_format)
    kind = response_format.get("type")
    if kind == "text":
        return None
    if kind == "json_object" and "properties" not in response_format:
        return {"type": "object"}
    if kind == "json_schema":
        described = response_format.get("json_schema", response_format)
        schema = described.get("schema") if isinstance(described, Mapping) else None
        if not isinstance(schema, Mapping):
            raise ValueError(f"response_format has no schema: {str(response_format)[:200]}")
        return schema
    return convert_to_json_schema(dict(response_format))


def calls_of(answer: Answer) -> list[ToolCall]:
    """Returns the complete calls of an answer."""
    return [
        tool_call(name=call.name, args=dict(call.arguments), id=call.id)
        for call in answer.tool_calls
    ]


def cut_chunk(answer: Answer) -> dict[str, Any] | None:
    """Returns the call that the output was cut off in, as a chunk that no parser repairs."""
    text = answer.cut_call
    if text is None:
        return None
    match = _NAMED.search(text)
    return {
        "name": match[1] if match else None,
        "args": json.dumps(text, ensure_ascii=False),
        "id": None,
        "index": len(answer.tool_calls),
        "type": "tool_call_chunk",
    }


def invalid_of(answer: Answer) -> list[InvalidToolCall]:
    """Returns the call that the output was cut off in, if there is one."""
    chunk = cut_chunk(answer)
    if chunk is None:
        return []
    return [invalid_tool_call(name=chunk["name"], args=chunk["args"], id=None, error=None)]
