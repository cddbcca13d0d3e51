"""The chat model over a server is the chat model over a model in process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from langchain_core.load import dumpd
from pydantic import BaseModel, ValidationError

from langchain_recallm import ChatRecaLLM
from recallm_core.errors import ServerError
from recallm_core.testing import scripted_llm

QUESTION = "When does it leave, what does it cost, how long is leave?"


@pytest.fixture
def tools_folder(tmp_path: Path, wordy_folder: Path) -> Path:
    """The shipped model's tokenizer with a template that shows tools."""
    mini = wordy_folder
    for name in ("tokenizer.json", "recallm.json", "config.json"):
        shutil.copy(mini / name, tmp_path / name)
    config = json.loads((mini / "tokenizer_config.json").read_text())
    config["chat_template"] = "{{ tools | default('') | tojson }}" + config["chat_template"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


async def test_every_way_to_ask(kit: Any, fake_server: Any) -> None:
    server = fake_server(kit.script)
    model = ChatRecaLLM(model=server.url, max_retries=1, timeout=30)
    local = scripted_llm(kit.script, recipe=model.llm.recipe)
    here = ChatRecaLLM(model=local).invoke(QUESTION, documents=kit.documents)
    found = [model.invoke(QUESTION, documents=kit.documents)]
    found.append(await model.ainvoke(QUESTION, documents=kit.documents))
    found.extend(model.batch([QUESTION] * 2, documents=kit.documents))
    for message in found:
        kit.check(message, kit.documents, least=5)
        assert message.text == here.text
        assert message.content == found[0].content
    chunks = list(model.stream(QUESTION, documents=kit.documents))
    assert len(chunks) > 3
    assert "".join(chunk.text for chunk in chunks) == here.text
    model.llm.close()


def test_tools_and_structured_output(kit: Any, fake_server: Any, tools_folder: Path) -> None:
    class Ferry(BaseModel):
        """When a ferry leaves."""

        time: str

    call = '</think><tool_call>\n{"name": "Ferry", "arguments": {"time": "9:30"}}\n</tool_call>'
    server = fake_server(call, folder=tools_folder)
    model = ChatRecaLLM(model=server.url)
    message = model.bind_tools([Ferry]).invoke(QUESTION, documents=kit.documents)
    assert [c["args"] for c in message.tool_calls] == [{"time": "9:30"}]
    server.script = '<|start_recall|>at 9:30<|end_recall|></think>{"time": "9:30"}'
    found = model.with_structured_output(Ferry).invoke(QUESTION, documents=kit.documents)
    assert found == Ferry(time="9:30")
    model.llm.close()


def test_an_address_beside_the_name(kit: Any, fake_server: Any) -> None:
    server = fake_server(kit.script, key="a-long-secret-key", name="org/model")
    model = ChatRecaLLM(
        model="org/model", base_url=server.url + "/v1", api_key="a-long-secret-key", max_retries=0
    )
    kit.check(model.invoke(QUESTION, documents=kit.documents), kit.documents, least=5)
    server.faults.append("busy")
    with pytest.raises(ServerError, match="too busy"):
        model.invoke(QUESTION, documents=kit.documents)
    model.llm.close()
    with pytest.raises(ServerError, match=r"serves .*not 'another'"):
        ChatRecaLLM(
            model="another", base_url=server.url, api_key="a-long-secret-key"
        ).invoke(QUESTION)  # fmt: skip


def test_a_timeout_is_also_the_servers(kit: Any, fake_server: Any) -> None:
    server = fake_server(kit.script)
    model = ChatRecaLLM(model=server.url, timeout=0.5)
    server.faults.append("hang")  # the first request, a part of loading: a busy machine may be late
    with pytest.raises(ServerError, match=r"sent nothing for 0.5 s"):
        model.invoke(QUESTION, documents=kit.documents)


def test_settings_of_a_server_without_one() -> None:
    model = ChatRecaLLM(model="http://127.0.0.1:1", api_key="a-long-secret-key", max_retries=3)
    assert "a-long-secret-key" not in repr(model) + json.dumps(dumpd(model))
    assert model.profile is not None
    assert "max_input_tokens" not in model.profile
    with pytest.raises(ValidationError, match="max_retries"):
        ChatRecaLLM(model="http://127.0.0.1:1", max_retries=-1)
    with pytest.raises(ValueError, match="leave base_url out"):
        ChatRecaLLM(model="http://127.0.0.1:1", base_url="http://127.0.0.1:2")
