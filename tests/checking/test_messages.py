"""Messages of every maker: their words, the quotes in their data and the sources they name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.documents import Document as LangChainDocument
from langchain_core.messages import AIMessage, HumanMessage
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CitationBlock, TextBlock
from llama_index.core.base.response.schema import Response
from llama_index.core.schema import NodeWithScore, TextNode

from recallm_core import Answer, Document
from recallm_core.checking import QuoteReport, check_quotes
from recallm_core.errors import MessageError

LEAVE = Document("The annual leave is 30 days. Sick leave is unlimited.", "leave.md", "Leave")
WORK = Document("Remote work is allowed on two days a week.", "work.md", "Work")
BOTH = [LEAVE, WORK]


def verdicts(report: QuoteReport) -> list[tuple[str, str, str]]:
    return [(q.text, q.verdict, q.form) for q in report.quotes]


def as_object(value: Any) -> Any:
    """The same message as an SDK's objects."""
    if isinstance(value, dict):
        return SimpleNamespace(**{key: as_object(item) for key, item in value.items()})
    return [as_object(item) for item in value] if isinstance(value, list) else value


ANTHROPIC = {
    "role": "assistant",
    "content": [
        {"type": "thinking", "thinking": "“Not to be checked as it is no answer”"},
        {"type": "text", "text": "You get "},
        {
            "type": "text",
            "text": "30 days",
            "citations": [
                {
                    "type": "char_location",
                    "cited_text": "The annual leave is 30 days. ",
                    "document_index": 0,
                    "document_title": "Leave",
                    "start_char_index": 0,
                    "end_char_index": 29,
                },
                {
                    "type": "page_location",
                    "cited_text": "Remote work is allowed on three days a week.",
                    "document_index": 1,
                    "start_page_number": 1,
                    "end_page_number": 2,
                },
                {
                    "type": "content_block_location",
                    "cited_text": "Sick leave is unlimited.",
                    "document_index": 1,
                    "start_block_index": 0,
                    "end_block_index": 1,
                },
                {
                    "type": "search_result_location",
                    "cited_text": "Remote work is allowed",
                    "source": "work.md",
                    "title": "Work",
                    "search_result_index": 0,
                },
            ],
        },
        {"type": "text", "text": " a year, “Sick leave is unlimited”."},
    ],
}


@pytest.mark.parametrize("message", [ANTHROPIC, as_object(ANTHROPIC)])
def test_anthropic_citations(message: Any) -> None:
    report = check_quotes(message, BOTH)
    assert report.text == "You get 30 days a year, “Sick leave is unlimited”."
    assert verdicts(report) == [
        ("The annual leave is 30 days.", "exact", "citation"),
        ("Remote work is allowed on three days a week.", "altered", "citation"),
        ("Sick leave is unlimited.", "misattributed", "citation"),
        ("Remote work is allowed", "exact", "citation"),
        ("Sick leave is unlimited", "exact", "marks"),
    ]
    assert {report.text[q.start : q.end] for q in report.quotes[:4]} == {"30 days"}


def test_the_range_that_a_citation_names_is_preferred() -> None:
    twice = Document("Again and again. " * 3, "twice")
    location = {"cited_text": "Again and again.", "document_index": 0, "start_char_index": 17}
    block = {"type": "text", "text": "x", "citations": [{**location, "end_char_index": 33}]}
    (quote,) = check_quotes({"content": [block]}, [twice]).quotes
    assert quote.citation is not None
    assert (quote.citation.start, len(quote.citation.occurrences)) == (17, 3)


OPENAI_RESPONSE = {
    "output": [
        {"type": "reasoning", "content": []},
        {
            "type": "message",
            "content": [
                {
                    "type": "output_text",
                    "text": "It says “The annual leave is 30 days” and so on.",
                    "annotations": [
                        {
                            "type": "file_citation",
                            "file_id": "f",
                            "filename": "work.md",
                            "index": 37,
                        }
                    ],
                }
            ],
        },
    ]
}
OPENAI_CHAT = {
    "choices": [
        {
            "message": {
                "role": "assistant",
                "content": "It says “The annual leave is 30 days” (link).",
                "annotations": [
                    {
                        "type": "url_citation",
                        "url_citation": {
                            "start_index": 38, "end_index": 44, "url": "work.md", "title": "W"
                        },
                    }
                ],
            }
        }
    ]
}  # fmt: skip
OPENAI_ASSISTANT = {
    "content": [
        {
            "type": "text",
            "text": {
                "value": "It says “The annual leave is 30 days”【4:2†w】.",
                "annotations": [],
            },
        }
    ]
}


@pytest.mark.parametrize("message", [OPENAI_RESPONSE, OPENAI_CHAT, OPENAI_ASSISTANT])
@pytest.mark.parametrize("make", [dict, as_object])
def test_openai_annotations_name_the_source(message: Any, make: Any) -> None:
    (quote,) = check_quotes(make(message), BOTH).quotes
    assert (quote.text, quote.verdict) == ("The annual leave is 30 days", "misattributed")
    assert quote.claimed == ("work.md",)


@pytest.mark.parametrize(
    "citation",
    [
        {"start": 0, "end": 40, "text": "…", "document_ids": ["work.md"]},
        {"start": 0, "end": 40, "text": "…", "sources": [{"type": "document", "id": "work.md"}]},
        {"start": 0, "end": 40, "text": "…", "sources": [{"document": {"title": "Work"}}]},
    ],
)
def test_cohere_citations_name_the_source_of_their_words(citation: Any) -> None:
    words = "It says “The annual leave is 30 days”."
    response = {"message": {"content": [{"type": "text", "text": words}], "citations": [citation]}}
    (quote,) = check_quotes(response, BOTH).quotes
    assert (quote.verdict, quote.claimed) == ("misattributed", ("work.md",))


def test_langchain_messages_chains_and_states() -> None:
    annotation = {
        "type": "citation",
        "cited_text": "The annual leave is 30 days",
        "start_index": 0,
        "end_index": 7,
        "extras": {"document_index": 1, "start_char_index": 0, "end_char_index": 5},
    }
    message = AIMessage([{"type": "text", "text": "30 days it is.", "annotations": [annotation]}])
    for given in (message, [HumanMessage("?"), message], {"messages": [message]}):
        (quote,) = check_quotes(given, BOTH).quotes
        assert (quote.start, quote.end, quote.verdict) == (0, 7, "misattributed")
    context = [
        LangChainDocument(page_content=each.text, metadata={"source": each.id}) for each in BOTH
    ]
    result = {"input": "?", "answer": "“Remote work is allowed” [1]", "context": context}
    assert [q.verdict for q in check_quotes(result).quotes] == ["misattributed"]
    assert [q.verdict for q in check_quotes(result, BOTH).quotes] == ["misattributed"]


def test_llama_index_responses_and_citation_blocks() -> None:
    nodes = [
        NodeWithScore(node=TextNode(text=f"Source {n}:\n{each.text}\n", id_=each.id))
        for n, each in enumerate(reversed(BOTH), 1)
    ]
    response = Response("“Remote work is allowed” [1], “Sick leave is unlimited” [1]", nodes)
    expected = ["exact", "misattributed"]
    assert [q.verdict for q in check_quotes(response).quotes] == expected
    assert [q.verdict for q in check_quotes(response, BOTH).quotes] == expected
    block = CitationBlock(
        cited_content=TextBlock(text="Sick leave is limited."),
        source="leave.md",
        title="Leave",
        additional_location_info={},
    )
    chat = ChatResponse(
        message=ChatMessage(role="assistant", blocks=[TextBlock(text="Yes."), block])
    )
    (quote,) = check_quotes(chat, BOTH).quotes
    assert (quote.verdict, quote.start, quote.claimed) == ("altered", None, ("leave.md",))


def test_an_answer_of_this_library_is_all_exact() -> None:
    answer = check_quotes('It says "The annual leave is 30 days".', BOTH).answer
    assert isinstance(answer, Answer)
    report = check_quotes(answer)
    assert [q.verdict for q in report.quotes] == ["exact", "exact"]
    assert report.text == answer.text


@pytest.mark.parametrize("wrong", [None, 3, [], {}, {"role": "user"}, object(), b"text"])
def test_what_is_no_message_is_refused(wrong: Any) -> None:
    with pytest.raises(MessageError, match="pass the text itself, or the message"):
        check_quotes(wrong, BOTH)


def test_odd_data_in_a_message_does_no_harm() -> None:
    odd = {
        "content": [
            3,
            None,
            {"type": "image"},
            {
                "text": "“Sick leave is unlimited”",
                "citations": "none",
                "annotations": [None, 4, {}],
            },
            {"text": {"value": 7}},
            {"text": "x", "citations": [{"cited_text": 5, "document_index": "a", "start": -3}]},
        ],
        "citations": {"a": 1},
    }
    assert [q.verdict for q in check_quotes(odd, BOTH).quotes] == ["exact"]
