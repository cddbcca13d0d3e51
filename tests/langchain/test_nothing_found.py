"""A search that found nothing is an abstention, by whatever way it comes to the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnablePassthrough
from langchain_core.tools import create_retriever_tool, tool

from langchain_recallm import (
    ChatRecaLLM,
    PackedContextRetriever,
    RecallFAISS,
    create_cited_answer_tool,
    create_grounded_documents_chain,
    documents_to_content_blocks,
    grounded_prompt,
    message_citations,
)
from recallm_core import CorpusIndex

QUESTION = "When is the lift checked?"
ASKED = HumanMessage(QUESTION)
SCRIPT = "<|start_recall|>the lift<|end_recall|></think>In May, it says of the lift."
CALL = {"name": "search", "args": {"query": "lift"}, "id": "1", "type": "tool_call"}
CALLED = AIMessage("", tool_calls=[CALL])


class Empty(BaseRetriever):
    def _get_relevant_documents(self, query: str, **kwargs: Any) -> list[Document]:
        return []


def found(**fields: Any) -> list[BaseMessage]:
    return [ASKED, CALLED, ToolMessage(tool_call_id="1", **fields)]


def by_tool(**options: Any) -> list[BaseMessage]:
    made = create_retriever_tool(Empty(), "search", "Searches.", **options)
    return [ASKED, CALLED, made.invoke(CALL)]


def in_blocks(*blocks: dict[str, Any]) -> list[BaseMessage]:
    return [HumanMessage([*blocks, {"type": "text", "text": QUESTION}])]


def listing(name: str) -> Any:
    @tool(name)
    def search(query: str) -> list[Any]:
        """Searches."""
        return []

    return search


REPLY = {"type": "object", "properties": {"month": {"type": "string"}}, "required": ["month"]}
SEARCH_RESULT = {"type": "search_result", "source": "u", "title": "t", "content": []}
CONTENT = {"type": "document", "source": {"type": "content", "content": []}}
TEXT_PLAIN = {"type": "text-plain", "mime_type": "text/plain", "text": ""}

CHANNELS: dict[str, Callable[[ChatRecaLLM], Any]] = {
    "a list": lambda m: m.invoke(QUESTION, documents=[]),
    "a tuple": lambda m: m.invoke([ASKED], documents=()),
    "blank documents": lambda m: m.invoke(QUESTION, documents=[Document(" \n"), ""]),
    "an index": lambda m: m.invoke(QUESTION, documents=CorpusIndex.build([])),
    "a bind": lambda m: m.bind(documents=[]).invoke(QUESTION),
    "a batch": lambda m: m.batch([QUESTION], documents=[])[0],
    "a stream": lambda m: sum_of(m.stream(QUESTION, documents=[])),
    "a retriever tool": lambda m: m.invoke(by_tool()),
    "its artifact": lambda m: m.invoke(by_tool(response_format="content_and_artifact")),
    "words beside an artifact": lambda m: m.invoke(found(content="No results.", artifact=[])),
    "an artifact with documents": lambda m: m.invoke(found(content="", artifact={"documents": ()})),
    "a tool's list": lambda m: m.invoke([ASKED, CALLED, listing("search").invoke(CALL)]),
    "a tool's blocks": lambda m: m.invoke(found(content=[SEARCH_RESULT])),
    "two tools": lambda m: m.invoke(
        [*found(content="", artifact=[]), ToolMessage("", tool_call_id="2")]
    ),
    "search_result": lambda m: m.invoke(in_blocks(SEARCH_RESULT)),
    "document": lambda m: m.invoke(in_blocks(CONTENT)),
    "text-plain": lambda m: m.invoke(in_blocks(TEXT_PLAIN)),
    **{
        f"no {kind} blocks": lambda m, kind=kind: m.invoke(
            in_blocks(*documents_to_content_blocks([], kind=kind))
        )
        for kind in ("text-plain", "document", "search_result")
    },
    "a grounded prompt": lambda m: (
        {"context": Empty(), "question": asked()} | grounded_prompt() | m
    ).invoke(QUESTION),
    "a grounded prompt of text": lambda m: (
        {"context": Empty(), "question": asked()} | grounded_prompt(as_text=True) | m
    ).invoke(QUESTION),
    "a documents chain": lambda m: create_grounded_documents_chain(
        m, ChatPromptTemplate([("system", "{context}"), ("human", "{input}")])
    ).invoke({"context": [], "input": QUESTION}),
    "a packed retriever": lambda m: packed(m, RecallFAISS()),
    "a packed retriever's retriever": lambda m: packed(m, Empty()),
    "a later question": lambda m: m.invoke(
        [*found(content="", artifact=[]), AIMessage("?"), ASKED]
    ),
}


def asked() -> Any:
    return RunnablePassthrough()


def sum_of(chunks: Any) -> Any:
    first, *rest = chunks
    for chunk in rest:
        first += chunk
    return first


def packed(model: ChatRecaLLM, source: Any) -> Any:
    documents = PackedContextRetriever(source=source).invoke(QUESTION)
    return model.invoke(QUESTION, documents=documents)


def check(message: Any, model: ChatRecaLLM) -> None:
    assert message_citations(message) == []
    assert message.response_metadata["abstained"] is True
    assert message.text == model.llm.recipe.abstain[0]
    assert message.usage_metadata["output_tokens"] == 0


@pytest.mark.parametrize("channel", CHANNELS)
def test_nothing_found_is_an_abstention_and_the_model_isn_t_asked(kit: Any, channel: str) -> None:
    model = kit.chat(SCRIPT)
    check(CHANNELS[channel](model), model)
    assert model.llm.backend.requests == []


@pytest.mark.parametrize("version", ["v0", "v1"])
async def test_asynchronous_calls_and_streams_say_the_same(kit: Any, version: str) -> None:
    model = kit.chat(SCRIPT, output_version=version)
    check(await model.ainvoke(QUESTION, documents=[]), model)
    chunks = [chunk async for chunk in model.astream(QUESTION, documents=[])]
    check(sum_of(chunks), model)


def test_tools_that_are_offered_may_be_called_again(kit: Any) -> None:
    script = '</think><tool_call>\n{"name": "search", "arguments": {"query": "x"}}\n</tool_call>'
    messages = found(content="", artifact=[])
    again = kit.chat(script).bind_tools([listing("search")]).invoke(messages)
    assert [call["name"] for call in again.tool_calls] == ["search"]
    said = kit.chat(SCRIPT).bind_tools([listing("search")]).invoke(messages)
    assert said.response_metadata["abstained"]
    assert message_citations(said) == []


def test_a_structured_answer_stays_one_and_is_marked(kit: Any) -> None:
    schema = {
        "title": "Reply",
        "type": "object",
        "properties": {"month": {"type": "string"}},
        "required": ["month"],
    }
    model = kit.chat('</think>{"month": "May"}')
    got = model.with_structured_output(schema, include_raw=True).invoke(QUESTION, documents=[])
    assert got["parsed"] == {"month": "May"}
    assert got["raw"].response_metadata["abstained"]


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
async def test_documents_of_a_call_reach_the_model_beside_its_raw_answer(
    kit: Any, method: Any
) -> None:
    schema = {"title": "Reply", "description": "x", **REPLY}
    found = Document(id="d", page_content="The lift is checked in May.")
    quoted = "<|start_recall|>checked in May<|end_recall|></think>"
    call = '<tool_call>{"name":"Reply","arguments":{"month":"May"}}</tool_call>'
    said = call if method == "function_calling" else '{"month":"May"}'
    model = kit.chat(quoted + said)
    asking = model.with_structured_output(schema, method=method, include_raw=True)
    options: Any = {"documents": [found], "temperature": 0}
    answers = [asking.invoke(QUESTION, **options), await asking.ainvoke(QUESTION, **options)]
    answers.append(sum_of(asking.stream(QUESTION, **options)))
    answers += asking.batch([QUESTION], **options)
    for answer in answers:
        assert answer["parsed"] == {"month": "May"}
        assert answer["parsing_error"] is None
        assert answer["raw"].response_metadata["documents"] == ["d"]


def test_the_cited_answer_tool_says_that_there_is_no_answer(kit: Any) -> None:
    for source in ([], Empty(), RecallFAISS(), CorpusIndex.build([])):
        model = kit.chat(SCRIPT)
        made = create_cited_answer_tool(model, source)
        message = made.invoke({**CALL, "name": made.name, "args": {"question": QUESTION}})
        check(message.artifact["message"], model)
        assert message.artifact["citations"] == []
        read = kit.chat(SCRIPT)
        check(read.invoke([ASKED, CALLED, message]), read)


def test_an_agent_whose_search_found_nothing_abstains(kit: Any) -> None:
    agents = pytest.importorskip("langchain.agents")
    from langchain_recallm.middleware import GroundingMiddleware

    class Driver(GenericFakeChatModel):
        """Searches, then says something of its own."""

        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self

    made = create_retriever_tool(Empty(), "search", "x", response_format="content_and_artifact")
    answerer = kit.chat(SCRIPT)
    said = [CALLED.model_copy(), AIMessage("In May, I guess.")]
    driver = Driver(messages=iter(said))
    agent = agents.create_agent(driver, [made], middleware=[GroundingMiddleware(answerer)])
    message = agent.invoke({"messages": [ASKED]})["messages"][-1]
    check(message, answerer)
    assert message.response_metadata["grounded"] is False


def test_what_a_tool_says_is_no_empty_search(kit: Any) -> None:
    script = "<|start_recall|>checked in May<|end_recall|></think>In May."
    cases: list[dict[str, Any]] = [
        {"content": "It is checked in May."},
        {"content": "It is checked in May.", "artifact": {"rows": []}},
        {"content": "It is checked in May.", "artifact": ["a row"]},
        {"content": "It is checked in May.", "artifact": None},
    ]
    for fields in cases:
        message = kit.chat(script).invoke(found(**fields))
        assert [c["cited_text"] for c in message_citations(message)] == ["checked in May"]


def test_chains_that_want_words_get_the_phrase(kit: Any) -> None:
    model = kit.chat(SCRIPT)
    chain = (
        {"context": Empty(), "question": asked()} | grounded_prompt() | model | StrOutputParser()
    )
    assert chain.invoke(QUESTION) == model.llm.recipe.abstain[0]
