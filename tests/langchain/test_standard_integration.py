"""LangChain's own integration suite, on a scripted model and on a tiny real checkpoint."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests

from langchain_recallm import ChatRecaLLM, message_citations
from recallm_core.prompting.recipe import Recipe, prompted_recipe
from recallm_core.testing import scripted_llm

ARGUMENTS = {
    "magic_function": {"input": 3},
    "magic_function_no_args": {},
    "greeting_generator": {"answer_style": "Pirate"},
    "my_adder_tool": {"a": 3, "b": 4},
    "get_weather": {"location": "San Francisco, CA"},
}
JOKE = {"setup": "Why do cats sit on laptops?", "punchline": "To keep an eye on the mouse."}


def _script(prompt: str) -> str:
    """Thinks, quotes the question's first word, and does what it is asked for.

    Calls the tool that it is shown, unless it has a result; gives a joke where JSON is wanted. What
    the constraint forbids of this is skipped, so text and calls only come where they may.
    """
    asked = prompt.rpartition("Question: ")[2]
    first = re.search(r"\w+", asked)
    quote = f"<|start_recall|>{first[0]}<|end_recall|>" if first else ""
    thought = f"The question is about {quote}.</think>"
    if "joke about cats" in asked:
        return thought + json.dumps(JOKE)
    shown = re.findall(r'"name": ?"(\w+)", ?"description"', prompt)
    if not shown or re.search(r"tool\n[^\n]*$", prompt):  # no tools, or a result stands last
        return thought + "Hello. Here is an answer in several words."
    arguments = ARGUMENTS.get(shown[0], {})
    if shown[0] == "unicode_customer":
        name = re.findall("'([^']+)'", asked)[0]
        arguments = {"customer_name": name, "description": "A company"}
    call = {"name": shown[0], "arguments": arguments}
    text = json.dumps(call, ensure_ascii=False)
    return f"{thought}<tool_call>\n{text}\n</tool_call>"


def _wordy_script(prompt: str) -> str:
    """The same by a model that opens no quote, as prompted ones don't."""
    return re.sub(r"<\|start_recall\|>.*?<\|end_recall\|>", "it", _script(prompt))


class _Suite(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatRecaLLM

    @property
    def supports_model_override(self) -> bool:
        return False  # a local model can't change its weights for one call

    @property
    def supported_usage_metadata_details(self) -> Any:
        return {"invoke": ["reasoning_output"], "stream": ["reasoning_output"]}

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        model = self.chat_model_class(**self.chat_model_params)
        if not stream:
            return model.invoke("What is the ferry's port?")
        chunks = list(model.stream("What is the ferry's port?"))
        merged = chunks[0]
        for chunk in chunks[1:]:
            merged += chunk
        return merged


class TestScripted(_Suite):
    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": scripted_llm(_script)}


class TestRequired(TestScripted):
    """A prompted model's default: a quote is forced into what it says, or stands before JSON."""

    recipe = Recipe(think_open="<think>", think_close="</think>")
    policy = "required"

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": scripted_llm(_wordy_script, recipe=self.recipe)}

    def test_answers_are_cited(self, model: Any) -> None:
        assert model.llm.recipe.policy == self.policy
        message = model.invoke("What is the ferry's port?")
        (citation,) = message_citations(message)
        assert citation["cited_text"] in "What is the ferry's port?"
        assert citation["extras"]["document_id"] == "message:0"


@pytest.mark.slow
class TestFirst(TestRequired):
    """The same with its evidence before the answer, whose words stand in marks."""

    recipe = prompted_recipe(think_open="<think>", think_close="</think>", prior="none")
    policy = "first"


@pytest.mark.slow
class TestTinyCheckpoint(_Suite):
    """What a random model says is chance, so tools and schemas are left to the scripted one."""

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False

    @pytest.fixture(autouse=True)
    def _checkpoint(self, tiny_checkpoint: Path) -> None:
        self.folder = tiny_checkpoint

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": str(self.folder), "max_tokens": 24, "max_thinking_tokens": 8, "seed": 1}
