"""Agents: tools that cite, sources that survive to the last message."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import create_retriever_tool
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_recallm import (
    RecallEmbeddings,
    RecallFAISS,
    create_cited_answer_tool,
    message_citations,
)

agents = pytest.importorskip("langchain.agents")
memory = pytest.importorskip("langgraph.checkpoint.memory")


class Caller(GenericFakeChatModel):
    """A model that calls one tool and then says something of its own."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


def caller(tool: str, argument: str) -> Caller:
    call = {"name": tool, "args": {argument: "the ferry"}, "id": "1", "type": "tool_call"}
    said = [AIMessage("", tool_calls=[call]), AIMessage("Half nine, I guess.")]
    return Caller(messages=iter(said))


def search_tool(kit: Any) -> Any:
    store = InMemoryVectorStore(RecallEmbeddings())
    store.add_documents(list(kit.documents))
    return create_retriever_tool(
        store.as_retriever(), "search", "Searches.", response_format="content_and_artifact"
    )


def test_the_tool_answers_with_quotes_and_hands_over_the_evidence(kit: Any) -> None:
    store = RecallFAISS()
    store.add_documents(list(kit.documents))
    sources = (list(kit.documents), store, store.index, store.as_retriever())
    for source in sources:
        tool = create_cited_answer_tool(kit.chat(), source)
        call = {"name": tool.name, "args": {"question": "When?"}, "id": "7", "type": "tool_call"}
        message = tool.invoke(call)
        assert isinstance(message, ToolMessage)
        assert "It leaves at 9:30, for 14 euros" in message.content
        assert '[1] Ferry: "The ferry leaves Port Hallow at 9:30"' in message.content
        kit.check(message.artifact["message"], message.artifact["documents"], least=5)
    with pytest.raises(TypeError, match="retriever"):
        create_cited_answer_tool(kit.chat(), 3)


async def test_the_tool_works_for_asynchronous_agents(kit: Any) -> None:
    tool = create_cited_answer_tool(kit.chat(), list(kit.documents))
    call = {"name": tool.name, "args": {"question": "When?"}, "id": "7", "type": "tool_call"}
    message = await tool.ainvoke(call)
    kit.check(message.artifact["message"], message.artifact["documents"], least=5)


@pytest.mark.parametrize("cited_tool", [True, False])
def test_an_agent_s_last_message_is_grounded_in_what_its_tools_found(
    kit: Any, cited_tool: bool
) -> None:
    from langchain_recallm.middleware import GroundingMiddleware

    answerer = kit.chat()
    tool = create_cited_answer_tool(kit.chat(), list(kit.documents))
    tool = tool if cited_tool else search_tool(kit)
    agent = agents.create_agent(
        caller(tool.name, "question" if cited_tool else "query"),
        [tool],
        system_prompt="Be brief.",
        middleware=[GroundingMiddleware(answerer)],
        checkpointer=memory.InMemorySaver(),
    )
    config = {"configurable": {"thread_id": "1"}}
    state = agent.invoke({"messages": [HumanMessage("When does the ferry leave?")]}, config)
    message = state["messages"][-1]
    documents = {d.id: d for d in kit.documents}
    cited = [documents[name] for name in message.response_metadata["documents"]]
    kit.check(message, cited, least=5)
    kept = agent.get_state(config).values["messages"][-1]
    assert kept.content == message.content
    marks = [one.response_metadata.get("grounded") for one in state["messages"]]
    assert marks == [None, None, None, True]  # neither the question, nor the call, nor its result
    asked = bytes(t for t in answerer.llm.backend.requests[0].token_ids.tolist() if t < 256)
    assert b"I guess" not in asked
    assert asked.decode().rstrip().endswith("Question: When does the ferry leave?")


async def test_grounding_works_for_asynchronous_agents(kit: Any) -> None:
    from langchain_recallm.middleware import GroundingMiddleware

    agent = agents.create_agent(
        caller("search", "query"), [search_tool(kit)], middleware=[GroundingMiddleware(kit.chat())]
    )
    state = await agent.ainvoke({"messages": [HumanMessage("When?")]})
    assert message_citations(state["messages"][-1])


def test_without_sources_the_agent_s_own_answer_stands(kit: Any) -> None:
    from langchain_recallm.middleware import GroundingMiddleware

    own = Caller(messages=iter([AIMessage("Hello.")]))
    agent = agents.create_agent(own, [], middleware=[GroundingMiddleware(kit.chat())])
    state = agent.invoke({"messages": [HumanMessage("Hi")]})
    message = state["messages"][-1]
    assert (message.text, message.response_metadata["grounded"]) == ("Hello.", False)


async def test_citations_of_another_maker_do_not_count_as_grounded(kit: Any) -> None:
    from langchain_recallm.middleware import GroundingMiddleware

    citation = {"type": "citation", "start_index": 0, "end_index": 5, "cited_text": "Hello"}
    block = {"type": "text", "text": "Hello.", "annotations": [citation]}
    own = Caller(messages=iter([AIMessage([block])]))
    agent = agents.create_agent(own, [], middleware=[GroundingMiddleware(kit.chat())])
    state = await agent.ainvoke({"messages": [HumanMessage("Hi")]})
    assert state["messages"][-1].response_metadata["grounded"] is False


def test_an_agent_without_tools_keeps_citations_over_turns(kit: Any) -> None:
    model = kit.chat()
    agent = agents.create_agent(model, checkpointer=memory.InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    text = kit.ferry.page_content + "\n" + kit.leave.page_content
    first = agent.invoke({"messages": [HumanMessage(text + "\nWhen?")]}, config)
    second = agent.invoke({"messages": [HumanMessage("And now?")]}, config)
    assert len(second["messages"]) == 4
    for message in (first["messages"][1], second["messages"][3]):
        kit.check(message, [Document(text + "\nWhen?"), Document("And now?")], least=3)


def test_a_graph_s_version_3_stream_tells_citations_live(kit: Any) -> None:
    model = kit.chat()
    events = list(model.stream_events("When?", version="v3", documents=list(kit.documents)))
    fields = [
        e["delta"]["fields"]
        for e in events
        if e["event"] == "content-block-delta" and e["delta"]["type"] == "block-delta"
    ]
    recalls = [f["extras"]["recalls"] for f in fields if "extras" in f]
    assert [len(r) for r in recalls] == [1, 2, 3]
    assert len(fields[-1]["annotations"]) == 5


def test_a_graph_streams_the_same_message_token_by_token(kit: Any) -> None:
    agent = agents.create_agent(kit.chat(tokens_per_chunk=5))
    text = kit.ferry.page_content + "\n" + kit.leave.page_content + "\nWhen?"
    asked = {"messages": [HumanMessage(text)]}
    whole = agent.invoke(asked)["messages"][-1]
    merged: Any = None
    for chunk, _ in agent.stream(asked, stream_mode="messages"):
        merged = chunk if merged is None else merged + chunk
    assert merged.content == whole.content
    assert merged.usage_metadata == whole.usage_metadata
    kit.check(merged, [Document(text)], least=3)


def test_a_graph_s_protocol_stream_ends_with_the_same_message(kit: Any) -> None:
    agent = agents.create_agent(kit.chat(tokens_per_chunk=5))
    text = kit.ferry.page_content + "\n" + kit.leave.page_content + "\nWhen?"
    asked = {"messages": [HumanMessage(text)]}
    whole = agent.invoke(asked)["messages"][-1]
    for version in ("v1", "v0"):
        model = kit.chat(tokens_per_chunk=5, output_version=version)
        run = agents.create_agent(model).stream_events(asked, version="v3")
        message = run.output["messages"][-1]
        assert message.content == whole.content  # version 3 always gives blocks
        kit.check(message, [Document(text)], least=3)
