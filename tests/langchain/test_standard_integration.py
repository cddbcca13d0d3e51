"""LangChain's own integration suite, on a scripted model and on a tiny real checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests

from langchain_recallm import ChatRecaLLM
from recallm_core.testing import scripted_llm


def _script(prompt: str) -> str:
    """Thinks, quotes the question's first word, and answers at some length."""
    asked = prompt.rpartition("Question: ")[2]
    first = re.search(r"\w+", asked)
    quote = f"<|start_recall|>{first[0]}<|end_recall|>" if first else ""
    return f"The question is about {quote}.</think>Hello. Here is an answer in several words."


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
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": scripted_llm(_script)}


@pytest.mark.slow
class TestTinyCheckpoint(_Suite):
    @pytest.fixture(autouse=True)
    def _checkpoint(self, tiny_checkpoint: Path) -> None:
        self.folder = tiny_checkpoint

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": str(self.folder), "max_tokens": 24, "max_thinking_tokens": 8, "seed": 1}
