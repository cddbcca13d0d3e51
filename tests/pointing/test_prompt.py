"""What a model is asked."""

from __future__ import annotations

import subprocess
import sys

import pytest

from recallm_core import DocumentError, PointedPrompt, SchemaLimits
from recallm_core.pointing.prompt import INSTRUCTIONS, REMINDER
from recallm_core.prompting.recipe import ABSTAIN
from tests.pointing.conftest import DOCUMENTS, check, reply


def test_the_documents_stand_before_the_question_and_the_form_in_the_system_turn() -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "When does it leave?"},
    ]
    prompt = PointedPrompt.of(turns, DOCUMENTS)
    system, first, second, last = prompt.turns
    assert system["content"] == f"Be brief.\n\n{INSTRUCTIONS}"
    assert (first, second) == (turns[1], turns[2])
    assert last["content"].endswith(
        f'\\r\\nAsk Ines."\n\nQuestion: When does it leave?\n\n{REMINDER}'
    )
    assert last["content"].startswith('Document 1, "Ferry":\n[1] "The ferry leaves')
    assert prompt.question == "When does it leave?"
    assert len(turns) == 4 and turns[0]["content"] == "Be brief."  # noqa: PT018
    assert [t["role"] for t in PointedPrompt.of(turns[:3], DOCUMENTS).turns][-1] == "user"


def test_a_tool_call_is_a_reply_too() -> None:
    prompt = PointedPrompt.of("?", DOCUMENTS)
    statement = {"sentences": [2], "text": "Dogs go free."}
    answer = prompt.answer({"answered": True, "statements": [statement]})
    check(answer)
    assert answer == prompt.answer(reply(([2], "Dogs go free.")))
    assert prompt.schema() == prompt.schema(SchemaLimits())


def test_documents_without_a_sentence_are_an_abstention() -> None:
    prompt = PointedPrompt.of("?", ["", " \n"])
    assert not prompt.sentences
    answer = prompt.nothing(model="m")
    assert (answer.text, answer.abstained, answer.model) == (ABSTAIN, True, "m")
    with pytest.raises(DocumentError, match="one str"):
        PointedPrompt.of("?", "text")


def test_it_needs_no_model_and_no_torch() -> None:
    code = (
        "import sys, recallm_core as r; p = r.PointedPrompt.of('?', ['It is 5.']);"
        "a = p.answer({'answered': True, 'statements': [{'sentences': [1], 'text': '5'}]});"
        "assert a.citations and not {'torch', 'transformers', 'faiss'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
