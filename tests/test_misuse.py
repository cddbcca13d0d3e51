"""A user's mistakes: each is refused early, with what was expected, what came and what to do."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recallm_core import Document, GenerationParams, RecaLLM
from recallm_core.documents.document import collect
from recallm_core.errors import DocumentError
from recallm_core.testing import ScriptedBackend, scripted_llm

Q, TEXTS = "When?", ["It opens at nine."]
SCRIPT = "<|start_recall|>opens at nine<|end_recall|></think>At nine."


def asked(**more: Any) -> Callable[[RecaLLM], Any]:
    return lambda llm: llm.chat([{"role": "user", "content": Q, **more}], TEXTS)


MISTAKES: list[tuple[str, Callable[[Any], Any]]] = [
    (r"question must be a str, got NoneType; .*answer\(question", lambda m: m.answer(None, TEXTS)),
    (r"question must be a str, got list; .*answer\(question", lambda m: m.answer(TEXTS, Q)),
    ("question must be a str, got bytes", lambda m: m.stream(b"x", TEXTS)),
    ("question is empty; ask something", lambda m: m.chat([{"role": "user"}], TEXTS)),
    ("messages must be a list of .*, got NoneType; .*answer", lambda m: m.chat(None)),
    ("messages must be a list of .*, got int", lambda m: m.chat(3)),
    ("got a list with tuple", lambda m: m.chat([("user", Q)])),
    ("got a list with NoneType", lambda m: m.chat([None])),
    ("role of .*got role 'usr'", lambda m: m.chat([{"role": "usr", "content": Q}])),
    ("string content, got .*list content", asked(content=[{"type": "text", "text": Q}])),
    ("needs a user message", lambda m: m.chat([])),
    ("message 0: tool_calls must be a list, got int", asked(tool_calls=3)),
    ("tools must be a list, got int", lambda m: m.chat([{"role": "user", "content": Q}], tools=3)),
    ("got a dict; pass its values", lambda m: m.answer(Q, {"a": "text"})),
    ("list of Document or str, got one PosixPath|WindowsPath", lambda m: m.answer(Q, Path("a"))),
    ("list of .question, documents. pairs, got one str", lambda m: m.answer_batch(Q)),
    ("list of .question, documents. pairs, got one NoneType", lambda m: m.answer_batch(None)),
    ("pairs; number 1 is a str", lambda m: m.answer_batch([(Q, TEXTS), Q])),
    ("pairs; number 0 is a tuple of 3", lambda m: m.answer_batch([(Q, TEXTS, TEXTS)])),
    (
        "params must be GenerationParams, got dict; .*by name",
        lambda m: m.answer(Q, TEXTS, params={}),
    ),
    ("params must be GenerationParams, got int", lambda m: m.answer(Q, TEXTS, params=0)),
    ("unknown settings .'temprature'.; known: ", lambda m: m.answer(Q, TEXTS, temprature=0)),
    ("text to count must be a str, got NoneType", lambda m: m.count_tokens(None)),
]


@pytest.mark.parametrize(("message", "mistake"), MISTAKES, ids=[m for m, _ in MISTAKES])
def test_mistakes_are_refused_before_the_model_runs(
    message: str, mistake: Callable[[RecaLLM], Any]
) -> None:
    llm = scripted_llm(SCRIPT)
    with pytest.raises((ValueError, TypeError), match=message):
        mistake(llm)
    assert isinstance(llm.backend, ScriptedBackend)
    assert llm.backend.requests == []


def test_messages_and_questions_may_come_from_generators() -> None:
    llm = scripted_llm(SCRIPT)
    answer = llm.chat((m for m in [{"role": "user", "content": Q}]), TEXTS)  # type: ignore[arg-type]
    assert [c.text for c in answer.citations] == ["opens at nine"]
    assert len(llm.answer_batch((Q, TEXTS) for _ in range(3))) == 3


def test_what_an_index_holds_is_no_list_of_ids() -> None:
    with pytest.raises(DocumentError, match="pass its values"):
        collect({"a": Document("text", "a")})


def test_answers_can_be_copied_and_pickled() -> None:
    answer = scripted_llm(SCRIPT).answer(Q, [Document(TEXTS[0], "d", metadata={"a": 1})])
    for again in (pickle.loads(pickle.dumps(answer)), copy.deepcopy(answer)):
        assert again == answer
        assert dict(again.sources) == dict(answer.sources)
        with pytest.raises(TypeError):
            again.sources["x"] = answer.sources["d"]


MODELS: list[tuple[str, Callable[[], Any]]] = [
    ("model must be 'recallm-mini', a folder or .*got None", lambda: RecaLLM.load(None)),  # type: ignore[arg-type]
    ("model must be .*got ''", lambda: RecaLLM.load("")),
    ("model must be .*got 3", lambda: RecaLLM.load(3)),  # type: ignore[arg-type]
    ("no model folder at '/no/where'", lambda: RecaLLM.load(Path("/no/where"))),
    ("device 'cudaa' can't be used here .*'auto', 'cpu'", lambda: RecaLLM.load(device="cudaa")),
    ("device 'xpu:77' can't be used here", lambda: RecaLLM.load(device="xpu:77")),
    ("device 3.5 can't be used", lambda: RecaLLM.load(device=3.5)),
    (r"unknown options \['foo'\]; known: .*model_kwargs", lambda: RecaLLM.load(foo=1)),
    ("unknown options .*never run", lambda: RecaLLM.load(trust_remote_code=True)),
    ("recipe must be a Recipe, got dict", lambda: RecaLLM.load(recipe={"mode": "trained"})),
]


@pytest.mark.parametrize(("message", "load"), MODELS, ids=[m for m, _ in MODELS])
def test_models_that_cant_be_loaded_say_what_to_give(message: str, load: Callable[[], Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        load()


def test_a_path_names_a_model() -> None:
    from recallm_core.models import shipped

    folder = shipped("recallm-mini")
    assert folder is not None
    with RecaLLM.load(folder) as llm:
        answer = llm.answer("When does it open?", TEXTS, params=GenerationParams(max_new_tokens=64))
    assert all(TEXTS[0][c.start : c.end] == c.text for c in answer.citations)
