"""The stand-ins obey the true constraint and behave as their documentation says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from recallm_core.answers.answer import Answer
from recallm_core.documents.document import Document
from recallm_core.errors import GenerationError
from recallm_core.generator import RecaLLM
from recallm_core.prompting.recipe import Recipe
from recallm_core.testing import (
    ByteTokenizer,
    scripted_llm,
)

TEXT = "The tower was finished in 1889. It is 330 metres tall."
DOCUMENTS = [Document(TEXT, "d")]


@pytest.mark.parametrize("recipe", [None, Recipe(), Recipe(open="<quote>", close="</quote>")])
def test_a_script_cannot_quote_what_is_not_there(recipe: Recipe | None) -> None:
    for wanted in ("The moon", "the tower wasn't", "330 metres high", "", "🎨"):
        llm = scripted_llm(f"<|start_recall|>{wanted}<|end_recall|></think>done", recipe=recipe)
        answer = llm.answer("q", DOCUMENTS)
        assert answer.text.endswith("done")
        for span in answer.trace.spans:
            assert TEXT[span.start : span.end] == span.text


def test_a_span_goes_on_to_where_it_may_close() -> None:
    llm = scripted_llm("<|start_recall|>The tow<|end_recall|></think>x")
    assert llm.answer("q", DOCUMENTS).trace.spans[0].text == "The tower"


@pytest.mark.parametrize("marks", [("<|start_recall|>", "<|end_recall|>"), ("<quote>", "</quote>")])
def test_models_driven_by_text_write_their_own_marks(marks: tuple[str, str]) -> None:
    recipe = Recipe(open="<quote>", close="</quote>")
    llm = scripted_llm(f"It is {marks[0]}330 metres{marks[1]} tall.", recipe=recipe)
    answer = llm.answer("How tall?", DOCUMENTS)
    assert answer.text == "It is 330 metres tall."
    assert answer.citations[0].text == "330 metres"
    passage = Document("a <quote> and </quote> here", "e")  # the prompt takes another variant
    assert llm.answer("q", [*DOCUMENTS, passage]).citations


def test_a_script_may_depend_on_the_prompt() -> None:
    llm = scripted_llm(lambda prompt: "</think>" + ("yes" if "really?" in prompt else "no"))
    assert llm.answer("really?", DOCUMENTS, abstain_policy="said").text == "yes"
    assert llm.answer("Really?", DOCUMENTS, abstain_policy="said").text == "no"


def test_an_unfinished_script_is_ended_legally() -> None:
    for script in ("", "x", "<|start_recall|>", "<|start_recall|>The", "</think>"):
        answer = scripted_llm(script).answer("q", DOCUMENTS)
        assert answer.finish_reason == "stop"


class Inner(BaseModel):
    names: list[str]
    size: float | None


class Reply(BaseModel):
    month: str
    inner: Inner
    sure: bool


replies = st.builds(
    Reply,
    month=st.text(max_size=8),
    inner=st.builds(
        Inner,
        names=st.lists(st.text(alphabet=' \n\t"\\{}[],:é', max_size=4), max_size=3),
        size=st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32),
    ),
    sure=st.booleans(),
)
QUESTION = [{"role": "user", "content": "When?"}]


SAYS = [""]
WITH_PIECES = [
    scripted_llm(lambda _: f"</think>{SAYS[0]}", tokenizer=ByteTokenizer(pieces))
    for pieces in ((), ('": "', '","', "  ", '{"'))
]


def answered(script: str, schema: object, llm: RecaLLM = WITH_PIECES[0]) -> Answer:
    SAYS[0] = script
    return llm.chat(QUESTION, DOCUMENTS, response_schema=schema, max_new_tokens=4000)


@given(
    replies,
    st.sampled_from([None, 0, 1, 4, "\t"]),
    st.sampled_from([(",", ":"), (" , ", " : ")]),
    st.sampled_from(WITH_PIECES),
)
def test_json_is_fitted_however_it_is_written(
    reply: Reply, indent: int | str | None, separators: tuple[str, str], llm: RecaLLM
) -> None:
    plain = reply.model_dump()
    for script in (
        reply.model_dump_json(),
        json.dumps(plain, indent=indent, separators=separators),
        json.dumps(plain, ensure_ascii=False).replace("/", r"\/"),
    ):
        answer = answered(script, Reply.model_json_schema(), llm)
        assert answer.finish_reason == "stop"
        assert json.loads(answer.text) == plain


def test_calls_are_fitted_too() -> None:
    schema = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    for call in (
        '{"name":"f","arguments":{"q":"a  b"}}',
        '\n\n{ "name": "f",\n"arguments": {"q":"a  b"} }',
    ):
        llm = scripted_llm(f"</think><tool_call>{call}</tool_call>")
        (made,) = llm.chat(QUESTION, DOCUMENTS, tools=[tool]).tool_calls
        assert dict(made.arguments) == {"q": "a  b"}


MONTH = {
    "type": "object",
    "properties": {"month": {"enum": ["May", "1 May"]}, "day": {"type": "integer"}},
    "required": ["month", "day"],
}


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            '{"moon": "May", "day": 1}',
            "'on.*' at character 12, after '</think>{\"mo'.*allow 'n' there",
        ),
        (
            '{"day": 1, "month": "May"}',
            "'day.*' at character 10.*allow 'm' there; .*order of the schema",
        ),
        ('{"month": "June", "day": 1}', "'June.*' at character 19.*allow '1', 'M' there"),
        ('{"month": "1  May", "day": 1}', "' May.*' at character 21.*allow 'M' there"),
        ('{"month": "May", "day": "x"}', r"'\"x.*' at character 32"),
        ('{"month": "May", "day": 1} It is May.', "'It is May.' at character 35"),
        ("In May.", "'In May.' at character 8.*allow '{' there"),
        ('{"month": "<|start_recall|>May', r"'<\|start_recall\|>' at character 19"),
    ],
)
def test_json_that_doesn_t_fit_is_an_error_that_names_the_place(script: str, said: str) -> None:
    with pytest.raises(GenerationError, match=f"the script can't say {said}"):
        answered(script, MONTH)


@given(st.integers(0, 26))
def test_json_that_ends_early_is_ended_in_the_shortest_way(length: int) -> None:
    script = '{"month":"May", "day": 12}'[:length]
    answer = answered(script, MONTH)
    assert set(json.loads(answer.text)) == {"month", "day"}
    assert answer.finish_reason == "stop"
