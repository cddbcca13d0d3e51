"""A search that found nothing is an abstention, by whatever way it comes to the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import QueryEngineTool, RetrieverTool, ToolMetadata

from llama_index_recallm import (
    CitedQueryEngineTool,
    PackedContextRetriever,
    RecaLLM,
    RecaLLMChatEngine,
    RecaLLMContextPacker,
    RecaLLMQueryEngine,
    RecaLLMSynthesizer,
    RecaLLMVectorStore,
    RecaLLMWorkflow,
    collect_citations,
)
from recallm_core import CorpusIndex

QUESTION = "When is the lift checked?"
SCRIPT = "<|start_recall|>the lift<|end_recall|></think>In May, it says of the lift."
ASKED = ChatMessage(content=QUESTION)
CALLED = ChatMessage(
    role="assistant",
    blocks=[ToolCallBlock(tool_call_id="1", tool_name="search", tool_kwargs={"query": "lift"})],
)
BLANK = NodeWithScore(node=TextNode(text=" \n"))


def in_blocks(*blocks: Any) -> list[ChatMessage]:
    return [ChatMessage(role="user", blocks=[*blocks, TextBlock(text=QUESTION)])]


def result(text: str) -> list[ChatMessage]:
    told = ChatMessage(role="tool", content=text, additional_kwargs={"tool_call_id": "1"})
    return [ASKED, CALLED, told]


def retrieved(kit: Any, nodes: Any = ()) -> list[ChatMessage]:
    tool = RetrieverTool(kit.retriever(list(nodes)), ToolMetadata("x", "search"))
    return result(tool.call("lift").content)


def queried(kit: Any) -> list[ChatMessage]:
    engine = RetrieverQueryEngine.from_args(kit.retriever([]), llm=kit.llm(SCRIPT))
    return result(QueryEngineTool(engine, ToolMetadata("x", "search")).call("lift").content)


MESSAGES: dict[str, Callable[[Any], list[ChatMessage]]] = {
    "a block of no text": lambda kit: in_blocks(CitableBlock(title="t", source="s", content=[])),
    "a block of blank text": lambda kit: in_blocks(CitableBlock(title="t", source="s", content="")),
    "an empty document": lambda kit: in_blocks(DocumentBlock(data=b"", title="t")),
    "a tool's block": lambda kit: [
        ASKED,
        CALLED,
        ChatMessage(role="tool", blocks=[CitableBlock(title="t", source="s", content=[])]),
    ],
    "a retriever tool": retrieved,
    "a retriever tool of blank nodes": lambda kit: retrieved(kit, [BLANK]),
    "a query engine's tool": queried,
    "a list": lambda kit: result("[]"),
    "no text": lambda kit: [*result("")[:2], ChatMessage(role="tool", blocks=[])],
}


@pytest.mark.parametrize("channel", MESSAGES)
async def test_nothing_found_is_an_abstention_in_a_chat(kit: Any, channel: str) -> None:
    messages, llm = MESSAGES[channel](kit), kit.llm(SCRIPT)
    found = [llm.chat(messages), await llm.achat(messages)]
    found.append(list(llm.stream_chat(messages))[-1])
    found.append([each async for each in await llm.astream_chat(messages)][-1])
    for response in found:
        assert response.message.content == llm.engine.recipe.abstain[0]
        assert response.raw["recallm"]["abstained"] is True
        assert not [b for b in response.message.blocks if isinstance(b, CitationBlock)]
    assert llm.engine.backend.requests == []


def test_what_a_tool_says_is_no_empty_search(kit: Any) -> None:
    llm = kit.llm("<|start_recall|>checked in May<|end_recall|></think>In May.")
    response = llm.chat(result("It is checked in May."))
    assert [c["text"] for c in response.raw["recallm"]["citations"]] == ["checked in May"]


def test_blocks_are_counted_with_the_empty_ones(kit: Any) -> None:
    llm = kit.llm("<|start_recall|>checked in May<|end_recall|></think>In May.")
    empty = CitableBlock(title="t", source="s", content=[])
    full = CitableBlock(title="u", source="u", content="It is checked in May.")
    first = ChatMessage(role="user", blocks=[empty])
    block = next(
        b
        for b in llm.chat([first, *in_blocks(empty, full)]).message.blocks
        if isinstance(b, CitationBlock)
    )
    assert block.source == "u"
    assert block.additional_location_info["citable_index"] == 2


def test_tools_that_are_offered_may_be_called_again(kit: Any) -> None:
    tool = RetrieverTool(kit.retriever([]), ToolMetadata("x", "search"))
    said = kit.llm(SCRIPT).chat_with_tools([tool], chat_history=result(""))
    assert said.raw["recallm"]["abstained"] is True
    assert said.raw["recallm"]["citations"] == []


def engines(kit: Any, llm: RecaLLM) -> dict[str, Callable[[], Any]]:
    empty, corpus = kit.retriever([]), CorpusIndex.build([])
    build = RecaLLMQueryEngine.build
    stock = RetrieverQueryEngine.from_args(
        kit.retriever([BLANK]), llm=llm, response_synthesizer=RecaLLMSynthesizer(llm)
    )
    return {
        "a synthesizer": lambda: RecaLLMSynthesizer(llm).synthesize(QUESTION, []),
        "blank nodes": lambda: RecaLLMSynthesizer(llm).synthesize(QUESTION, [BLANK]),
        "an engine": lambda: build(empty, llm).query(QUESTION),
        "an engine over an index": lambda: build(corpus, llm).query(QUESTION),
        "a stock engine": lambda: stock.query(QUESTION),
        "a streaming engine": lambda: build(empty, llm, streaming=True).query(QUESTION),
        "a packer": lambda: build(
            empty, llm, packed=False, node_postprocessors=[RecaLLMContextPacker(llm=llm)]
        ).query(QUESTION),
        "a packed retriever": lambda: build(PackedContextRetriever(empty, llm=llm), llm).query(
            QUESTION
        ),
        "a chat engine": lambda: RecaLLMChatEngine.build(empty, llm, skip_condense=True).chat(
            QUESTION
        ),
        "a streaming chat": lambda: RecaLLMChatEngine.build(
            empty, llm, skip_condense=True
        ).stream_chat(QUESTION),
        "a tool": lambda: (
            CitedQueryEngineTool.build(build(empty, llm), "t", "x").call(QUESTION).raw_output
        ),
        "a vector store": lambda: build(vectors(kit), llm).query(QUESTION),
    }


def vectors(kit: Any) -> Any:
    from llama_index.core import VectorStoreIndex

    from llama_index_recallm import RecaLLMEmbedding

    return VectorStoreIndex.from_vector_store(RecaLLMVectorStore(), embed_model=RecaLLMEmbedding())


def test_engines_that_find_nothing_abstain(kit: Any) -> None:
    llm = kit.llm(SCRIPT)
    for name, ask in engines(kit, llm).items():
        response = ask()
        streams = "tream" in type(response).__name__
        text = "".join(response.response_gen) if streams else str(response)
        assert text == "Empty Response", name
        assert response.abstained, name
        assert (response.citations, collect_citations(response)) == ([], []), name
    assert llm.engine.backend.requests == []


async def test_a_workflow_that_finds_nothing_abstains(kit: Any) -> None:
    llm = kit.llm(SCRIPT)
    workflow = RecaLLMWorkflow(RecaLLMQueryEngine.build(kit.retriever([]), llm))
    answered = await workflow.run(question=QUESTION)
    assert (answered.abstained, answered.citations) == (True, [])
    assert llm.engine.backend.requests == []
