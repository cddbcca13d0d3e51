from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core.answers.answer import Answer, Citation, Usage
from recallm_core.answers.trace import AnswerText, ToolCall, Trace
from recallm_core.documents.document import Document
from recallm_core.documents.source_map import SourceMap
from recallm_core.rendering import answer_schema, to_csl_json, to_web_annotations

TEXT = "The fee is 5 euro. It is due in May."


@pytest.fixture
def answer() -> Answer:
    documents = {
        "web": Document(
            TEXT, "web", "Fees", {"Author": ["A. Author", ""], "date": 2024},
            source_map=SourceMap("https://example.org/fees"),
        ),
        "scan": Document(TEXT, "scan", source_map=SourceMap("/srv/scan.pdf", pages=(3,))),
    }  # fmt: skip
    citations = (
        Citation("web", 0, 18, TEXT[:18], 0, 6, title="Fees", source="https://example.org/fees"),
        Citation("scan", 19, 36, TEXT[19:], source="/srv/scan.pdf", page=3),
        Citation("web", 11, 17, TEXT[11:17], lines=(1, 2), source="https://example.org/fees"),
    )
    text = "5 euro, in May."
    return Answer(
        text, citations, False, Trace((AnswerText(text),)), Usage(), "stop",
        question="What does it cost?", sources=documents,
    )  # fmt: skip


def test_every_answer_fits_the_published_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(answer_schema())


@settings(max_examples=40)
@given(st.data())
def test_hostile_answers_fit_it_too(
    hostile_answers: st.SearchStrategy[Answer], data: st.DataObject
) -> None:
    answer = data.draw(hostile_answers)
    plain = answer.to_dict()
    if answer.abstained:  # the library gives an abstained answer no citations
        plain |= {"citations": [], "nearest": plain["citations"]}
    validate(json.loads(json.dumps(plain)))


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2}, {"text": None}, {"citations": [{}]}, {"finish_reason": "tired"},
        {"abstained": True}, {"usage": {"prompt_tokens": -1}}, {"trace": [{"type": "reasoning"}]},
        {"sources": [{"document_id": 3}]},
    ],
)  # fmt: skip
def test_what_is_no_answer_does_not_fit(answer: Answer, change: dict[str, Any]) -> None:
    validate(answer.to_dict())
    with pytest.raises(jsonschema.ValidationError):
        validate(answer.to_dict() | change)


def test_the_schema_names_every_key(answer: Answer) -> None:
    schema, plain = answer_schema(), answer.to_dict()
    assert list(schema["properties"]) == list(plain)
    assert set(schema["$defs"]["citation"]["properties"]) == set(plain["citations"][0])


def test_tool_calls_fit(answer: Answer) -> None:
    call = ToolCall("look", {"deep": [{"x": 1}]}, "id")
    asked = Answer("", (), False, Trace(), Usage(), "tool_calls", tool_calls=(call,))
    validate(asked.to_dict())


def validate(plain: dict[str, Any]) -> None:
    jsonschema.validate(plain, answer_schema(), cls=jsonschema.Draft202012Validator)


def test_annotations_mark_the_quotes_in_their_sources(answer: Answer) -> None:
    page = to_web_annotations(answer)
    assert page["@context"] == "http://www.w3.org/ns/anno.jsonld"
    assert (page["type"], len(page["items"])) == ("AnnotationPage", 3)
    web, scan, _ = page["items"]
    assert web["body"]["value"] == "5 euro"
    assert web["target"]["source"]["id"] == "https://example.org/fees"
    assert web["target"]["selector"] == [
        {"type": "TextQuoteSelector", "exact": TEXT[:18], "prefix": "", "suffix": TEXT[18:]},
        {"type": "TextPositionSelector", "start": 0, "end": 18},
    ]
    assert scan["body"]["value"] == answer.text
    assert scan["target"]["source"]["id"] == "file:///srv/scan.pdf"
    assert scan["target"]["selector"][2]["value"] == "page=3"


def test_an_annotation_is_named_by_what_it_says(answer: Answer) -> None:
    names = [item["id"] for item in to_web_annotations(answer)["items"]]
    assert names == [item["id"] for item in to_web_annotations(answer)["items"]]
    assert len(set(names)) == 3
    assert all(name.startswith("urn:uuid:") for name in names)


@settings(max_examples=40)
@given(st.data())
def test_selectors_hold_the_quote_and_what_surrounds_it(
    hostile_answers: st.SearchStrategy[Answer], data: st.DataObject
) -> None:
    answer = data.draw(hostile_answers)
    page = json.loads(json.dumps(to_web_annotations(answer)))
    for citation, item in zip(answer.citations, page["items"], strict=True):
        text = answer.sources[citation.document_id].text
        quoted, position = item["target"]["selector"][:2]
        assert text[position["start"] : position["end"]] == quoted["exact"] == citation.text
        around = quoted["prefix"] + quoted["exact"] + quoted["suffix"]
        assert text.startswith(around, position["start"] - len(quoted["prefix"]))


def test_one_bibliographic_item_for_each_document(answer: Answer) -> None:
    fees, scan = to_csl_json(answer)
    assert fees == {
        "id": "web",
        "type": "webpage",
        "title": "Fees",
        "URL": "https://example.org/fees",
        "author": [{"literal": "A. Author"}],
        "issued": {"raw": "2024"},
        "custom": {
            "quotes": [
                {"number": 1, "text": TEXT[:18], "start": 0, "end": 18, "basis": "recalled"},
                {
                    "number": 3, "text": "5 euro", "start": 11, "end": 17, "basis": "recalled",
                    "locator": "1-2", "label": "line",
                },
            ]
        },
    }  # fmt: skip
    assert (scan["type"], "URL" in scan, "author" in scan) == ("document", False, False)
    assert scan["custom"]["quotes"][0]["locator"] == "3"


def test_an_answer_without_citations_has_none_to_export() -> None:
    empty = Answer("No.", (), True, Trace(), Usage(), "stop")
    assert to_csl_json(empty) == []
    assert to_web_annotations(empty)["items"] == []
