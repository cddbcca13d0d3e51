"""Structured output: a schema that decoding enforces, and the parser that belongs to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from operator import itemgetter
from typing import Any, Literal

from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import (
    JsonOutputKeyToolsParser,
    PydanticToolsParser,
)
from langchain_core.runnables import Runnable, RunnableGenerator, RunnablePassthrough
from langchain_core.runnables.utils import AddableDict
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass

Method = Literal["json_schema", "function_calling", "json_mode"]


def structured_model(
    model: BaseChatModel, schema: Any, *, method: Method, include_raw: bool, options: dict[str, Any]
) -> Runnable[Any, Any]:
    """Returns a model whose answers are values of a schema.

    Raises:
        ValueError: The method is unknown, or there is no schema and it needs one.
    """
    if method not in ("json_schema", "function_calling", "json_mode"):
        raise ValueError(
            f"method must be json_schema, function_calling or json_mode, got {method!r}"
        )
    if schema is None and method != "json_mode":
        raise ValueError(f"method {method!r} needs a schema")
    if method == "function_calling":
        asking, parser = _by_call(model, schema, options)
    else:
        asking, parser = _by_format(model, schema, method, options)
    if not include_raw:
        return asking | parser
    parsed = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    safely = parsed.with_fallbacks([failed], exception_key="parsing_error")
    # the model comes first in the sequence, so that it gets the call's own settings and documents
    return asking | RunnableGenerator(_raw, _araw, name="raw") | safely


def _raw(messages: Iterator[Any]) -> Iterator[dict[str, Any]]:
    for message in messages:
        yield AddableDict(raw=message)


async def _araw(messages: AsyncIterator[Any]) -> AsyncIterator[dict[str, Any]]:
    async for message in messages:
        yield AddableDict(raw=message)


def _is_class(schema: Any) -> bool:
    return isinstance(schema, type) and is_basemodel_subclass(schema)


def _by_call(
    model: BaseChatModel, schema: Any, options: dict[str, Any]
) -> tuple[Runnable[Any, Any], Runnable[Any, Any]]:
    """By a tool that has to be called."""
    name = convert_to_openai_tool(schema)["function"]["name"]
    traced = {"kwargs": {"method": "function_calling"}, "schema": schema}
    asking = model.bind_tools(
        [schema],
        tool_choice=name,
        parallel_tool_calls=False,
        ls_structured_output_format=traced,
        **options,
    )
    if _is_class(schema):
        return asking, PydanticToolsParser(tools=[schema], first_tool_only=True)
    return asking, JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)


def _by_format(
    model: BaseChatModel, schema: Any, method: Method, options: dict[str, Any]
) -> tuple[Runnable[Any, Any], Runnable[Any, Any]]:
    """By an answer that has to be JSON, of the schema or of any."""
    response_format: dict[str, Any] = {"type": "json_object"}
    if schema is not None:
        # json_mode promises JSON only; with a schema at hand there is no reason not to enforce it.
        json_schema = convert_to_json_schema(schema)
        response_format = {
            "type": "json_schema",
            "json_schema": {"name": json_schema.get("title", "answer"), "schema": json_schema},
        }
        traced = {"kwargs": {"method": method}, "schema": schema}
        options = {**options, "ls_structured_output_format": traced}
    asking = model.bind(response_format=response_format, **options)
    if _is_class(schema):
        return asking, PydanticOutputParser(pydantic_object=schema)
    return asking, JsonOutputParser()
