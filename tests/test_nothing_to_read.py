"""Documents that were given and are empty are an abstention; documents that are absent aren't."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core import Answer, CorpusIndex, Document, Finished
from recallm_core.answers.trace import AnswerDelta
from recallm_core.errors import DocumentError
from recallm_core.prompting.recipe import Recipe, trained_recipe
from recallm_core.testing import ScriptedBackend, scripted_llm

QUESTION = "When is the lift checked?"
MESSAGES = [{"role": "user", "content": QUESTION}]
SCRIPT = "<|start_recall|>the lift<|end_recall|></think>In May, it says of the lift."
TOOL = {"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}
CALL = '</think><tool_call>\n{"name": "search", "arguments": {}}\n</tool_call>'


def asked(llm: Any) -> int:
    assert isinstance(llm.backend, ScriptedBackend)
    return len(llm.backend.requests)


def is_abstention(answer: Answer, phrase: str) -> None:
    assert (answer.text, answer.citations, answer.abstained) == (phrase, (), True)
    assert (answer.finish_reason, answer.usage.output_tokens) == ("stop", 0)
    assert answer.question == QUESTION


blank = st.text(alphabet=" \t\n\r\x0b\u2003\u00a0", max_size=5)


@given(st.lists(blank, max_size=3), st.sampled_from(["list", "generator", "index", "set"]))
def test_nothing_to_read_is_an_abstention_without_the_model(texts: list[str], kind: str) -> None:
    llm = scripted_llm(SCRIPT)
    documents = [Document(text) for text in texts]
    given_as: Any = {
        "list": lambda: documents,
        "generator": lambda: iter(documents),
        "index": lambda: CorpusIndex.build([]),
        "set": lambda: frozenset(texts),
    }[kind]()
    is_abstention(llm.answer(QUESTION, given_as), llm.recipe.abstain[0])
    assert asked(llm) == 0


@pytest.mark.parametrize(
    "recipe", [Recipe(abstain=("Nothing there.",)), trained_recipe(sampling={"scope": "prompt"})]
)
def test_the_recipe_says_how_whatever_its_default_scope_is(recipe: Recipe) -> None:
    llm = scripted_llm(SCRIPT, recipe=recipe)
    is_abstention(llm.answer(QUESTION, []), recipe.abstain[0])


def test_streams_batches_and_asynchronous_calls_give_the_same() -> None:
    llm = scripted_llm(SCRIPT)
    phrase = llm.recipe.abstain[0]
    with llm.stream(QUESTION, []) as stream:
        events = list(stream)
        assert stream.result() == events[-1].answer  # type: ignore[union-attr]
    assert events[:-1] == [AnswerDelta(phrase)]
    assert isinstance(events[-1], Finished)

    async def found() -> list[Any]:
        return [event async for event in llm.astream_chat(MESSAGES, [])]

    assert asyncio.run(found()) == events
    answers = [*llm.answer_batch([(QUESTION, []), (QUESTION, iter(()))]), llm.chat(MESSAGES, [])]
    answers.append(asyncio.run(llm.aanswer(QUESTION, [])))
    for answer in answers:
        is_abstention(answer, phrase)
    assert asked(llm) == 0


def test_a_stream_that_was_left_says_nothing_more() -> None:
    stream = scripted_llm(SCRIPT).stream(QUESTION, [])
    stream.close()
    assert list(stream) == []


def test_absent_documents_are_no_empty_search() -> None:
    llm = scripted_llm("</think>Hello.")
    assert llm.chat(MESSAGES).trace.answer == "Hello."
    assert llm.chat(MESSAGES, None).trace.answer == "Hello."
    assert asked(llm) == 2
    quoted = scripted_llm(SCRIPT).chat(MESSAGES, scope="prompt")
    assert [citation.text for citation in quoted.citations] == ["the lift"]


@pytest.mark.parametrize("name", ["answer", "stream", "aanswer", "astream"])
def test_a_question_over_no_documents_at_all_is_a_mistake(name: str) -> None:
    ask: Any = getattr(scripted_llm(SCRIPT), name)

    async def run() -> None:
        await ask(QUESTION, None)

    with pytest.raises(DocumentError, match=r"got None; an empty list .* chat\(messages\)"):
        asyncio.run(run())


def test_tools_may_still_be_called_but_words_are_no_answer() -> None:
    llm = scripted_llm(CALL)
    called = llm.chat(MESSAGES, [], tools=[TOOL])
    assert ([call.name for call in called.tool_calls], called.abstained) == (["search"], False)
    said = scripted_llm("</think>In May.").chat(
        MESSAGES, [], tools=[TOOL], recall_in="none", abstain_policy="said"
    )
    assert (said.abstained, said.citations) == (True, ())
    assert (said.text, said.trace.answer) == (llm.recipe.abstain[0], "In May.")
    barred = scripted_llm("</think>In May.")
    is_abstention(
        barred.chat(MESSAGES, [], tools=[TOOL], tool_choice="none"), barred.recipe.abstain[0]
    )
    assert asked(barred) == 0


def test_a_schema_is_kept_and_the_answer_is_none() -> None:
    llm = scripted_llm('</think>{"month": "May"}')
    schema = {
        "type": "object",
        "properties": {"month": {"type": "string"}},
        "required": ["month"],
    }
    answer = llm.chat(MESSAGES, [], response_schema=schema)
    assert (answer.abstained, answer.citations) == (True, ())
    assert answer.text == answer.trace.answer == '{"month": "May"}'


def test_a_wrong_question_or_setting_is_refused_all_the_same() -> None:
    llm = scripted_llm(SCRIPT)
    with pytest.raises(ValueError, match="question is empty"):
        llm.answer(" ", [])
    with pytest.raises(TypeError, match="unknown settings"):
        llm.answer(QUESTION, [], temprature=0)
