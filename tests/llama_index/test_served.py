"""The LLM over a server is the LLM over a model in process."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.llms import ChatMessage, CitableBlock, CitationBlock, TextBlock
from pydantic import BaseModel

from llama_index_recallm import RecaLLM
from recallm_core.errors import ServerError

TEXT = "The ferry leaves Port Hallow at 9:30. A ticket costs 14 euros."
SCRIPT = (
    "<|start_recall|>The ferry leaves Port Hallow at 9:30<|end_recall|></think>"
    "At <|start_recall|>9:30<|end_recall|>."
)


def question() -> list[ChatMessage]:
    source = CitableBlock(title="Ferry", source="ferry.txt", content=[TextBlock(text=TEXT)])
    return [ChatMessage(role="user", blocks=[source, TextBlock(text="When does it leave?")])]


def check(response: Any) -> None:
    blocks = [b for b in response.message.blocks if isinstance(b, CitationBlock)]
    assert blocks
    for block in blocks:
        place = block.additional_location_info
        quote = TEXT[place["start_char_idx"] : place["end_char_idx"]]
        assert block.cited_content.text == quote


async def test_every_way_to_ask(fake_server: Any) -> None:
    server = fake_server(SCRIPT, key="a-long-secret-key")
    llm = RecaLLM(model=server.url, api_key="a-long-secret-key", timeout=30, max_retries=1)
    assert "secret" not in repr(llm) + llm.to_json()
    found = [llm.chat(question()), await llm.achat(question())]
    found.append(list(llm.stream_chat(question()))[-1])
    found.append([r async for r in await llm.astream_chat(question())][-1])
    for response in found:
        check(response)
        assert response.message.content == "At 9:30."
    assert llm.metadata.context_window == 16_384
    llm.engine.close()


def test_structured_output(fake_server: Any) -> None:
    class Ferry(BaseModel):
        time: str

    server = fake_server('</think>{"time": "9:30"}', name="org/model")
    llm = RecaLLM(model="org/model", base_url=server.url)
    found = llm.structured_predict(Ferry, PromptTemplate("When? " + TEXT))
    assert found == Ferry(time="9:30")
    llm.engine.close()


def test_a_server_that_is_gone(fake_server: Any) -> None:
    server = fake_server(SCRIPT)
    llm = RecaLLM(model=server.url, max_retries=0)
    llm.chat(question())
    server.stop()
    with pytest.raises(ServerError, match="no model server answers"):
        llm.chat(question())
