"""What LlamaIndex's own classes offer, ours do too: constructors, and answers from messages."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ImageBlock
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel

from llama_index_recallm import (
    CitedQueryEngineTool,
    RecaLLMChatEngine,
    RecaLLMQueryEngine,
    RecaLLMSynthesizer,
)
from recallm_core.errors import GenerationError


async def test_messages_are_answered_from_like_strings(kit: Any) -> None:
    synthesizer = RecaLLMSynthesizer(kit.llm())
    chunks = [ChatMessage(content=kit.ferry), ChatMessage(content=kit.leave)]
    wanted = synthesizer.get_response(kit.question, [kit.ferry, kit.leave])
    assert "9:30" in str(wanted)
    assert synthesizer.get_response_from_messages(kit.question, chunks) == wanted
    assert await synthesizer.aget_response_from_messages(kit.question, chunks) == wanted
    image = ChatMessage(blocks=[ImageBlock(image=b"x")])
    with pytest.raises(ValueError, match="message 1 has a ImageBlock, but the model reads text"):
        synthesizer.get_response_from_messages(kit.question, [chunks[0], image])


def test_a_chat_engine_is_made_from_defaults(kit: Any) -> None:
    nodes = kit.nodes()
    memory = ChatMemoryBuffer.from_defaults(token_limit=1000)
    engine = RecaLLMChatEngine.from_defaults(
        kit.retriever(nodes), llm=kit.llm(), memory=memory, system_prompt="Be brief.",
        skip_condense=True, context_prompt=None, verbose=False,
    )  # fmt: skip
    assert isinstance(engine, RecaLLMChatEngine)
    assert engine.chat(kit.question).citations
    assert [message.role.value for message in memory.get_all()] == ["user", "assistant"]
    with pytest.raises(TypeError, match=r"llm must be a llama_index_recallm\.RecaLLM"):
        RecaLLMChatEngine.from_defaults(kit.retriever(nodes), llm=MockLLM())
    bare = RecaLLMChatEngine(kit.retriever(nodes), MockLLM(), memory, skip_condense=True)
    with pytest.raises(TypeError, match=r"llm must be a llama_index_recallm\.RecaLLM"):
        bare.chat(kit.question)


def test_an_engine_over_another_retriever_is_the_same_engine(kit: Any) -> None:
    empty = RecaLLMQueryEngine.build(kit.retriever([]), kit.llm(), packed=False)
    assert empty.query(kit.question).abstained  # type: ignore[union-attr]
    again = empty.with_retriever(kit.retriever(kit.nodes()))
    assert isinstance(again, RecaLLMQueryEngine)
    assert again.query(kit.question).citations  # type: ignore[union-attr]
    tool = CitedQueryEngineTool.from_defaults(again, name="docs", description="x")
    assert isinstance(tool, CitedQueryEngineTool)
    assert "[1]" in tool.call(kit.question).content


class Reply(BaseModel):
    month: str
    day: int


async def test_streamed_objects_fit_the_class_as_whole_ones_do(kit: Any) -> None:
    template = PromptTemplate("When is {what} checked?")
    llm = kit.llm('</think>{"month": "May", "day": 12}')
    wanted = Reply(month="May", day=12)
    assert llm.structured_predict(Reply, template, what="the lift") == wanted
    pieces = list(llm.stream_structured_predict(Reply, template, what="the lift"))
    later = await llm.astream_structured_predict(Reply, template, what="the lift")
    plain = [piece.model_dump() for piece in pieces]
    assert [piece.model_dump() async for piece in later] == plain
    assert pieces[-1] == wanted
    months = [piece["month"] or "" for piece in plain]
    assert months == sorted(months)  # what was there stays
    chat = llm.as_structured_llm(Reply)
    asked = [ChatMessage(content="When is the lift checked?")]
    assert list(chat.stream_chat(asked))[-1].raw == wanted
    assert [piece async for piece in await chat.astream_chat(asked)][-1].raw == wanted
    cut = kit.llm('</think>{"month": "May", "day": 12}', max_tokens=12)
    with pytest.raises(GenerationError, match="was cut off; raise max_tokens"):
        list(cut.stream_structured_predict(Reply, template, what="the lift"))
