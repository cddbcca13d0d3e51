"""LangChain's own suites on what ``cited`` returns, around a model that points."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableLambda
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_recallm.cited_model import CitedChatModel
from tests.langchain.test_standard_integration import ARGUMENTS

USAGE: Any = {"input_tokens": 30, "output_tokens": 9, "total_tokens": 39}
REPLY = json.dumps(
    {
        "answered": True,
        "statements": [{"sentences": [1], "text": "Hello. Here is an answer in several words."}],
    }
)


class Pointer(BaseChatModel):
    """Points at the first sentence; calls the first tool that it has no result of yet."""

    @property
    def _llm_type(self) -> str:
        return "pointer"

    def with_structured_output(self, schema: Any, **options: Any) -> Any:
        return self.bind(response_format=schema) | RunnableLambda(str)

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self.bind(tools=tools, **options)

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any):
        message = self._said(messages, options)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _said(self, messages: Any, options: Any) -> AIMessage:
        metadata = {"model_name": "pointer-1", "finish_reason": "stop"}
        more: Any = {"usage_metadata": USAGE, "response_metadata": metadata}
        if "tools" not in options or any(message.type == "tool" for message in messages):
            return AIMessage(REPLY, **more)
        name = options["tools"][0]["function"]["name"]
        arguments = ARGUMENTS.get(name, {})
        if name == "unicode_customer":
            customer = re.findall("'([^']+)'", messages[-1].text)[0]
            arguments = {"customer_name": customer, "description": "A company"}
        return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": "1"}], **more)

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any
    ) -> Iterator[ChatGenerationChunk]:
        message = self._said(messages, options)
        for at in range(0, len(message.text), 7):
            yield ChatGenerationChunk(message=AIMessageChunk(message.text[at : at + 7]))
        last = AIMessageChunk("", usage_metadata=USAGE, response_metadata=message.response_metadata)
        yield ChatGenerationChunk(message=last)


class OfCited:
    """What both suites are told of the model."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return CitedChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"chat_model": Pointer()}

    @property
    def has_structured_output(self) -> bool:
        return False  # refused, with what to do instead: citations would be lost


class TestUnit(OfCited, ChatModelUnitTests):
    pass


class TestIntegration(OfCited, ChatModelIntegrationTests):
    @property
    def supports_model_override(self) -> bool:
        return False  # it is the inner model's to do


@pytest.mark.parametrize("method", ["json_mode", "json_schema", "function_calling"])
def test_objects_are_refused_with_what_to_do(method: str) -> None:
    with pytest.raises(NotImplementedError, match="ask the model itself for the object"):
        CitedChatModel(chat_model=Pointer()).with_structured_output(dict, method=method)
