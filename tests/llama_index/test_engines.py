"""Every consumer of a synthesizer in LlamaIndex: what survives, and what we document."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.agent.workflow import AgentOutput, FunctionAgent, ReActAgent
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.base.response.schema import PydanticResponse
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.chat_engine import CondensePlusContextChatEngine, CondenseQuestionChatEngine
from llama_index.core.evaluation import FaithfulnessEvaluator
from llama_index.core.llms import ChatMessage, MockLLM
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import (
    CitationQueryEngine,
    RetrieverQueryEngine,
    RouterQueryEngine,
    SubQuestionQueryEngine,
)
from llama_index.core.schema import Document, IndexNode, NodeWithScore, QueryBundle
from llama_index.core.selectors import LLMMultiSelector, LLMSingleSelector
from llama_index.core.tools import FunctionTool, QueryEngineTool, ToolMetadata
from llama_index.core.workflow import Event, JsonSerializer

from llama_index_recallm import (
    Citation,
    CitedQueryEngineTool,
    CitedResponse,
    RecaLLMChatEngine,
    RecaLLMEmbedding,
    RecaLLMQueryEngine,
    collect_citations,
)
from llama_index_recallm.workflow import (
    AnswerDeltaEvent,
    Passage,
    RecaLLMWorkflow,
    RetrievedEvent,
)
from recallm_core import CorpusIndex
from recallm_core import Document as CoreDocument
from recallm_core.errors import GenerationError
from tests.llama_index.test_consumers import FixedQuestions

ANSWER = "It leaves at 9:30; leave is 16 weeks."


def index_of(kit: Any) -> VectorStoreIndex:
    return VectorStoreIndex.from_documents(list(kit.documents), embed_model=RecaLLMEmbedding())


# query engines


async def test_a_retriever_query_engine_is_made_cited_by_one_argument(kit: Any) -> None:
    synthesizer = kit.synthesizer(documents=kit.documents)
    engine = RetrieverQueryEngine(kit.retriever(kit.nodes()), response_synthesizer=synthesizer)
    for response in (engine.query(kit.question), await engine.aquery(kit.question)):
        assert isinstance(response, CitedResponse)
        assert str(response) == ANSWER
        kit.check(response, kit.documents, least=3)


def test_as_query_engine_takes_the_synthesizer_but_wants_a_model(kit: Any) -> None:
    index = index_of(kit)
    with pytest.raises(ImportError, match="openai"):
        index.as_query_engine(response_synthesizer=kit.synthesizer())
    llm = kit.llm()
    engine = index.as_query_engine(llm=llm, response_synthesizer=kit.synthesizer(), streaming=True)
    response = engine.query(kit.question)  # streaming= is ignored once a synthesizer is given
    assert isinstance(response, CitedResponse)
    kit.check(response)


@pytest.mark.parametrize("packed", [True, False])
async def test_our_factory_forwards_what_the_stock_one_ignores(kit: Any, packed: bool) -> None:
    engine = RecaLLMQueryEngine.build(
        index_of(kit), kit.llm(), documents=kit.documents, streaming=True, packed=packed
    )
    assert isinstance(engine, RetrieverQueryEngine)
    response = engine.query(kit.question)
    assert "".join(response.response_gen) == ANSWER
    citations = kit.check(response, kit.documents, least=3)
    assert {citation.level for citation in citations} == {"document"}
    with pytest.raises(TypeError, match="source must be"):
        RecaLLMQueryEngine.build("folder", kit.llm())


def test_a_corpus_index_is_a_source_with_its_documents(kit: Any) -> None:
    index = CorpusIndex.build([CoreDocument(d.text, d.id_) for d in kit.documents])
    response = RecaLLMQueryEngine.build(index, kit.llm()).query(kit.question)
    citations = kit.check(response, kit.documents, least=3)
    assert {citation.level for citation in citations} == {"document"}
    few = RecaLLMQueryEngine.build(index, kit.llm(), token_budget=100).query(kit.question)
    assert sum(len(each.node.text) for each in few.source_nodes) <= 100


@pytest.mark.parametrize("metadata", [False, True])
def test_nodes_of_a_citation_query_engine_lose_their_labels_again(kit: Any, metadata: bool) -> None:
    from llama_index.core.schema import MetadataMode

    engine = CitationQueryEngine(
        kit.retriever(kit.nodes()),
        llm=MockLLM(),
        response_synthesizer=kit.synthesizer(documents=kit.documents),
        metadata_mode=MetadataMode.LLM if metadata else MetadataMode.NONE,
    )
    response = engine.query(kit.question)
    citations = kit.check(response, kit.documents, least=3)
    assert response.source_nodes[0].node.text.startswith("Source 1:\n")
    assert {citation.level for citation in citations} == {"document"}
    assert {citation.ref_doc_id for citation in citations} == {"d1", "d2"}
    labels = kit.synthesizer(
        "</think>See <|start_recall|>Source<|end_recall|> <|start_recall|>file_name<|end_recall|>."
    )
    found = CitationQueryEngine(
        kit.retriever(kit.nodes()),
        llm=MockLLM(),
        response_synthesizer=labels,
        metadata_mode=MetadataMode.LLM if metadata else MetadataMode.NONE,
    ).query(kit.question)
    assert all(c.text not in ("Source", "file_name") for c in found.citations)


def choices(*numbers: int) -> MockLLM:
    reply = json.dumps([{"choice": n, "reason": "fits"} for n in numbers])

    class Choosing(MockLLM):
        def complete(self, prompt: str, formatted: bool = False, **_: Any) -> Any:
            from llama_index.core.base.llms.types import CompletionResponse

            return CompletionResponse(text=reply)

        def chat(self, messages: Any, **_: Any) -> Any:
            from llama_index.core.base.llms.types import ChatResponse

            return ChatResponse(message=ChatMessage(role="assistant", content=reply))

    return Choosing()


def tools(kit: Any, *engines: Any) -> list[QueryEngineTool]:
    return [
        QueryEngineTool(engine, ToolMetadata(name=f"t{n}", description=f"tool {n}"))
        for n, engine in enumerate(engines)
    ]


def engine_of(kit: Any, script: Any = None, **options: Any) -> RetrieverQueryEngine:
    synthesizer = kit.synthesizer(script or kit.script, **options)
    return RetrieverQueryEngine(kit.retriever(kit.nodes()), synthesizer)


def test_a_router_passes_one_engine_s_answer_through(kit: Any) -> None:
    router = RouterQueryEngine(
        LLMSingleSelector.from_defaults(llm=choices(1)), tools(kit, engine_of(kit)), llm=MockLLM()
    )
    response = router.query(kit.question)
    assert isinstance(response, CitedResponse)
    assert "selector_result" in response.metadata
    assert kit.check(response)


def test_a_router_over_two_engines_keeps_source_nodes_only(kit: Any) -> None:
    """Documented: its summary is made of strings; opt into citation nodes to keep quotes."""
    engine = engine_of(kit, citation_nodes=True)
    router = RouterQueryEngine(
        LLMMultiSelector.from_defaults(llm=choices(1, 2)),
        tools(kit, engine, engine),
        llm=MockLLM(),
        summarizer=__import__(
            "llama_index.core.response_synthesizers", fromlist=["TreeSummarize"]
        ).TreeSummarize(llm=MockLLM()),
    )
    response = router.query(kit.question)
    assert collect_citations(response) == []
    quotes = [n for n in response.source_nodes if "citation" in n.node.metadata]
    assert [n.node.text for n in quotes].count("9:30") == 2


def test_sub_questions_are_cited_from_the_nodes_behind_them(kit: Any) -> None:
    script = (
        "</think>So <|start_recall|>9:30<|end_recall|> and <|start_recall|>Response<|end_recall|>."
    )
    engine = SubQuestionQueryEngine(
        FixedQuestions("When does it leave?", tool="t0"),
        kit.synthesizer(script, documents=kit.documents),
        tools(kit, engine_of(kit)),
        verbose=False,
    )
    response = engine.query(kit.question)
    first, second = kit.check(response, kit.documents, least=2)
    assert (first.text, first.node_id, first.level, first.derived) == (
        "9:30",
        "n1",
        "document",
        False,
    )
    assert (second.text, second.derived, second.level) == ("Response", True, "text")


def test_an_engine_behind_an_index_node_leaves_small_plain_metadata(kit: Any) -> None:
    engine = engine_of(kit)
    node = IndexNode(text="ferry", index_id="e", obj=engine)
    outer = kit.retriever([NodeWithScore(node=node, score=1.0)], object_map={"e": engine})
    found = outer.retrieve(kit.question)
    assert found[0].node.text == ANSWER
    metadata = found[0].node.metadata
    assert json.loads(json.dumps(metadata)) == metadata
    assert [c.text for c in collect_citations(metadata)] == [
        c.text for c in engine.query(kit.question).citations
    ]


async def test_evaluators_read_our_responses(kit: Any) -> None:
    response = engine_of(kit).query(kit.question)
    result = FaithfulnessEvaluator(llm=MockLLM()).evaluate_response(response=response)
    assert result.response == ANSWER
    assert len(result.contexts) == 2


# chat engines


def chat_llm(kit: Any) -> Any:
    """Repeats the last question when it condenses, else follows the script."""

    def script(prompt: str) -> str:
        return "</think>leave?" if "Standalone question" in prompt else kit.script

    return kit.llm(script)


async def test_condensing_chats_keep_our_response_among_their_sources(kit: Any) -> None:
    """Documented: ``astream_chat`` of the stock engine has no source_nodes; read the sources."""
    engine = CondenseQuestionChatEngine.from_defaults(
        query_engine=RecaLLMQueryEngine.build(index_of(kit), kit.llm()),
        llm=chat_llm(kit),
        memory=ChatMemoryBuffer.from_defaults(token_limit=10_000),
    )
    response = engine.chat(kit.question)
    assert kit.check(response.sources[0].raw_output)
    assert response.source_nodes
    assert collect_citations(response) == response.sources[0].raw_output.citations
    response = await engine.achat(kit.question)
    assert collect_citations(response)
    stream = engine.stream_chat(kit.question)
    assert "".join(stream.response_gen) == ANSWER
    assert collect_citations(stream)
    astream = await engine.astream_chat(kit.question)
    assert "".join([text async for text in astream.async_response_gen()]) == ANSWER
    assert astream.source_nodes == []
    assert kit.check(astream.sources[0].raw_output)


def test_the_stock_context_chat_swallows_a_synthesizer(kit: Any) -> None:
    """Documented: it builds its own; ``RecaLLMChatEngine`` takes its place."""
    engine = index_of(kit).as_chat_engine(
        "condense_plus_context",
        llm=kit.llm("</think>Hi."),
        response_synthesizer=kit.synthesizer(),
        memory=ChatMemoryBuffer.from_defaults(token_limit=10_000),
    )
    response = engine.chat(kit.question)
    assert collect_citations(response) == []
    assert response.source_nodes


async def test_our_chat_engine_cites_in_every_way_to_ask(kit: Any) -> None:
    def engine() -> RecaLLMChatEngine:
        return RecaLLMChatEngine.build(index_of(kit), chat_llm(kit), documents=kit.documents)

    assert isinstance(engine(), CondensePlusContextChatEngine)
    one = engine().chat(kit.question)
    assert one.response == ANSWER
    found = [one, await engine().achat(kit.question)]
    stream = engine().stream_chat(kit.question)
    assert "".join(stream.response_gen) == ANSWER
    astream = await engine().astream_chat(kit.question)
    assert "".join([text async for text in astream.async_response_gen()]) == ANSWER
    for response in (*found, stream, astream):
        assert response.response == ANSWER
        assert len(response.source_nodes) == 2
        citations = kit.check(response.answer, kit.documents, least=3)
        assert {citation.level for citation in citations} == {"document"}
        assert response.citations == citations == collect_citations(response)
        assert response.reasoning.startswith("I look.")
        assert not response.abstained
        assert response.cited_nodes


def test_our_chat_engine_remembers_and_condenses(kit: Any) -> None:
    llm = chat_llm(kit)
    engine = RecaLLMChatEngine.build(index_of(kit), llm, system_prompt="Be {kind}.")
    engine.chat(kit.question)
    engine.chat("And {then}?")
    assert [message.role.value for message in engine.chat_history] == ["user", "assistant"] * 2
    requests = llm.engine.backend.requests
    assert len(requests) == 3  # an answer; a condensed question and its answer
    prompt = bytes(t for t in requests[-1].token_ids.tolist() if t < 256).decode()
    assert "Be {kind}." in prompt
    assert ANSWER in prompt
    assert "And {then}?" in prompt
    engine.reset()
    assert engine.chat_history == []


# tools and agents


async def test_a_tool_that_streams_is_drained_without_a_deadlock(kit: Any) -> None:
    engine = engine_of(kit, streaming=True)
    tool = QueryEngineTool.from_defaults(engine)
    output = await asyncio.wait_for(tool.acall("When?"), 60)
    assert output.content == ANSWER
    assert kit.check(output.raw_output)
    assert tool.call("When?").content == ANSWER
    preset = CitedQueryEngineTool.build(engine, "docs", "finds")
    for found in (preset.call("When?"), await asyncio.wait_for(preset.acall("When?"), 60)):
        assert found.content.startswith("It leaves at 9:30 [1] [2]; leave")
        assert "Parental leave is 16 weeks" in found.content
        assert kit.check(found.raw_output)
        json.loads(found.model_dump_json())


def memory() -> ChatMemoryBuffer:
    return ChatMemoryBuffer.from_defaults(token_limit=100_000)


def function_llm(name: str) -> MockFunctionCallingLLM:
    def reply(messages: Any, **_: Any) -> Any:
        if any(message.role.value == "tool" for message in messages):
            return ChatMessage(role="assistant", content="In my own words.")
        call = ToolCallBlock(tool_call_id="1", tool_name=name, tool_kwargs={"input": "When?"})
        return ChatMessage(role="assistant", blocks=[call])

    return MockFunctionCallingLLM(response_generator=reply)


class Reacting(MockLLM):
    """Calls the tool once, then answers."""

    def _reply(self, messages: Any) -> str:
        seen = any("Observation:" in (m.content or "") for m in messages[1:])
        if seen:
            return "Thought: I can answer.\nAnswer: In my own words."
        return 'Thought: I need a tool.\nAction: docs\nAction Input: {"input": "When?"}'

    async def astream_chat(self, messages: Any, **_: Any) -> Any:
        from llama_index.core.base.llms.types import ChatResponse

        text = self._reply(messages)

        async def pieces() -> Any:
            said = ChatMessage(role="assistant", content=text)
            yield ChatResponse(message=said, delta=text)

        return pieces()


@pytest.mark.parametrize("kind", ["function", "react"])
@pytest.mark.parametrize("direct", [True, False])
async def test_agents_keep_citations_whatever_they_say(kit: Any, kind: str, direct: bool) -> None:
    engine = engine_of(kit)
    tool = CitedQueryEngineTool.build(engine, "docs", "finds", return_direct=direct)
    agent: Any
    if kind == "function":
        agent = FunctionAgent(tools=[tool], llm=function_llm("docs"))
    else:
        agent = ReActAgent(tools=[tool], llm=Reacting())
    output = await agent.run(kit.question, memory=memory())
    assert isinstance(output, AgentOutput)
    expected = engine.query(kit.question).citations
    assert collect_citations(output) == expected
    text = str(output)
    assert ("[1]" in text) if direct else text == "In my own words."


async def test_our_model_drives_a_react_agent(kit: Any) -> None:
    kit.recipe = None  # a quote that is forced behind a thought isn't a step of the agent's

    def script(prompt: str) -> str:
        if "Observation: It leaves" in prompt:
            return "</think>Thought: I can answer.\nAnswer: At half past nine."
        call = '</think>Thought: I need a tool.\nAction: docs\nAction Input: {"input": "When?"}'
        return "Which tool? " + call

    tool = CitedQueryEngineTool.build(engine_of(kit), "docs", "finds", return_direct=False)
    handler = ReActAgent(tools=[tool], llm=kit.llm(script)).run(kit.question, memory=memory())
    thoughts = []
    async for event in handler.stream_events():
        thoughts.append(getattr(event, "thinking_delta", None) or "")
    output = await handler
    assert str(output) == "At half past nine."
    assert "Which tool?" in "".join(thoughts)
    assert len(collect_citations(output)) == 3


class Found(Event):
    citations: list[Citation]


async def test_our_model_drives_a_function_agent_and_quotes_what_tools_return(kit: Any) -> None:
    def price(of: str) -> str:
        """Looks up a price."""
        return f"The {of} costs 14 euros."

    def script(prompt: str) -> str:
        if "Result of price" in prompt:
            return "</think>It is <|start_recall|>14 euros<|end_recall|>."
        call = {"name": "price", "arguments": {"of": "ticket"}}
        return f"A tool knows.</think><tool_call>\n{json.dumps(call)}\n</tool_call>"

    llm = kit.llm(script)
    assert llm.metadata.is_function_calling_model
    agent = FunctionAgent(tools=[FunctionTool.from_defaults(price)], llm=llm)
    handler = agent.run("What does a ticket cost?", memory=memory())
    thoughts = [getattr(e, "thinking_delta", None) or "" async for e in handler.stream_events()]
    output = await handler
    assert str(output) == "It is 14 euros."
    assert "A tool knows." in "".join(thoughts)
    assert output.tool_calls[0].tool_output.content == "The ticket costs 14 euros."
    assert output.response.blocks[-1].cited_content.text == "14 euros"


class Plan(BaseModel):
    """When and how long."""

    leaves: str
    weeks: int


FILLED = (
    "<|start_recall|>at 9:30<|end_recall|> and "
    '<|start_recall|>16 weeks<|end_recall|></think>{"leaves": "at 9:30", "weeks": 16}'
)


async def test_answers_can_be_objects_with_evidence(kit: Any) -> None:
    kit.recipe = None  # objects that owe evidence have it before them, and cite it as a whole
    synthesizer = kit.synthesizer(FILLED, output_cls=Plan, documents=kit.documents)
    engine = RetrieverQueryEngine(kit.retriever(kit.nodes()), synthesizer)
    for response in (engine.query(kit.question), await engine.aquery(kit.question)):
        assert isinstance(response, PydanticResponse)
        assert response.response == Plan(leaves="at 9:30", weeks=16)
        assert response.weeks == 16
        citations = kit.check(response, kit.documents, least=2)
        for citation in citations:
            said = response.text[citation.answer_start : citation.answer_end]
            assert said in ("at 9:30", "16", "16 weeks")
        assert collect_citations(response) == citations
        assert response.get_response().citations == citations
    assert synthesizer.get_response("Q?", [kit.ferry, kit.leave]) == Plan(
        leaves="at 9:30", weeks=16
    )
    synthesizer._streaming = True
    with pytest.raises(ValueError, match="streaming doesn't go with output_cls=Plan"):
        engine.query(kit.question)
    with pytest.raises(ValueError, match="leave one of the two out"):
        await engine.aquery(kit.question)
    cut = kit.synthesizer(FILLED, output_cls=Plan)
    cut.llm.max_tokens = 30
    with pytest.raises(GenerationError, match="Plan was cut off; raise max_tokens"):
        cut.synthesize(kit.question, kit.nodes())


async def test_structured_predictions_fit_the_class(kit: Any) -> None:
    llm = kit.llm(FILLED)
    prompt = PromptTemplate("The ferry leaves at 9:30 for 16 weeks. {ask}")
    expected = Plan(leaves="at 9:30", weeks=16)
    assert llm.structured_predict(Plan, prompt, ask="When?") == expected
    assert await llm.astructured_predict(Plan, prompt, ask="When?") == expected
    structured = llm.as_structured_llm(Plan)
    assert structured.chat([ChatMessage(content="At 9:30, 16 weeks.")]).raw == expected


def test_citations_cross_workflows_as_pydantic_models(kit: Any) -> None:
    found = Found(citations=engine_of(kit).query(kit.question).citations)
    serializer = JsonSerializer()
    back = serializer.deserialize(serializer.serialize(found))
    assert back == found


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_workflow_hands_out_plain_events(kit: Any, streaming: bool) -> None:
    engine = RecaLLMQueryEngine.build(
        index_of(kit), kit.llm(), documents=kit.documents, streaming=streaming
    )
    expected = kit.synthesizer(documents=kit.documents).synthesize(
        kit.question, engine.retrieve(QueryBundle(kit.question))
    )
    handler = RecaLLMWorkflow(engine).run(question=kit.question)
    seen = [event async for event in handler.stream_events()]
    answered = await handler
    assert (answered.answer, answered.abstained) == (ANSWER, False)
    assert answered.citations == expected.citations
    assert answered.reasoning == expected.reasoning
    deltas = [event.delta for event in seen if isinstance(event, AnswerDeltaEvent)]
    assert "".join(deltas) == (ANSWER if streaming else "")
    serializer = JsonSerializer()
    found = RetrievedEvent(
        question="?", passages=[Passage.of(each) for each in expected.source_nodes]
    )
    for event in (answered, found):
        assert serializer.deserialize(serializer.serialize(event)) == event


# no hosted provider


ALONE = """
import asyncio, os, socket, sys

def refuse(*_, **__):
    raise AssertionError("the network was asked for something")

socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
assert not [name for name in os.environ if name.endswith("_API_KEY")]

from llama_index.core import Document, Settings, StorageContext, VectorStoreIndex
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index_recallm import *
from recallm_core.testing import scripted_llm

llm = RecaLLM(scripted_llm("</think>At <|start_recall|>nine<|end_recall|>."))
documents = [Document(text="The ferry leaves at nine.")]
storage = StorageContext.from_defaults(vector_store=RecaLLMVectorStore())
index = VectorStoreIndex.from_documents(
    documents, storage_context=storage, embed_model=RecaLLMEmbedding()
)
engine = RecaLLMQueryEngine.build(index, llm, documents=documents)
packer = RecaLLMContextPacker(llm=llm, documents=documents, docstore=index)
stock = RetrieverQueryEngine(index.as_retriever(), RecaLLMSynthesizer(llm), [packer])
tool = CitedQueryEngineTool.build(engine, "docs", "finds")
chat = RecaLLMChatEngine.build(index, llm)

async def asked():
    yield await engine.aquery("When?")
    yield await chat.achat("And then?")
    yield (await tool.acall("When?")).raw_output
    yield await RecaLLMWorkflow(engine).run(question="When?")

async def every():
    return [each async for each in asked()]

found = [engine.query("When?"), stock.query("When?"), chat.chat("When?")]
for response in found + asyncio.run(every()):
    assert [c.text for c in response.citations] == ["nine"], response
assert RecaLLMSynthesizer().llm.model == "recallm-mini"
assert Settings._llm is None and Settings._embed_model is None
bad = [
    m
    for m in sys.modules
    if m.split(".")[0] in ("openai", "anthropic", "vllm", "cohere")
    or m.startswith(("llama_index.llms", "llama_index.embeddings", "llama_index.agent"))
]
assert not bad, bad
"""


def test_nothing_of_a_hosted_provider_is_imported_or_needed() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
    done = subprocess.run(
        [sys.executable, "-c", ALONE],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        env=environment,
    )
    assert done.returncode == 0, done.stderr


def test_settings_are_never_asked_for_a_model(kit: Any, monkeypatch: Any) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("a default model was asked for")

    monkeypatch.setattr(type(Settings), "llm", property(refuse))
    monkeypatch.setattr(type(Settings), "embed_model", property(refuse))
    index = index_of(kit)
    assert RecaLLMQueryEngine.build(index, kit.llm()).query(kit.question).citations
    assert RecaLLMChatEngine.build(index, kit.llm()).chat(kit.question).citations


def test_collecting_finds_nothing_in_nothing() -> None:
    for nothing in (None, "text", 3, [], {}, Document(text="x")):
        assert collect_citations(nothing) == []
