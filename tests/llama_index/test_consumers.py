"""What LlamaIndex's own engines, chats and agents leave of a cited answer, row by row."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.agent.workflow.workflow_events import ToolCallResult
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ToolCallBlock,
)
from llama_index.core.chat_engine import ContextChatEngine
from llama_index.core.chat_engine.types import StreamingAgentChatResponse
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.llms import MockLLM
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.postprocessor import (
    LongContextReorder,
    MetadataReplacementPostProcessor,
    SimilarityPostprocessor,
)
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import (
    CitationQueryEngine,
    RetrieverQueryEngine,
    RouterQueryEngine,
    SubQuestionQueryEngine,
)
from llama_index.core.question_gen.types import BaseQuestionGenerator, SubQuestion
from llama_index.core.response_synthesizers import TreeSummarize
from llama_index.core.schema import NodeRelationship, TextNode
from llama_index.core.selectors import LLMMultiSelector, LLMSingleSelector
from llama_index.core.tools import QueryEngineTool
from llama_index.core.workflow import JsonSerializer
from pydantic import BaseModel

from llama_index_recallm import (
    AsyncCitedStreamingResponse,
    CitedResponse,
    RecaLLMContextPacker,
    RecaLLMEmbedding,
    RecaLLMQueryEngine,
    collect_citations,
)

ANSWER = "It leaves at 9:30; leave is 16 weeks."


class Plan(BaseModel):
    """When and how long."""

    leaves: str
    weeks: int


FILLED = (
    "<|start_recall|>at 9:30<|end_recall|> and "
    '<|start_recall|>16 weeks<|end_recall|></think>{"leaves": "at 9:30", "weeks": 16}'
)


def index_of(kit: Any) -> VectorStoreIndex:
    return VectorStoreIndex.from_documents(list(kit.documents), embed_model=RecaLLMEmbedding())


def engine_of(kit: Any, **options: Any) -> RetrieverQueryEngine:
    synthesizer = kit.synthesizer(documents=kit.documents, **options)
    return RetrieverQueryEngine(kit.retriever(kit.nodes()), synthesizer)


def memory() -> ChatMemoryBuffer:
    return ChatMemoryBuffer.from_defaults(token_limit=100_000)


# query engines


async def test_postprocessors_come_between_and_citations_stay_true(kit: Any) -> None:
    nodes = [*kit.nodes(), kit.node("Noise.", 0, "d3", id_="n3", score=0.1)]
    nodes[1].node.metadata["window"] = f"Before. {kit.leave}"
    nodes[1].node.relationships[NodeRelationship.NEXT] = nodes[0].node.as_related_node_info()
    steps = [
        SimilarityPostprocessor(similarity_cutoff=0.5),
        MetadataReplacementPostProcessor("window"),
        LongContextReorder(),
        RecaLLMContextPacker(llm=kit.llm(), documents=kit.documents),
    ]
    synthesizer = kit.synthesizer(documents=kit.documents)
    engine = RetrieverQueryEngine(kit.retriever(nodes), synthesizer, steps)
    for response in (engine.query(kit.question), await engine.aquery(kit.question)):
        citations = kit.check(response, kit.documents, least=3)
        assert {citation.level for citation in citations} == {"document"}
        assert "n3" not in [each.node.node_id for each in response.source_nodes]


async def test_our_factory_forwards_prompts_and_classes(kit: Any) -> None:
    kit.recipe = None  # an object that owes evidence has less of it than the script quotes
    engine = RecaLLMQueryEngine.build(
        index_of(kit),
        kit.llm(FILLED),
        documents=kit.documents,
        output_cls=Plan,
        text_qa_template=PromptTemplate("Be brief. {query_str}"),
    )
    for response in (engine.query(kit.question), await engine.aquery(kit.question)):
        assert response.response == Plan(leaves="at 9:30", weeks=16)
        assert kit.check(response, kit.documents, least=2)
        tokens = engine._response_synthesizer.llm.engine.backend.requests[-1].token_ids.tolist()
        assert b"Be brief." in bytes(token for token in tokens if token < 256)
    assert "response_synthesizer:text_qa_template" in engine.get_prompts()


def test_our_engine_is_cited_however_it_is_made(kit: Any) -> None:
    engine = RecaLLMQueryEngine.from_args(kit.retriever(kit.nodes()), kit.llm(), streaming=True)
    response = engine.query(kit.question)
    assert "".join(response.response_gen) == ANSWER
    assert kit.check(response, kit.documents, least=3)
    own = kit.synthesizer(documents=kit.documents)
    engine = RecaLLMQueryEngine.from_args(
        kit.retriever(kit.nodes()), kit.llm(), response_synthesizer=own
    )
    assert kit.check(engine.query(kit.question), kit.documents, least=3)


async def test_the_stock_factory_ignores_what_it_is_told_beside_a_synthesizer(kit: Any) -> None:
    """Documented: give ``streaming``, ``output_cls`` and the prompt to the synthesizer."""
    engine = index_of(kit).as_query_engine(
        llm=kit.llm(),
        response_synthesizer=kit.synthesizer(documents=kit.documents),
        streaming=True,
        output_cls=Plan,
        text_qa_template=PromptTemplate("Never said. {query_str}"),
    )
    for response in (engine.query(kit.question), await engine.aquery(kit.question)):
        assert type(response) is CitedResponse
        assert kit.check(response, kit.documents, least=3)


async def test_a_citation_query_engine_gives_new_nodes_and_ignores_its_templates(kit: Any) -> None:
    """Documented: don't nest; the citations are right, but name the nodes that it made."""
    synthesizer = kit.synthesizer(documents=kit.documents)
    engine = CitationQueryEngine(
        kit.retriever(kit.nodes()), llm=MockLLM(), response_synthesizer=synthesizer
    )
    for response in (engine.query(kit.question), await engine.aquery(kit.question)):
        citations = kit.check(response, kit.documents, least=3)
        assert {citation.ref_doc_id for citation in citations} == {"d1", "d2"}
        assert {citation.node_id for citation in citations}.isdisjoint({"n1", "n2"})
        tokens = synthesizer.llm.engine.backend.requests[-1].token_ids.tolist()
        assert b"Please provide an answer" not in bytes(token for token in tokens if token < 256)


def choosing(*numbers: int) -> MockLLM:
    reply = json.dumps([{"choice": n, "reason": "fits"} for n in numbers])

    class Choosing(MockLLM):
        def complete(self, *_: Any, **__: Any) -> CompletionResponse:
            return CompletionResponse(text=reply)

        async def acomplete(self, *_: Any, **__: Any) -> CompletionResponse:
            return self.complete()

        def chat(self, messages: Any, **_: Any) -> ChatResponse:
            return ChatResponse(message=ChatMessage(role="assistant", content=reply))

        async def achat(self, messages: Any, **_: Any) -> ChatResponse:
            return self.chat(messages)

    return Choosing()


@pytest.mark.parametrize("streaming", [False, True])
async def test_routers_pass_one_answer_on_and_mix_several(kit: Any, streaming: bool) -> None:
    """Documented: of several answers only source nodes are left; citation nodes keep quotes."""
    tools = [
        QueryEngineTool.from_defaults(
            engine_of(kit, streaming=streaming, citation_nodes=True), name=f"t{n}", description="d"
        )
        for n in range(2)
    ]
    one = RouterQueryEngine(LLMSingleSelector.from_defaults(llm=choosing(2)), tools, llm=MockLLM())
    for response in (one.query(kit.question), await one.aquery(kit.question)):
        assert "selector_result" in response.metadata
        assert str(response) == ANSWER
        assert kit.check(response, kit.documents, least=3)
        assert response.metadata["recallm"]["citations"]
    summary = TreeSummarize(llm=MockLLM())
    chooser = LLMMultiSelector.from_defaults(llm=choosing(1, 2))
    several = RouterQueryEngine(chooser, tools, llm=MockLLM(), summarizer=summary)
    mixed = several.query(kit.question)
    assert collect_citations(mixed) == []
    assert {each.node.node_id for each in mixed.source_nodes} >= {"n1", "n2"}
    quotes = [each.node.text for each in mixed.source_nodes if "citation" in each.node.metadata]
    assert quotes.count("9:30") == 2


class FixedQuestions(BaseQuestionGenerator):
    """Asks the same questions of one tool, whatever is asked."""

    def __init__(self, *questions: str, tool: str = "t") -> None:
        self._asked = [SubQuestion(sub_question=text, tool_name=tool) for text in questions]

    def _get_prompts(self) -> Any:
        return {}

    def _update_prompts(self, prompts: Any) -> None: ...

    def generate(self, tools: Any, query: Any) -> list[SubQuestion]:
        return self._asked

    async def agenerate(self, tools: Any, query: Any) -> list[SubQuestion]:
        return self.generate(tools, query)


async def test_sub_questions_are_cited_from_the_nodes_behind_them_in_both_ways(kit: Any) -> None:
    script = "</think>So <|start_recall|>9:30<|end_recall|>, see <|start_recall|>Sub<|end_recall|>."
    for use_async in (False, True):
        engine = SubQuestionQueryEngine(
            FixedQuestions("1?", "2?"),
            kit.synthesizer(script, documents=kit.documents),
            [QueryEngineTool.from_defaults(engine_of(kit), name="t", description="d")],
            verbose=False,
            use_async=use_async,
        )
        found = (
            await engine.aquery("Q?") if use_async else await asyncio.to_thread(engine.query, "Q?")
        )
        first, second = kit.check(found, kit.documents, least=2)
        assert (first.node_id, first.derived, first.level) == ("n1", False, "document")
        assert (second.derived, second.level) == (True, "text")


# chats


async def test_an_index_s_condensing_chat_takes_the_synthesizer(kit: Any) -> None:
    """Documented: its responses have no metadata; read ``sources`` or ``collect_citations``."""
    engine = index_of(kit).as_chat_engine(
        "condense_question",
        llm=kit.llm("</think>When?"),
        response_synthesizer=kit.synthesizer(documents=kit.documents),
        memory=memory(),
    )
    found = [engine.chat(kit.question), await engine.achat(kit.question)]
    stream = engine.stream_chat(kit.question)
    assert "".join(stream.response_gen) == ANSWER
    astream = await engine.astream_chat(kit.question)
    assert "".join([text async for text in astream.async_response_gen()]) == ANSWER
    assert astream.source_nodes == []
    for response in (*found, stream, astream):
        assert getattr(response, "metadata", None) is None
        citations = kit.check(response.sources[0].raw_output, kit.documents, least=3)
        assert collect_citations(response) == citations
    assert isinstance(astream.sources[0].raw_output, AsyncCitedStreamingResponse)
    assert isinstance(engine.chat(kit.question).sources[0].raw_output, CitedResponse)


@pytest.mark.parametrize("mode", ["context", "condense_plus_context", "best"])
def test_stock_context_chats_swallow_a_synthesizer(kit: Any, mode: str) -> None:
    """Documented: ``RecaLLMChatEngine`` takes their place."""
    options = {"llm": kit.llm("</think>Hi."), "memory": memory()}
    index = index_of(kit)
    engine: Any = index.as_chat_engine(mode, response_synthesizer=kit.synthesizer(), **options)
    assert (mode == "context") == isinstance(engine, ContextChatEngine)
    response = engine.chat(kit.question)
    assert collect_citations(response) == []
    assert len(response.source_nodes) == 2
    assert not hasattr(StreamingAgentChatResponse(), "metadata")


# agents


def function_llm() -> Any:
    def reply(messages: Any, **_: Any) -> Any:
        if any(message.role.value == "tool" for message in messages):
            return ChatMessage(role="assistant", content="In my own words.")
        call = ToolCallBlock(tool_call_id="1", tool_name="docs", tool_kwargs={"input": "When?"})
        return ChatMessage(role="assistant", blocks=[call])

    return MockFunctionCallingLLM(response_generator=reply)


class Reacting(MockLLM):
    """Calls the tool once, then answers."""

    async def astream_chat(self, messages: Any, **_: Any) -> Any:
        seen = any("Observation:" in (m.content or "") for m in messages[1:])
        text = "Thought: I can answer.\nAnswer: In my own words."
        if not seen:
            text = 'Thought: A tool.\nAction: docs\nAction Input: {"input": "When?"}'

        async def pieces() -> Any:
            said = ChatMessage(role="assistant", content=text)
            yield ChatResponse(message=said, delta=text)

        return pieces()


def agent_of(kind: str, tool: Any) -> Any:
    if kind == "react":
        return ReActAgent(tools=[tool], llm=Reacting())
    if kind == "function":
        return FunctionAgent(tools=[tool], llm=function_llm())
    return AgentWorkflow.from_tools_or_functions([tool], llm=function_llm())


@pytest.mark.parametrize("kind", ["function", "react", "workflow"])
@pytest.mark.parametrize("streaming", [False, True])
async def test_a_stock_tool_carries_our_response_through_agents(
    kit: Any, kind: str, streaming: bool
) -> None:
    """Documented: the agent sees text only, and words the answer anew."""
    tool = QueryEngineTool.from_defaults(
        engine_of(kit, streaming=streaming), name="docs", description="finds"
    )
    handler = agent_of(kind, tool).run(kit.question, memory=memory())
    results = [e async for e in handler.stream_events() if isinstance(e, ToolCallResult)]
    output = await handler
    assert str(output) == "In my own words."
    (result,) = results
    assert result.tool_output.content == ANSWER
    citations = kit.check(result.tool_output.raw_output, kit.documents, least=3)
    assert collect_citations(output) == citations == collect_citations(results)
    (called,) = output.tool_calls
    assert called.tool_output.raw_output is result.tool_output.raw_output
    json.loads(result.tool_output.model_dump_json())


@pytest.mark.parametrize("kind", ["function", "react", "workflow"])
async def test_a_tool_that_returns_directly_gives_the_answer_as_it_is(kit: Any, kind: str) -> None:
    """Documented: ``AgentOutput.raw`` holds it; serialising the output drops ``raw``."""
    tool = QueryEngineTool.from_defaults(
        engine_of(kit), name="docs", description="finds", return_direct=True
    )
    output = await agent_of(kind, tool).run(kit.question, memory=memory())
    assert str(output) == ANSWER
    citations = kit.check(output.raw, kit.documents, least=3)
    assert collect_citations(output) == citations
    assert not any(isinstance(call, ToolCallResult) for call in output.tool_calls)
    assert "raw" not in output.model_dump()


# events and serializers


def test_responses_and_nodes_do_not_cross_workflows_but_their_data_does(kit: Any) -> None:
    """Documented: LlamaIndex's serializer takes neither; pydantic citations and JSON it takes."""
    response = engine_of(kit).query(kit.question)
    serializer = JsonSerializer()
    with pytest.raises((TypeError, ValueError)):
        serializer.serialize(response)
    node = serializer.serialize(response.source_nodes[0])
    with pytest.raises((TypeError, ValueError)):
        serializer.deserialize(node)
    back = serializer.deserialize(serializer.serialize(response.citations))
    assert back == response.citations
    data = response.to_json()
    assert serializer.deserialize(serializer.serialize(data)) == data


@pytest.mark.parametrize("streaming", [False, True])
async def test_spans_nest_as_those_of_a_stock_synthesizer(kit: Any, streaming: bool) -> None:
    async def parents(engine: RetrieverQueryEngine, asynchronous: bool) -> set[tuple[str, str]]:
        handler, root = SimpleSpanHandler(), get_dispatcher()
        root.add_span_handler(handler)
        try:
            if asynchronous:
                await asyncio.to_thread(str, await engine.aquery("Q?"))
            else:
                await asyncio.to_thread(lambda: str(engine.query("Q?")))
        finally:
            root.span_handlers.remove(handler)
        names = {span.id_: span.id_.split("-")[0] for span in handler.completed_spans}
        found = {(names.get(s.parent_id or "", ""), names[s.id_]) for s in handler.completed_spans}
        return {pair for pair in found if "ynthesize" in pair[1] or "uery" in pair[1]}

    for asynchronous in (False, True):
        ours = await parents(engine_of(kit, streaming=streaming), asynchronous)
        llm = kit.llm()
        stock = RetrieverQueryEngine.from_args(
            kit.retriever(kit.nodes()), llm=llm, streaming=streaming, response_mode="compact"
        )
        theirs = await parents(stock, asynchronous)
        assert {(a, b.replace("CompactAndRefine", "RecaLLMSynthesizer")) for a, b in theirs} == ours


async def test_five_concurrent_questions_are_answered_like_one(kit: Any) -> None:
    one = kit.said(engine_of(kit).query(kit.question))
    for streaming in (False, True):
        engine = engine_of(kit, streaming=streaming)
        every = await asyncio.gather(*(engine.aquery(kit.question) for _ in range(5)))
        every += await asyncio.gather(
            *(asyncio.to_thread(engine.query, kit.question) for _ in range(5))
        )
        texts = await asyncio.gather(*(asyncio.to_thread(str, each) for each in every))
        assert set(texts) == {ANSWER}
        for response in every:
            assert kit.said(response) == one
            kit.check(response, kit.documents, least=3)


def test_only_text_and_source_nodes_cross_every_boundary(kit: Any) -> None:
    response = engine_of(kit, citation_nodes=True).query(kit.question)
    quotes = [each for each in response.source_nodes if "citation" in each.node.metadata]
    texts = {document.id_: document.text for document in kit.documents}
    assert len(quotes) == 3
    for each in quotes:
        copy = TextNode.from_dict(json.loads(json.dumps(each.node.to_dict())))
        assert texts[copy.ref_doc_id][copy.start_char_idx : copy.end_char_idx] == copy.text
