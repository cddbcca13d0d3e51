"""Agents over the protocol: cited answers, exact quotes, checks, and no way to other files."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError, StdioServerParameters

import recallm_core
from recallm_core import check_quotes
from recallm_core.documents.loading import load_documents
from recallm_core.errors import CheckpointError
from recallm_core.generator import RecaLLM
from recallm_core.mcp_server.desk import Desk
from recallm_core.mcp_server.library import Library
from recallm_core.mcp_server.server import SCHEME, RecallServer
from recallm_core.rendering.data import to_dict
from recallm_core.retrieval import CorpusIndex
from recallm_core.testing import scripted_llm

SCRIPT = "<|start_recall|>annual leave is 30 days<|end_recall|></think>It is 30 days."
QUESTION = "How long is the annual leave?"


class Loading:
    """A model that comes when it is asked for, and how often it was."""

    def __init__(self, script: Any = SCRIPT) -> None:
        self.script = script
        self.times = 0

    def __call__(self) -> RecaLLM:
        self.times += 1
        return scripted_llm(self.script)


@asynccontextmanager
async def client_of(house: Path, load: Any = None, **options: Any) -> AsyncIterator[Client]:
    indexes = options.pop("indexes", {})
    desk = Desk(Library([house], indexes=indexes), load or Loading())
    async with Client(RecallServer(desk, **options)) as client:
        yield client
    desk.close()


async def data_of(client: Client, tool: str, **arguments: Any) -> Any:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content


async def error_of(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert result.structured_content is None
    return str(result.content[0].text)


async def read_of(client: Client, uri: str) -> str:
    """What reading a resource gives: its text, or the error's."""
    try:
        return str((await client.read_resource(uri)).contents)
    except MCPError as error:
        return str(error)


async def test_an_agent_answers_with_citations(house: Path) -> None:
    """It searches, quotes what it found, checks its draft, mends it, and checks again."""
    async with client_of(house) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == {
            "ask", "search", "quote", "check_quotes",
        }  # fmt: skip
        best = (await data_of(client, "search", query="annual leave days"))["passages"][0]
        at = best["start"] + best["text"].index("annual leave is 30 days")
        place = {"document": best["document_id"], "start": at, "end": at + 23}
        citation = (await data_of(client, "quote", **place))["citation"]
        assert citation["text"] == "annual leave is 30 days"
        draft = 'You have a month: the "annual leave is 31 days" [leave.md].'
        report = await data_of(client, "check_quotes", text=draft)
        assert report["ok"] is False
        assert [quote["verdict"] for quote in report["quotes"]] == ["altered"]
        answer = draft.replace("31", "30")
        report = await data_of(client, "check_quotes", text=answer)
        assert report["ok"] is True
        cited = report["quotes"][0]["citation"]
        text = (house / cited["document_id"]).read_text()
        assert text[cited["start"] : cited["end"]] == cited["text"] == citation["text"]


async def test_asking_gives_what_the_command_gives(house: Path) -> None:
    load = Loading()
    async with client_of(house, load) as client:
        data = await data_of(client, "ask", question=QUESTION, paths=["leave.md"])
        await data_of(client, "ask", question=QUESTION, paths=["leave.md"])
    expected = scripted_llm(SCRIPT).answer(QUESTION, load_documents([house / "leave.md"]))
    assert data == json.loads(json.dumps(to_dict(expected)))
    assert data["citations"][0]["text"] == "annual leave is 30 days"
    assert load.times == 1


async def test_checking_gives_what_the_command_gives(house: Path) -> None:
    text = 'It says "the ANNUAL  leave is 30 days" and "trains are preferred" [2].'
    async with client_of(house) as client:
        data = await data_of(client, "check_quotes", text=text, repair=True, claims=True)
    documents = load_documents([house]).documents
    expected = check_quotes(text, documents, repair=True, claims=True).to_dict()
    assert data == json.loads(json.dumps(expected))
    assert data["repairs"] == 1


async def test_an_abstention_is_no_error(house: Path) -> None:
    load = Loading("</think>I don't know.")
    async with client_of(house, load) as client:
        data = await data_of(client, "ask", question="Who is the king of France?")
    assert data["abstained"] is True
    assert data["citations"] == []


async def test_an_index_in_place_of_paths(house: Path, tmp_path: Path) -> None:
    CorpusIndex.build(load_documents([house])).save(tmp_path / "laws")
    async with client_of(house, indexes={"laws": tmp_path / "laws"}) as client:
        data = await data_of(client, "ask", question=QUESTION, index="laws")
        assert data["citations"][0]["document_id"] == "leave.md"
        data = await data_of(client, "search", query="trains", index="laws", k=1)
        place = {key: data["passages"][0][key] for key in ("start", "end")}
        document = data["passages"][0]["document_id"]
        data = await data_of(client, "quote", document=document, index="laws", **place)
        assert data["citation"]["text"].startswith("Trains are preferred")
        message = await error_of(client, "ask", question="?", index="laws", paths=["leave.md"])
        assert "not both" in message


async def test_documents_are_resources_as_they_are_now(house: Path, secret: str) -> None:
    (house / "ünï #1?%41.md").write_text("Odd names are names.")
    async with client_of(house) as client:
        listed = (await client.list_resources()).resources
        texts = {}
        for resource in listed:
            contents = (await client.read_resource(resource.uri)).contents
            texts[resource.name] = contents[0].text
        documents = load_documents([house]).documents
        assert texts == {document.id: document.text for document in documents}
        assert secret not in texts.values()
        (house / "new.md").write_text("Written later.")
        contents = (await client.read_resource(SCHEME + "new.md")).contents
        assert contents[0].text == "Written later."


async def test_no_hostile_path_reads_anything(
    house: Path, secret: str, hostile_paths: list[str]
) -> None:
    assert len(set(hostile_paths)) > 30
    async with client_of(house) as client:
        for path in hostile_paths:
            if "\ud800" in path:  # no JSON text
                continue
            messages = [
                await error_of(client, "ask", question=QUESTION, paths=["leave.md", path]),
                await error_of(client, "search", query=secret, paths=[path]),
                await error_of(client, "quote", document=path, start=0, end=4),
                await error_of(client, "check_quotes", text="x", paths=[path]),
                await error_of(client, "search", query=secret, index=path),
            ]
            assert all(" is called " in message for message in messages), messages
            assert secret not in f"{messages} {await read_of(client, SCHEME + path)}"


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd",
        "recallm://documents/%2e%2e/private/secret.md",
        "recallm://documents/..%2Fprivate%2Fsecret.md",
        "recallm://documents//etc/passwd",
        "recallm://documents/link.md",
        "recallm://documents/folder/secret.md",
        "recallm://other/leave.md",
        "recallm://documents",
        "recallm://documents/",
        "RECALLM://documents/leave.md",
        "leave.md",
        "",
    ],
)
async def test_no_other_address_is_a_resource(uri: str, house: Path, secret: str) -> None:
    async with client_of(house) as client:
        with pytest.raises(MCPError) as error:
            await client.read_resource(uri)
        assert secret not in str(error.value)


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("ask", {"question": " "}, "the question is empty"),
        ("ask", {"question": "x" * 20_001}, "has 20,001 characters; use at most 20,000"),
        ("search", {"query": ""}, "the query is empty"),
        ("search", {"query": "x", "k": 0}, r"k must be a whole number in \[1, 50\], got 0"),
        ("quote", {"document": "leave.md", "start": 5, "end": 2}, "is no range of 'leave.md'"),
        ("quote", {"document": "leave.md", "start": 0, "end": 10**30}, "end must be"),
        ("check_quotes", {"text": "x" * 1_000_001}, "check at most 1,000,000 at once"),
        ("check_quotes", {"text": "x", "min_words": -1}, "min_words must be"),
        ("search", {"query": "x", "index": "none"}, "there are: none"),
    ],
)
async def test_what_is_wrong_is_said_in_plain_words(
    tool: str, arguments: dict[str, Any], message: str, house: Path
) -> None:
    async with client_of(house) as client:
        assert re.search(message, await error_of(client, tool, **arguments))


async def test_a_model_that_cannot_be_loaded_is_tried_again(house: Path) -> None:
    models = iter([CheckpointError("no such model; name another"), scripted_llm(SCRIPT)])

    def load() -> RecaLLM:
        model = next(models)
        if isinstance(model, CheckpointError):
            raise model
        return model

    async with client_of(house, load) as client:
        message = await error_of(client, "ask", question=QUESTION)
        assert "no such model; name another" in message
        assert (await data_of(client, "ask", question=QUESTION))["citations"]


async def test_a_fault_of_ours_is_not_explained_to_the_client(house: Path) -> None:
    def load() -> RecaLLM:
        raise ZeroDivisionError("of a secret")

    async with client_of(house, load) as client:
        assert await error_of(client, "ask", question=QUESTION) == "Error executing tool ask"


async def test_a_client_hears_of_a_model_that_thinks(house: Path) -> None:
    heard = threading.Event()
    notes: list[tuple[float, str | None]] = []

    async def tell(progress: float, total: float | None, message: str | None) -> None:
        notes.append((progress, message))
        if message == "loading the model" and len(notes) > 2:
            heard.set()

    def load() -> RecaLLM:
        assert heard.wait(10)
        return scripted_llm(SCRIPT)

    async with client_of(house, load, every=0.01) as client:
        result = await client.call_tool("ask", {"question": QUESTION}, progress_callback=tell)
    assert not result.is_error
    assert [n for n, _ in notes] == sorted({n for n, _ in notes})


async def test_a_call_that_is_cancelled_stops_the_model(house: Path) -> None:
    began, stopped = threading.Event(), threading.Event()

    class Endless:
        """A backend's stream that ends only when it is closed."""

        finish_reason, cached_tokens = None, 0

        def __iter__(self) -> Endless:
            return self

        def __next__(self) -> tuple[int, ...]:
            began.set()
            assert stopped.wait(10)
            return ()

        def close(self) -> None:
            stopped.set()

    model = scripted_llm(SCRIPT)
    model.backend.generate = lambda _: Endless()  # type: ignore[method-assign, assignment, return-value]
    async with client_of(house, lambda: model) as client, anyio.create_task_group() as group:
        group.start_soon(client.call_tool, "ask", {"question": QUESTION})
        await anyio.to_thread.run_sync(began.wait, 10)
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            assert await anyio.to_thread.run_sync(stopped.wait, 10)


def command(house: Path) -> StdioServerParameters:
    """The command itself, as a host starts it."""
    root = str(Path(recallm_core.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    words = ["-P", "-m", "recallm_core.cli", "mcp", "--docs", str(house)]
    return StdioServerParameters(command=sys.executable, args=words, env=environment)


async def test_over_standard_input_and_output(house: Path, secret: str) -> None:
    async with Client(command(house)) as client:
        assert client.server_info is not None
        assert client.server_info.name == "recallm"
        report = await data_of(client, "check_quotes", text='"annual leave is 30 days"')
        assert report["counts"]["exact"] == 1
        place = report["quotes"][0]["citation"]
        arguments = {key: place[key] for key in ("start", "end")}
        data = await data_of(client, "quote", document=place["document_id"], **arguments)
        assert data["citation"]["text"] == "annual leave is 30 days"
        assert secret not in await error_of(client, "search", query="safe", paths=["link.md"])
        assert secret not in await read_of(client, SCHEME + "folder/secret.md")


@pytest.mark.slow
async def test_the_shipped_model_answers_over_standard_input_and_output(house: Path) -> None:
    async with Client(command(house)) as client:
        data = await data_of(client, "ask", question=QUESTION)
        text = (house / "leave.md").read_text()
        assert "30 days" in data["citations"][0]["text"]
        assert all(text[c["start"] : c["end"]] == c["text"] for c in data["citations"])
