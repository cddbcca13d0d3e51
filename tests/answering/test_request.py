"""Every way of asking has one of two signatures, and its request is what was given."""

from __future__ import annotations

import inspect
import typing
from typing import Any

import pytest

from recallm_core import Document, GenerationParams, RecaLLM
from recallm_core.answering.request import ChatRequest, chat_request, question_request
from recallm_core.errors import DocumentError
from recallm_core.testing import scripted_llm

ASK = [{"role": "user", "content": "How tall?"}]
DOCUMENTS = [Document("It is 330 metres tall.", "d")]


@pytest.mark.parametrize(
    ("names", "make"),
    [
        (("chat", "stream_chat", "achat", "astream_chat"), chat_request),
        (("answer", "stream", "aanswer", "astream"), question_request),
    ],
)
def test_all_ways_of_asking_share_a_signature(names: tuple[str, ...], make: Any) -> None:
    wanted = inspect.signature(make).parameters
    hints = typing.get_type_hints(make)
    for name in names:
        method = getattr(RecaLLM, name)
        first, *others = inspect.signature(method).parameters.values()
        assert first.name == "self"
        assert others == list(wanted.values())
        assert {**typing.get_type_hints(method), "return": ChatRequest} == hints
        assert inspect.getdoc(method)
        assert inspect.iscoroutinefunction(method) == (name in ("achat", "aanswer"))
        assert method.__name__ == name


def test_a_request_is_what_was_given_and_is_frozen() -> None:
    params = GenerationParams(seed=1)
    request = chat_request(ASK, DOCUMENTS, tool_choice="none", params=params, temperature=0.5)
    assert (request.messages, request.documents, request.tool_choice) == (ASK, DOCUMENTS, "none")
    assert request.all_settings() == GenerationParams(seed=1, temperature=0.5)
    assert request.output() is None
    assert question_request("How tall?", DOCUMENTS).messages == ASK
    with pytest.raises(AttributeError):
        request.messages = []  # type: ignore[misc]


def test_nothing_is_checked_before_it_is_answered() -> None:
    wrong = chat_request("hello", tool_choice="required", temprature=0)  # type: ignore[call-arg, arg-type]
    with pytest.raises(TypeError, match="unknown settings"):
        wrong.all_settings()
    with pytest.raises(ValueError, match="needs tools"):
        wrong.output()


async def test_a_wrong_question_is_refused_when_it_is_awaited() -> None:
    llm = scripted_llm("</think>x")
    awaited = llm.aanswer("q", None)  # type: ignore[arg-type]
    with pytest.raises(DocumentError, match="search found nothing"):
        await awaited
    with pytest.raises(DocumentError, match="search found nothing"):
        llm.astream("q", None)  # type: ignore[arg-type]
