"""Responses of any engine, checked: citations for what the nodes hold, a verdict on every quote."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.chat_engine.types import AgentChatResponse
from llama_index.core.llms.mock import MockLLM
from llama_index.core.query_engine import CitationQueryEngine, RetrieverQueryEngine
from llama_index.core.response_synthesizers import CompactAndRefine
from llama_index.core.schema import QueryBundle

from llama_index_recallm import QuoteCheckQueryEngine, check_response

SAID = "It says “the ferry leaves  Port Hallow at 9:30” [1] and “Parental leave is 18 weeks” [2]."


class Saying(MockLLM):
    def complete(self, prompt: str, formatted: bool = False, **options: Any) -> Any:
        response = super().complete("x", formatted=formatted, **options)
        response.text = SAID
        return response

    def stream_complete(self, prompt: str, formatted: bool = False, **options: Any) -> Any:
        response = self.complete(prompt)
        half = len(SAID) // 2
        for text, delta in ((SAID[:half], SAID[:half]), (SAID, SAID[half:])):
            yield response.model_copy(update={"text": text, "delta": delta})


def check(kit: Any, response: Any, documents: Any = ()) -> None:
    (citation,) = kit.check(response, documents)
    assert (citation.text, citation.basis) == ("The ferry leaves Port Hallow at 9:30", "matched")
    found = response.metadata["quotes"]
    assert [quote["verdict"] for quote in found["quotes"]] == ["drift", "altered"]
    assert (found["ok"], found["repairs"]) == (False, 1)
    assert str(response) == SAID.replace("the ferry leaves  Port", "The ferry leaves Port")


async def test_engines_that_people_have_are_checked(kit: Any) -> None:
    retriever = kit.retriever(kit.nodes())
    for streaming in (False, True):
        stock = CompactAndRefine(llm=Saying(), streaming=streaming)
        for inner in (
            RetrieverQueryEngine(retriever, stock),
            CitationQueryEngine(retriever, llm=Saying(), response_synthesizer=stock),
        ):
            engine = QuoteCheckQueryEngine(inner, documents=kit.documents)
            check(kit, engine.query("?"), kit.documents)
            check(kit, await engine.aquery("?"), kit.documents)
    assert engine.get_prompts()


async def test_a_chats_response_is_checked_as_well(kit: Any) -> None:
    chat = AgentChatResponse(response=SAID, source_nodes=kit.nodes())
    check(kit, check_response(chat))
    assert str(check_response(chat, repair=False)) == SAID
    plain = AgentChatResponse(response="Parental leave is 16 weeks.", source_nodes=kit.nodes())
    claimed = check_response(plain, claims=True)
    assert [c.text for c in kit.check(claimed)] == ["Parental leave is 16 weeks"]
    stock = CompactAndRefine(llm=Saying(), streaming=True)
    stream = await RetrieverQueryEngine(kit.retriever(kit.nodes()), stock).aquery("?")
    with pytest.raises(TypeError, match="await the response"):
        check_response(stream)
    with pytest.raises(TypeError, match="with source nodes"):
        check_response("text")


async def test_the_engine_inside_retrieves_and_synthesizes(kit: Any) -> None:
    retriever = kit.retriever(kit.nodes())
    engine = QuoteCheckQueryEngine(RetrieverQueryEngine(retriever, CompactAndRefine(llm=Saying())))
    bundle = QueryBundle("?")
    nodes = engine.retrieve(bundle)
    assert [node.node_id for node in nodes] == [node.node_id for node in kit.nodes()]
    check(kit, engine.synthesize(bundle, nodes))
    check(kit, await engine.asynthesize(bundle, nodes))
    with pytest.raises(TypeError, match="must be a query engine, got str"):
        QuoteCheckQueryEngine("engine")  # type: ignore[arg-type]


async def test_an_engine_that_found_nothing_has_abstained(kit: Any) -> None:
    inner = RetrieverQueryEngine(kit.retriever([]), CompactAndRefine(llm=Saying()))
    engine = QuoteCheckQueryEngine(inner)
    for response in (engine.query("?"), await engine.aquery("?")):
        assert str(response) == "Empty Response"
        assert response.abstained
        assert response.metadata["recallm"]["abstained"] is True
        assert response.metadata["recallm"]["finish_reason"] == "empty"
    alone = AgentChatResponse(response="It leaves at nine.")  # words of its own are none
    assert not check_response(alone).abstained
