"""LlamaIndex's own engines, chats and agents around an LLM that ``cited`` made: the same rows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from llama_index.core.agent.workflow.workflow_events import ToolCallResult
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor import LongContextReorder, SimilarityPostprocessor
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import (
    RetrieverQueryEngine,
    RouterQueryEngine,
    SubQuestionQueryEngine,
)
from llama_index.core.response_synthesizers import TreeSummarize
from llama_index.core.selectors import LLMMultiSelector, LLMSingleSelector
from llama_index.core.tools import QueryEngineTool

from llama_index_recallm import (
    RecaLLMContextPacker,
    RecaLLMQueryEngine,
    RecaLLMSynthesizer,
    RecaLLMWorkflow,
    cited,
    collect_citations,
)
from tests.llama_index.test_cited_llm import GOOD, TEXT, Pointing
from tests.llama_index.test_consumers import (
    FixedQuestions,
    agent_of,
    choosing,
    index_of,
    memory,
)


class Steady(Pointing):
    """Points at two sentences where it is shown numbers, and says plain words elsewhere."""

    def _said(self, prompt: Any, options: Any) -> tuple[str, dict[str, Any]]:
        self.replies = [GOOD if "Reply with one JSON object" in prompt else "When?"]
        return super()._said(prompt, options)


def llm() -> Any:
    return cited(Steady())


def engine_of(kit: Any, **options: Any) -> RetrieverQueryEngine:
    synthesizer = RecaLLMSynthesizer(llm(), documents=kit.documents, **options)
    return RetrieverQueryEngine(kit.retriever(kit.nodes()), synthesizer)


async def test_postprocessors_come_between(kit: Any) -> None:
    nodes = [*kit.nodes(), kit.node("Noise.", 0, "d3", id_="n3", score=0.1)]
    steps = [
        SimilarityPostprocessor(similarity_cutoff=0.5),
        LongContextReorder(),
        RecaLLMContextPacker(llm=llm(), documents=kit.documents),
    ]
    synthesizer = RecaLLMSynthesizer(llm(), documents=kit.documents)
    engine = RetrieverQueryEngine(kit.retriever(nodes), synthesizer, steps)
    for response in (engine.query(kit.question), await engine.aquery(kit.question)):
        citations = kit.check(response, kit.documents, least=2)
        assert {(citation.basis, citation.level) for citation in citations} == {
            ("pointed", "document")
        }
        assert "n3" not in [each.node.node_id for each in response.source_nodes]


async def test_factories_take_it_and_forward_prompts(kit: Any) -> None:
    model = llm()
    template = PromptTemplate("Be brief. {query_str}")
    ours = RecaLLMQueryEngine.build(
        index_of(kit), model, documents=kit.documents, text_qa_template=template
    )
    stock = index_of(kit).as_query_engine(
        llm=model, response_synthesizer=RecaLLMSynthesizer(model, documents=kit.documents)
    )
    for engine in (ours, stock):
        for response in (engine.query(kit.question), await engine.aquery(kit.question)):
            assert kit.check(response, kit.documents, least=2)
    assert "Be brief." in model.llm.asked[0][0]


@pytest.mark.parametrize("streaming", [False, True])
async def test_routers_pass_one_answer_on_and_mix_several(kit: Any, streaming: bool) -> None:
    tools = [
        QueryEngineTool.from_defaults(
            engine_of(kit, streaming=streaming, citation_nodes=True), name=f"t{n}", description="d"
        )
        for n in range(2)
    ]
    one = RouterQueryEngine(LLMSingleSelector.from_defaults(llm=choosing(2)), tools, llm=MockLLM())
    for response in (one.query(kit.question), await one.aquery(kit.question)):
        assert str(response) == TEXT
        assert kit.check(response, kit.documents, least=2)
    chooser = LLMMultiSelector.from_defaults(llm=choosing(1, 2))
    summary = TreeSummarize(llm=MockLLM())
    mixed = RouterQueryEngine(chooser, tools, llm=MockLLM(), summarizer=summary).query("Q?")
    quotes = [each.node.text for each in mixed.source_nodes if "citation" in each.node.metadata]
    assert quotes.count("The ferry leaves Port Hallow at 9:30.") == 2


async def test_sub_questions_are_cited_from_the_nodes_behind_them(kit: Any) -> None:
    tool = QueryEngineTool.from_defaults(engine_of(kit), name="t", description="d")
    for use_async in (False, True):
        engine = SubQuestionQueryEngine(
            FixedQuestions("When?"),
            RecaLLMSynthesizer(llm()),
            [tool],
            verbose=False,
            use_async=use_async,
        )
        asked = engine.aquery("Q?") if use_async else asyncio.to_thread(engine.query, "Q?")
        assert kit.check(await asked, least=2)


async def test_an_index_s_condensing_chat_takes_it(kit: Any) -> None:
    model = llm()
    engine = index_of(kit).as_chat_engine(
        "condense_question",
        llm=model,
        response_synthesizer=RecaLLMSynthesizer(model, documents=kit.documents),
        memory=memory(),
    )
    stream = engine.stream_chat(kit.question)
    for response in (engine.chat(kit.question), await engine.achat(kit.question)):
        assert kit.check(response.sources[0].raw_output, kit.documents, least=2)
        assert len(collect_citations(response)) >= 2
    assert "".join(stream.response_gen)


@pytest.mark.parametrize("kind", ["function", "react", "workflow"])
@pytest.mark.parametrize("streaming", [False, True])
async def test_a_stock_tool_carries_it_through_agents(kit: Any, kind: str, streaming: bool) -> None:
    engine = engine_of(kit, streaming=streaming)
    tool = QueryEngineTool.from_defaults(engine, name="docs", description="finds")
    handler = agent_of(kind, tool).run(kit.question, memory=memory())
    (result,) = [e async for e in handler.stream_events() if isinstance(e, ToolCallResult)]
    output = await handler
    assert result.tool_output.content == TEXT
    citations = kit.check(result.tool_output.raw_output, kit.documents, least=2)
    assert collect_citations(output) == citations
    direct = QueryEngineTool.from_defaults(
        engine_of(kit), name="docs", description="finds", return_direct=True
    )
    output = await agent_of(kind, direct).run(kit.question, memory=memory())
    assert str(output) == TEXT
    assert kit.check(output.raw, kit.documents, least=2)


async def test_a_workflow_and_many_at_once(kit: Any) -> None:
    built = RecaLLMQueryEngine.build(kit.retriever(kit.nodes()), llm(), documents=kit.documents)
    answered = await RecaLLMWorkflow(built).run(question=kit.question)
    assert answered.answer == TEXT
    assert [citation.basis for citation in answered.citations] == ["pointed", "pointed"]
    engine = engine_of(kit)
    first = kit.said(engine.query(kit.question))
    together = await asyncio.gather(*(engine.aquery(kit.question) for _ in range(5)))
    assert all(kit.said(response) == first for response in together)
