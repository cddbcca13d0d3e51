"""Messages of any model, checked: standard annotations, verdicts, repairs; chains and agents."""

from __future__ import annotations

from typing import Any

import pytest
from langchain import agents
from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool

from langchain_recallm import check_message, message_citations, quote_checker
from langchain_recallm.check_middleware import QuoteCheckMiddleware

LEAVE = Document("The annual leave is 30 days. Sick leave is unlimited.", id="leave.md")
WORK = Document("Remote work is allowed on two days a week.", id="work.md")
BOTH = [LEAVE, WORK]
ANSWER = (
    "You get “the annual  leave is 30 days” and “Remote work is allowed on three days”, "
    "“Sick leave is unlimited” [2]."
)


def check_annotations(message: AIMessage, documents: list[Document], count: int) -> None:
    citations = message_citations(message)
    assert len(citations) == count
    for citation in citations:
        extras = citation["extras"]
        document = documents[extras["document_index"]]
        cited = document.page_content[extras["start_char_index"] : extras["end_char_index"]]
        assert cited == citation["cited_text"]


def test_sound_quotes_become_annotations_and_every_quote_has_a_verdict() -> None:
    message = check_message(AIMessage(ANSWER, id="m"), BOTH)
    check_annotations(message, BOTH, 1)
    assert message.text == ANSWER.replace("the annual  leave", "The annual leave")
    (citation,) = message_citations(message)
    cited = message.text[citation["start_index"] : citation["end_index"]]
    assert cited == "The annual leave is 30 days"
    found = message.response_metadata["quotes"]
    assert [q["verdict"] for q in found["quotes"]] == ["drift", "altered", "misattributed"]
    assert (found["ok"], found["repairs"]) == (False, 1)
    assert message.id == "m"
    assert check_message(AIMessage(ANSWER), BOTH, repair=False).text == ANSWER


def test_a_providers_own_citations_are_checked_and_become_ours() -> None:
    located = {"type": "char_location", "document_index": 0, "document_title": None}
    native = [
        {**located, "cited_text": "Sick leave is unlimited.", "start_char_index": 0,
         "end_char_index": 24},
        {**located, "cited_text": "Sick leave is limited.", "start_char_index": 0,
         "end_char_index": 22},
    ]  # fmt: skip
    message = AIMessage(
        [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "It has no limit", "citations": native},
            {"type": "text", "text": ", they say."},
        ],
        response_metadata={"model_provider": "anthropic"},
    )
    checked = check_message(message, BOTH)
    assert checked.text == "It has no limit, they say."
    check_annotations(checked, BOTH, 1)
    verdicts = [q["verdict"] for q in checked.response_metadata["quotes"]["quotes"]]
    assert verdicts == ["exact", "altered"]
    assert [block["type"] for block in checked.content_blocks] == ["reasoning", "text"]


def test_claims_are_matched_when_asked_for() -> None:
    message = AIMessage("Remote work is allowed on two days every week. Cheese is free.")
    checked = check_message(message, BOTH, claims=True)
    check_annotations(checked, BOTH, 1)
    claims = checked.response_metadata["quotes"]["claims"]
    assert [claim["citation"] is None for claim in claims] == [False, True]


def test_it_is_the_last_step_of_a_chain() -> None:
    model = GenericFakeChatModel(messages=iter([AIMessage(ANSWER)]))
    message = (model | quote_checker(BOTH)).invoke("?")
    check_annotations(message, BOTH, 1)
    result = {"input": "?", "context": BOTH, "answer": ANSWER}
    checked = quote_checker().invoke(result)
    assert checked["answer"] == message.text
    assert checked["quotes"]["counts"]["altered"] == 1
    assert checked["context"] == BOTH
    again = quote_checker().invoke({**result, "answer": AIMessage(ANSWER)})
    assert again["answer"].content == message.content
    with pytest.raises(TypeError, match="before an output parser"):
        quote_checker(BOTH).invoke("text")


class Caller(GenericFakeChatModel):
    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


@tool(response_format="content_and_artifact")
def search(query: str) -> tuple[str, list[Document]]:
    """Looks something up."""
    return "found", BOTH


def caller() -> Caller:
    call = {"name": "search", "args": {"query": "leave"}, "id": "1"}
    return Caller(messages=iter([AIMessage("", tool_calls=[call]), AIMessage(ANSWER)]))


def test_an_agents_last_message_is_checked_against_what_its_tools_found() -> None:
    agent = agents.create_agent(caller(), [search], middleware=[QuoteCheckMiddleware()])
    messages = agent.invoke({"messages": [HumanMessage("?")]})["messages"]
    assert isinstance(messages[-2], ToolMessage)
    check_annotations(messages[-1], BOTH, 1)
    assert not messages[-1].response_metadata["quotes"]["ok"]
    assert "quotes" not in messages[1].response_metadata


async def test_an_asynchronous_agent_without_tools_marks_what_it_cannot_find() -> None:
    model = Caller(messages=iter([AIMessage(ANSWER)]))
    agent = agents.create_agent(model, [], middleware=[QuoteCheckMiddleware([WORK])])
    message = (await agent.ainvoke({"messages": [HumanMessage("?")]}))["messages"][-1]
    verdicts = [q["verdict"] for q in message.response_metadata["quotes"]["quotes"]]
    assert verdicts == ["absent", "altered", "absent"]
