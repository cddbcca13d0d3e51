"""Tools and structured output, on scripts under the true constraint."""

from __future__ import annotations

import json
import re
from typing import Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.utils.stream_lifecycle import assert_valid_event_stream
from pydantic import BaseModel

from langchain_recallm import ChatRecaLLM, RecallEmbeddings, message_citations
from langchain_recallm.tool_calls import choice, response_schema
from recallm_core.errors import TokenizerError


@tool
def search(query: str) -> str:
    """Searches the notes."""
    return query


@tool
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


class Ticket(BaseModel):
    """A ticket."""

    port: str
    euros: int


class TicketDict(TypedDict):
    port: str
    euros: int


def call(name: str, **arguments: Any) -> str:
    text = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{text}\n</tool_call>"


THINK = "I look. <|start_recall|>The ferry leaves Port Hallow at 9:30<|end_recall|></think>"
VALUE = '{"port": "Port Hallow", "euros": 14}'


def merged(chunks: Any) -> Any:
    found = list(chunks)
    whole = found[0]
    for chunk in found[1:]:
        whole = whole + chunk
    return whole


def same(message: Any) -> tuple[Any, ...]:
    calls = message.tool_calls, message.invalid_tool_calls
    kept = message.additional_kwargs
    return message.content, calls, message.response_metadata, message.usage_metadata, kept


@pytest.mark.parametrize("version", ["v1", "v0"])
@pytest.mark.parametrize("said", ["", "Let me look. "])
async def test_calls_are_the_same_in_every_way_to_ask(kit: Any, version: str, said: str) -> None:
    script = THINK + said + call("search", query="f\u00e4hre \u4f60") + call("add", a=1, b=2)
    model = kit.chat(script, output_version=version, tokens_per_chunk=4)
    bound = model.bind_tools([search, add]).bind(documents=list(kit.documents))
    message = bound.invoke("When?")
    assert [c["args"] for c in message.tool_calls] == [
        {"query": "f\u00e4hre \u4f60"},
        {"a": 1, "b": 2},
    ]
    assert message.response_metadata["finish_reason"] == "tool_calls"
    assert [b["type"] for b in message.content_blocks][-2:] == ["tool_call", "tool_call"]
    found = [await bound.ainvoke("When?"), merged(bound.stream("When?"))]
    found.append(merged([chunk async for chunk in bound.astream("When?")]))
    for other in found:
        assert same(other) == same(message)
        assert other.content_blocks == message.content_blocks
    if version == "v1":
        events = list(bound.stream_events("When?", version="v3"))
        assert_valid_event_stream(events)
        assert same(bound.stream_events("When?", version="v3").output) == same(message)


def test_one_call_at_a_time_can_be_asked_for(kit: Any) -> None:
    model = kit.chat(THINK + call("add", a=1, b=2) + call("add", a=3, b=4))
    assert len(model.bind_tools([add]).invoke("?").tool_calls) == 2
    assert len(model.bind_tools([add], parallel_tool_calls=False).invoke("?").tool_calls) == 1


def test_choices_of_all_providers_are_understood(kit: Any) -> None:
    for given, meant in (
        (None, None),
        (False, None),
        (True, "required"),
        ("any", "required"),
        ("required", "required"),
        ("auto", "auto"),
        ("none", "none"),
        ("add", "add"),
        ({"type": "function", "function": {"name": "add"}}, "add"),
        ({"type": "tool", "name": "add"}, "add"),
        ({"type": "any"}, "required"),
    ):
        assert choice(given) == meant
    with pytest.raises(ValueError, match="tool_choice"):
        choice({"type": "magic"})
    words = kit.chat("</think>Just words.", max_tokens=300)
    for wanted in ("any", "add", True):
        message = words.bind_tools([add], tool_choice=wanted).invoke("?")
        assert [c["name"] for c in message.tool_calls] == ["add"]
    assert words.bind_tools([add], tool_choice="none").invoke("?").text == "Just words."
    with pytest.raises(ValueError, match="magic"):
        words.bind_tools([add], tool_choice="magic").invoke("?")


def test_a_call_that_was_cut_off_is_invalid_and_never_repaired(kit: Any) -> None:
    model = kit.chat("</think>" + call("search", query="long " * 50), max_tokens=60)
    bound = model.bind_tools([search])
    message = bound.invoke("?")
    assert message.tool_calls == []
    (invalid,) = message.invalid_tool_calls
    assert invalid["name"] == "search"
    assert message.response_metadata["finish_reason"] == "length"
    assert same(merged(bound.stream("?"))) == same(message)
    output = bound.stream_events("?", version="v3").output
    assert output.invalid_tool_calls[0]["name"] == "search"
    assert output.tool_calls == []


@pytest.mark.slow
def test_a_template_without_tools_is_refused_clearly(tiny_checkpoint: Any) -> None:
    model = ChatRecaLLM(model=str(tiny_checkpoint))
    assert model.profile is not None
    assert model.profile["tool_calling"] is False
    with pytest.raises(TokenizerError, match="can't show tools"):
        model.bind_tools([add]).invoke("?")


def test_earlier_calls_and_results_are_told_to_the_template(kit: Any) -> None:
    model = kit.chat(THINK + "It leaves at <|start_recall|>9:30<|end_recall|>.")
    history = [
        HumanMessage("When?"),
        AIMessage("", tool_calls=[{"name": "search", "args": {"query": "x"}, "id": "1"}]),
        ToolMessage("two", tool_call_id="1", artifact=list(kit.documents)),
    ]
    message = model.bind_tools([search]).invoke(history)
    kit.check(message, kit.documents, least=2)
    ids = model.llm.backend.requests[-1].token_ids.tolist()
    text = bytes(t for t in ids if t < 256).decode()
    assert text.endswith("tool\ntwo\nThe results are among the documents.")
    assert '{"name": "search", "arguments": {"query": "x"}}' in text


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_values_of_a_schema_keep_their_citations(kit: Any, method: Any) -> None:
    model = kit.chat(THINK + VALUE).bind(documents=list(kit.documents))
    raw = model.bound.with_structured_output(Ticket, method=method, include_raw=True)
    found = raw.invoke("?")
    assert found["parsed"] == Ticket(port="Port Hallow", euros=14)
    assert found["parsing_error"] is None
    grounded = kit.chat(THINK + VALUE).with_structured_output(
        Ticket, method=method, include_raw=True, documents=list(kit.documents)
    )
    message = grounded.invoke("?")["raw"]
    (citation,) = kit.check(message, kit.documents)
    assert message.text[citation["start_index"] : citation["end_index"]] == "Port Hallow"


@pytest.mark.parametrize("schema", [Ticket, TicketDict, Ticket.model_json_schema()])
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_schemas_of_every_kind_are_enforced(kit: Any, schema: Any, method: Any) -> None:
    def script(prompt: str) -> str:
        if method == "json_schema":
            return "</think>" + VALUE
        name = re.findall(r'"name": "(\w+)"', prompt)[0]
        return "</think>" + call(name, **json.loads(VALUE))

    model = kit.chat(script)
    result = model.with_structured_output(schema, method=method).invoke("?")
    value = result.model_dump() if isinstance(result, Ticket) else result
    assert set(value) == {"port", "euros"}
    assert isinstance(value["euros"], int)


def test_formats_of_all_providers_are_understood() -> None:
    schema = Ticket.model_json_schema()
    wrapped = {"type": "json_schema", "json_schema": {"name": "t", "schema": schema}}
    assert response_schema(wrapped) == schema
    assert response_schema({"type": "json_schema", "schema": schema}) == schema
    assert response_schema({"type": "json_object"}) == {"type": "object"}
    assert response_schema({"type": "text"}) is None
    assert response_schema(Ticket)["properties"].keys() == {"port", "euros"}
    with pytest.raises(ValueError, match="no schema"):
        response_schema({"type": "json_schema", "json_schema": {}})


def test_tools_and_a_schema_can_be_given_together(kit: Any) -> None:
    wanted = {
        "type": "json_schema",
        "json_schema": {"name": "t", "schema": Ticket.model_json_schema()},
    }
    for script, calls in ((THINK + call("add", a=1, b=2), 1), (THINK + VALUE, 0)):
        bound = kit.chat(script).bind_tools([add], response_format=wanted)
        bound = bound.bind(documents=list(kit.documents))
        message = bound.invoke("?")
        assert len(message.tool_calls) == calls
        assert same(merged(bound.stream("?"))) == same(message)
        if not calls:
            assert json.loads(message.text) == json.loads(VALUE)


def _agent_script(prompt: str) -> str:
    """Searches once, then answers with a quote; or with the value, where a schema wants one."""
    if "The results are among" in prompt:
        return THINK + "At <|start_recall|>9:30<|end_recall|>."
    return "</think>" + call("notes", query="ferry")


def test_an_agent_of_our_own_searches_and_cites(kit: Any) -> None:
    agents = pytest.importorskip("langchain.agents")
    from langchain_core.tools import create_retriever_tool

    store = InMemoryVectorStore(RecallEmbeddings())
    store.add_documents(list(kit.documents))
    notes = create_retriever_tool(
        store.as_retriever(), "notes", "Searches.", response_format="content_and_artifact"
    )
    agent = agents.create_agent(kit.chat(_agent_script), [notes])
    state = agent.invoke({"messages": [HumanMessage("When does the ferry leave?")]})
    kinds = [type(message).__name__ for message in state["messages"]]
    assert kinds == ["HumanMessage", "AIMessage", "ToolMessage", "AIMessage"]
    message = state["messages"][-1]
    documents = {d.id: d for d in kit.documents}
    cited = [documents[name] for name in message.response_metadata["documents"]]
    kit.check(message, cited, least=2)


def test_an_agent_with_a_response_format_keeps_a_cited_answer(kit: Any) -> None:
    agents = pytest.importorskip("langchain.agents")
    notes = "Note: The ferry leaves Port Hallow at 9:30 for 14 euros."
    agent = agents.create_agent(kit.chat(THINK + VALUE), [add], response_format=Ticket)
    state = agent.invoke({"messages": [HumanMessage(notes)]})
    assert state["structured_response"] == Ticket(port="Port Hallow", euros=14)
    assert message_citations(state["messages"][-1])
