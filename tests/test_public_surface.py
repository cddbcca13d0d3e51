"""The names that people import: one list, nothing heavy, settings that editors know."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import re
import subprocess
import sys
import threading
import typing
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import recallm_core
from recallm_core import Answer, Document, GenerationParams, RecaLLM, Settings, errors
from recallm_core.answers.trace import TraceEvent
from recallm_core.backends.local.transformers import TransformersBackend
from recallm_core.errors import DocumentError, GenerationError
from recallm_core.testing import scripted_llm

ROOT = Path(__file__).resolve().parent.parent
INIT = Path(recallm_core.__file__)
TEXT = "The tower was finished in 1889. It is 330 metres tall."
DOCUMENTS = [Document(TEXT, "d")]
SCRIPT = "<|start_recall|>330 metres<|end_recall|></think>It is 330 metres tall."
ASK = [{"role": "user", "content": "How tall?"}]


# names


def test_type_checkers_see_the_same_list() -> None:
    tree = ast.parse(INIT.read_text("utf-8"))
    found = {
        alias.name: (node.module or "").removeprefix("recallm_core.")
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name  # the form that re-exports
    }
    assert found == recallm_core._HOMES
    assert sorted(recallm_core.__all__) == sorted(["__version__", *found])
    assert list(recallm_core._HOMES) == sorted(recallm_core._HOMES)


def test_every_name_is_there_and_defined_where_the_list_says() -> None:
    for name, home in recallm_core._HOMES.items():
        found = getattr(recallm_core, name)
        assert found is getattr(importlib.import_module(f"recallm_core.{home}"), name)
        defined = getattr(found, "__module__", f"recallm_core.{home}")
        assert defined in (f"recallm_core.{home}", "types", "typing") or defined.startswith(
            f"recallm_core.{home}."
        ), name
    assert set(recallm_core.__all__) <= set(dir(recallm_core))
    with pytest.raises(AttributeError, match="no attribute 'Recall'"):
        recallm_core.Recall  # noqa: B018


def test_what_a_caller_may_catch_and_get_is_public() -> None:
    raised = {name for name, found in vars(errors).items() if isinstance(found, type)}
    events = {each.__name__ for each in typing.get_args(TraceEvent)} | {"Finished", "Event"}
    assert (raised | events) <= set(recallm_core.__all__)


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'faiss', 'tokenizers'}"
    code = f"import recallm_core, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_stands_in_one_place() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert re.search(r'^dynamic = \["version"\]$', project, re.MULTILINE)
    assert 'path = "recallm_core/_version.py"' in project
    own = [
        path
        for path in (ROOT / "recallm_core").rglob("*.py")
        if re.search(r"^__version__\s*=", path.read_text("utf-8"), re.MULTILINE)
    ]
    assert [path.name for path in own] == ["_version.py"]
    assert re.fullmatch(r"\d+\.\d+\.\d+\w*", recallm_core.__version__)


# settings


def test_settings_are_the_fields_of_the_params() -> None:
    given, wanted = typing.get_type_hints(Settings), typing.get_type_hints(GenerationParams)
    assert set(given) == {field.name for field in fields(GenerationParams)}
    assert Settings.__total__ is False
    given["stop"] = wanted["stop"]  # any strings are taken, and kept as a tuple
    assert given == wanted


@pytest.mark.parametrize("home", ["langchain_recallm.ChatRecaLLM", "llama_index_recallm.RecaLLM"])
def test_the_adapters_have_the_same_fields(home: str) -> None:
    package, _, name = home.partition(".")
    adapter = getattr(pytest.importorskip(package), name)
    given, wanted = typing.get_type_hints(adapter), typing.get_type_hints(GenerationParams)
    renamed = {"max_new_tokens": "max_tokens"}
    found = {field: given.get(renamed.get(field, field), "missing") for field in wanted}
    assert found["stop"] == list[str] | None
    assert found | {"stop": wanted["stop"]} == wanted


@pytest.mark.parametrize(
    "name",
    [
        *("answer", "chat", "stream", "stream_chat", "answer_batch", "prepare"),
        *("aanswer", "achat", "astream", "astream_chat", "aanswer_batch"),
    ],
)
def test_every_call_is_typed(name: str) -> None:
    hints = typing.get_type_hints(getattr(RecaLLM, name))
    assert hints["settings"] == typing.Unpack[Settings]


# loading


def test_a_subclass_loads_itself() -> None:
    class Own(RecaLLM):
        """Somebody's own."""

    with Own.load("recallm-mini") as llm:
        assert type(llm) is Own
        assert isinstance(llm.backend, TransformersBackend)
        assert llm.name == "recallm-mini"


def test_equal_models_are_shared_while_somebody_holds_them() -> None:
    from recallm_core.generator import load_shared

    first = load_shared("recallm-mini")
    assert load_shared("recallm-mini") is first
    first.close()


# batches


async def test_asynchronous_batches_keep_the_order() -> None:
    llm = scripted_llm(lambda prompt: "</think>yes" if "really?" in prompt else SCRIPT)
    asked = [("How tall?", DOCUMENTS), ("really?", DOCUMENTS), ("none", [])]
    found = await llm.aanswer_batch(iter(asked), abstain_policy="said")
    assert found == llm.answer_batch(asked, abstain_policy="said")
    assert [answer.question for answer in found] == [question for question, _ in asked]
    assert await llm.aanswer_batch([]) == []


async def test_a_batch_that_can_t_be_opened_leaves_nothing_open() -> None:
    llm = scripted_llm(SCRIPT)
    wrong: list[Any] = [("How tall?", DOCUMENTS), ("How tall?", {"d": TEXT})]
    with pytest.raises(DocumentError, match="pass its values"):
        await llm.aanswer_batch(wrong)
    assert llm.backend.closed_streams == 1  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"list of .question, documents. pairs"):
        await llm.aanswer_batch("How tall?")  # type: ignore[arg-type]


async def test_cancelling_a_batch_stops_all_of_it() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def script(prompt: str) -> str:
        begun.set()
        go_on.wait(20)
        return SCRIPT

    llm = scripted_llm(script)
    running = asyncio.create_task(llm.aanswer_batch([("How tall?", DOCUMENTS)] * 3))
    await asyncio.to_thread(begun.wait, 20)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    go_on.set()
    for _ in range(2000):  # those that were being opened are closed when they are open
        if llm.backend.closed_streams == 3:  # type: ignore[attr-defined]
            return
        await asyncio.sleep(0.01)
    pytest.fail("streams were left open")


# your own loop


def output_of(script: str, **settings: Any) -> tuple[Any, Any, Any, list[int], Answer]:
    llm = scripted_llm(script)
    prompt, sources = llm.prepare(ASK, DOCUMENTS, **settings)
    tokens: list[int] = []
    stream = llm.chat(ASK, DOCUMENTS, **settings)
    backend: Any = llm.backend
    for part in backend.generate(backend.requests[-1]):
        tokens.extend(part)
    return llm, prompt, sources, tokens, stream


def test_the_output_of_one_s_own_loop_becomes_the_same_answer() -> None:
    llm, prompt, sources, tokens, wanted = output_of(SCRIPT)
    assert llm.checked_answer(prompt, sources, tokens) == wanted
    padded = [*tokens, 0, tokens[-1], 300]
    assert llm.checked_answer(prompt, sources, iter(padded)) == wanted
    cut = llm.checked_answer(prompt, sources, tokens[:-8])
    assert cut.finish_reason == "length"
    assert wanted.text.startswith(cut.text)


def test_a_loop_that_nothing_held_is_found_out() -> None:
    llm, prompt, sources, tokens, _ = output_of(SCRIPT)
    start = tokens.index(256)  # a quote is opened
    wrong = [*tokens[: start + 1], ord("q"), *tokens[start + 2 :]]
    with pytest.raises(GenerationError):
        llm.checked_answer(prompt, sources, wrong)


def test_the_example_for_one_s_own_loop_runs(capsys: pytest.CaptureFixture[str]) -> None:
    name, path = "own_generate_loop", ROOT / "examples" / "own_generate_loop.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main() == 0
    said = capsys.readouterr().out
    assert "house[31:61] 'The lift is checked every May.'" in said
