"""A served model behaves like one in process, whatever the wire does."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import select
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core import Document, Finished, GenerationParams, RecallDelta, RecaLLM
from recallm_core.backends import Backend, GenerationRequest, Sampling, TokenStream
from recallm_core.backends.vllm.connection import Connection
from recallm_core.decoding.spec import SPEC_VERSION, ConstraintSpec, hash_tokens
from recallm_core.errors import (
    ConstraintError,
    ContextOverflowError,
    GenerationCancelledError,
    GenerationError,
    ServerError,
)
from recallm_core.models import shipped

FERRY = Document("The ferry leaves Port Hallow at 9:30. A ticket costs 14 euros.", id="ferry")
LEAVE = Document("Parental leave is 16 weeks, paid in full. \U0001f476\r\nAsk Ines.", id="leave")
SCRIPT = (
    "I look. <|start_recall|>The ferry leaves Port Hallow at 9:30<|end_recall|> and "
    "<|start_recall|>Parental leave is 16 weeks<|end_recall|></think>"
    "It leaves at <|start_recall|>9:30<|end_recall|>; leave is 16 weeks."
)
LONG = "<|start_recall|>The ferry leaves<|end_recall|></think>" + "word " * 400
QUESTION = "When does the ferry leave?"


@pytest.fixture
def serve(fake_server: Callable[..., Any]) -> Iterator[Callable[..., tuple[Any, RecaLLM]]]:
    """Starts a stand-in and connects to it; both end with the test."""
    opened: list[RecaLLM] = []

    def start(*args: Any, load: dict[str, Any] | None = None, **options: Any) -> Any:
        server = fake_server(*args, **options)
        opened.append(RecaLLM.load(server.url, **{"max_retries": 0, "timeout": 5, **(load or {})}))
        return server, opened[-1]

    yield start
    for llm in opened:
        llm.close()


@pytest.fixture
def standing(request: pytest.FixtureRequest, fake_server: Any) -> Any:
    """A stand-in with the usual script, and a model over it, that many tests share."""
    module = request.module
    if not hasattr(module, "_standing"):
        server = fake_server(SCRIPT, keep=True)
        module._standing = (server, RecaLLM.load(server.url, max_retries=0, timeout=5))
    return module._standing


@pytest.fixture(scope="module", autouse=True)
def _ended(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    server, llm = getattr(request.module, "_standing", (None, None))
    if server is not None:
        llm.close()
        server.stop()


def check(answer: Any, *documents: Document) -> None:
    texts = {d.id: d.text for d in documents}
    assert answer.citations
    for c in answer.citations:
        assert texts[c.document_id][c.start : c.end] == c.text


def test_an_answer_with_its_quotes(serve: Any) -> None:
    server, llm = serve(SCRIPT, load={"cache_salt": "tenant-a"})
    answer = llm.answer(QUESTION, [FERRY, LEAVE])
    check(answer, FERRY, LEAVE)
    assert answer.text == "It leaves at 9:30; leave is 16 weeks."
    assert [s.text for s in answer.trace.spans] == [
        "The ferry leaves Port Hallow at 9:30",
        "Parental leave is 16 weeks",
        "9:30",
    ]
    assert (answer.finish_reason, answer.model) == ("stop", "fake")
    assert answer.usage.cached_tokens == answer.usage.prompt_tokens // 2
    body = server.requests[-1]
    spec = ConstraintSpec.from_json(body["vllm_xargs"]["recallm"])
    assert spec.prompt_hash == hash_tokens(np.array(body["prompt"], dtype=np.int32))
    assert body["stop_token_ids"] == list(spec.eos)
    assert body["cache_salt"] == "tenant-a"
    assert server.wait_for(lambda s: s.finished == 3)  # and the two of the self-check
    assert server.aborted == 0


@pytest.mark.parametrize("per_event", [1, 3, 1000])
def test_events_come_as_they_happen_and_add_up(serve: Any, per_event: int) -> None:
    _, llm = serve(SCRIPT, per_event=per_event)
    events = list(llm.stream(QUESTION, [FERRY, LEAVE]))
    assert isinstance(events[-1], Finished)
    check(events[-1].answer, FERRY, LEAVE)
    quoted = "".join(e.text for e in events if isinstance(e, RecallDelta))
    assert quoted == "".join(s.text for s in events[-1].answer.trace.spans)


def test_settings_reach_the_server(standing: Any) -> None:
    server, llm = standing
    params = GenerationParams(max_new_tokens=77, temperature=0.5, top_p=0.9, seed=7)
    llm.answer(QUESTION, [FERRY], params=params)
    body = server.requests[-1]
    asked = {name: body[name] for name in ("max_tokens", "temperature", "top_p", "seed")}
    assert asked == {"max_tokens": 77, "temperature": 0.5, "top_p": 0.9, "seed": 7}
    llm.answer(QUESTION, [FERRY], seed=-1)
    assert server.requests[-1]["seed"] == 2**63 - 1  # to vLLM, -1 is no seed


def test_chat_tools_and_schemas(serve: Any) -> None:
    documents = [FERRY]
    tool = {
        "type": "function",
        "function": {
            "name": "book",
            "description": "Books a ticket.",
            "parameters": {
                "type": "object",
                "properties": {"seats": {"type": "integer"}},
                "required": ["seats"],
            },
        },
    }
    call = '</think><tool_call>\n{"name": "book", "arguments": {"seats": 2}}\n</tool_call>'
    messages = [{"role": "user", "content": "Book two seats."}]
    _, llm = serve(call, folder=_with_tools())
    answer = llm.chat(messages, documents, tools=[tool], tool_choice="required")
    assert [(c.name, c.arguments) for c in answer.tool_calls] == [("book", {"seats": 2})]
    assert answer.finish_reason == "tool_calls"
    script = "<|start_recall|>at 9:30<|end_recall|></think>" + '{"time": "9:30"}'
    _, llm = serve(script)
    schema = {"type": "object", "properties": {"time": {"type": "string"}}, "required": ["time"]}
    asked = [{"role": "user", "content": QUESTION}]
    answer = llm.chat(asked, documents, response_schema=schema)
    assert json.loads(answer.text) == {"time": "9:30"}
    check(answer, FERRY)


def _with_tools() -> Path:
    """The shipped model's tokenizer with a template that shows tools."""
    return FOLDERS["tools"]


FOLDERS: dict[str, Path] = {}


@pytest.fixture(scope="module", autouse=True)
def _folders(tmp_path_factory: pytest.TempPathFactory, wordy_folder: Path) -> None:
    for name in ("tools", "own"):
        folder = tmp_path_factory.mktemp(name)
        for file in ("tokenizer.json", "tokenizer_config.json", "recallm.json", "config.json"):
            shutil.copy(wordy_folder / file, folder / file)
        FOLDERS[name] = folder
    path = FOLDERS["tools"] / "tokenizer_config.json"
    config = json.loads(path.read_text())
    shown = "{% if tools %}{{ tools | tojson }}{% endif %}"
    config["chat_template"] = shown + config["chat_template"]
    path.write_text(json.dumps(config))


def test_a_batch_shares_the_server_and_keeps_its_order(serve: Any) -> None:
    def script(prompt: str) -> str:
        which = "16 weeks" if "How long" in prompt else "9:30"
        return f"<|start_recall|>{which}<|end_recall|></think>{which}"

    server, llm = serve(script, pause=0.02)
    questions = [("How long?" if n % 2 else "When?", [FERRY, LEAVE]) for n in range(16)]
    answers = llm.answer_batch(questions)
    assert [a.text for a in answers] == ["9:30", "16 weeks"] * 8
    assert server.most_running > 1


def test_many_threads_at_once(serve: Any) -> None:
    server, llm = serve(SCRIPT, pause=0.001, load={"max_connections": 4})
    with ThreadPoolExecutor(16) as pool:
        found = pool.map(lambda _: llm.answer(QUESTION, [FERRY, LEAVE]), range(16))
        texts = {answer.text for answer in found}
    assert texts == {"It leaves at 9:30; leave is 16 weeks."}
    assert 1 < server.most_running <= 4


async def test_asynchronous_callers(serve: Any) -> None:
    _, llm = await asyncio.to_thread(serve, SCRIPT)
    answers = await asyncio.gather(*(llm.aanswer(QUESTION, [FERRY, LEAVE]) for _ in range(5)))
    assert {a.text for a in answers} == {"It leaves at 9:30; leave is 16 weeks."}
    kinds = [type(e).__name__ async for e in llm.astream(QUESTION, [FERRY, LEAVE])]
    assert kinds[-1] == "Finished"
    assert len(kinds) > 10


async def test_cancelling_stops_the_server(serve: Any) -> None:
    server, llm = await asyncio.to_thread(serve, LONG, pause=0.02)
    task = asyncio.create_task(llm.aanswer(QUESTION, [FERRY]))
    assert await asyncio.to_thread(server.wait_for, lambda s: s.running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(server.wait_for, lambda s: s.aborted == 1)


def test_a_forked_child_has_a_loop_of_its_own(serve: Any) -> None:
    """A web server that loads the model once and forks its workers must not wait for ever."""
    _, llm = serve(SCRIPT)
    llm.answer(QUESTION, [FERRY, LEAVE])
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            os.write(writing, llm.answer(QUESTION, [FERRY, LEAVE]).text.encode())
        finally:
            os._exit(0)
    os.close(writing)
    try:
        assert select.select([reading], [], [], 30)[0], "the child hangs"
        assert os.read(reading, 1000).decode() == "It leaves at 9:30; leave is 16 weeks."
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
    check(llm.answer(QUESTION, [FERRY, LEAVE]), FERRY, LEAVE)  # the parent's loop is untouched


def test_closing_a_stream_stops_the_server(serve: Any) -> None:
    server, llm = serve(LONG, pause=0.02)
    stream = llm.stream(QUESTION, [FERRY])
    next(stream)
    stream.close()
    assert server.wait_for(lambda s: s.aborted == 1)
    with pytest.raises(GenerationCancelledError):
        stream.result()


def test_a_stream_that_is_dropped_stops_the_server(serve: Any) -> None:
    server, llm = serve(LONG, pause=0.02)
    stream = llm.stream(QUESTION, [FERRY])
    next(stream)
    del stream
    gc.collect()
    assert server.wait_for(lambda s: s.aborted == 1)


def test_a_stop_string_stops_the_server(serve: Any) -> None:
    server, llm = serve(LONG, pause=0.01)
    answer = llm.answer(QUESTION, [FERRY], stop=("word word",))
    assert answer.finish_reason == "stop"
    assert server.wait_for(lambda s: s.aborted == 1)


def test_closing_the_model_ends_what_runs_and_twice_is_fine(serve: Any) -> None:
    server, llm = serve(LONG, pause=0.02)
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            llm.answer(QUESTION, [FERRY])
        except GenerationError as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert server.wait_for(lambda s: s.running == 1)
    llm.close()
    llm.close()
    thread.join(10)
    assert not thread.is_alive()
    assert isinstance(failed[0], GenerationCancelledError)
    with pytest.raises(GenerationCancelledError):
        llm.answer(QUESTION, [FERRY])


def test_it_is_what_the_protocol_says(standing: Any) -> None:
    _, llm = standing
    backend: Backend = llm.backend
    assert (backend.window, backend.vocab_size, backend.in_process) == (16_384, 6144, False)
    prompt, _ = llm.prepare([{"role": "user", "content": QUESTION}], [FERRY])
    request = GenerationRequest(prompt.token_ids, prompt.rules, Sampling(max_new_tokens=5))
    stream: TokenStream = backend.generate(request)
    assert sum(len(tokens) for tokens in stream) == 5
    assert stream.finish_reason == "length"
    assert "fake" in repr(backend)


def test_a_prior_that_must_be_recomputed_is_refused(standing: Any) -> None:
    _, llm = standing
    prompt, _ = llm.prepare([{"role": "user", "content": QUESTION}], [FERRY], prior="sentences")
    assert prompt.spec.prior is not None  # the static one goes along
    request = GenerationRequest(prompt.token_ids, prompt.rules, Sampling(), lambda *_: None)
    with pytest.raises(ConstraintError, match="needs the model in this process"):
        llm.backend.generate(request)


def test_what_does_not_fit_is_refused_here(serve: Any) -> None:
    server, llm = serve(SCRIPT, window=600)
    sent = len(server.requests)
    with pytest.raises(ContextOverflowError):
        llm.answer("word " * 600, [FERRY])
    assert len(server.requests) == sent


def test_the_same_tokens_as_in_process(fake_server: Any) -> None:
    with RecaLLM.load("recallm-mini") as local:
        server = fake_server(engine=local.backend, folder=shipped("recallm-mini"))
        with RecaLLM.load(server.url) as llm:
            assert llm.recipe == local.recipe
            assert llm.tokenizer.fingerprint == local.tokenizer.fingerprint
            settings: dict[str, Any] = {"temperature": 0.0, "prior": "none"}
            for documents in ([FERRY], [FERRY, LEAVE]):
                here = local.answer(QUESTION, documents, **settings)
                there = llm.answer(QUESTION, documents, **settings)
                assert there.trace == here.trace
                assert there.citations == here.citations


SCHEMA = {"type": "object", "properties": {"open": {"type": "boolean"}}, "required": ["open"]}
TOOL = {"type": "function", "function": {"name": "look", "parameters": SCHEMA}}
FORMS: list[dict[str, Any]] = [
    {},
    {"response_schema": SCHEMA},
    {"tools": [TOOL], "tool_choice": "required"},
]


@pytest.mark.slow
def test_every_policy_gives_the_same_tokens_as_in_process(fake_server: Any, tooled: Path) -> None:
    """Streamed from a server, one by one or in a batch; the rules travel with each request."""
    with RecaLLM.load(tooled, dtype="float32") as local:
        server = fake_server(engine=local.backend, folder=tooled)
        with RecaLLM.load(server.url) as llm:
            for policy, form in product(["free", "required", "first"], FORMS):
                check_the_same(local, llm, {**form, **SHORT, "evidence": policy})


SHORT: dict[str, Any] = {
    "temperature": 0.0,
    "prior": "none",
    "max_new_tokens": 60,
    "max_thinking_tokens": 12,
}


def check_the_same(local: RecaLLM, llm: RecaLLM, settings: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": QUESTION}]
    here = local.chat(messages, [FERRY, LEAVE], **settings)
    *_, last = llm.stream_chat(messages, [FERRY, LEAVE], **settings)
    assert isinstance(last, Finished)
    answers = [last.answer]
    if "tools" not in settings and "response_schema" not in settings:
        answers += llm.answer_batch([(QUESTION, [FERRY, LEAVE])] * 2, **settings)
    for there in answers:
        assert there.trace == here.trace
        assert (there.citations, there.text) == (here.citations, here.text)
        assert [(c.name, c.arguments) for c in there.tool_calls] == [
            (c.name, c.arguments) for c in here.tool_calls
        ]
    assert here.trace.spans or settings["evidence"] == "free"


@pytest.fixture(scope="module")
def tooled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model, with a chat template that shows tools."""
    mini = shipped("recallm-mini")
    assert mini is not None
    folder = tmp_path_factory.mktemp("served") / "mini"
    shutil.copytree(mini, folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8"))
    config["chat_template"] = "{{ tools | default('') | tojson }}" + config["chat_template"]
    path.write_text(json.dumps(config), "utf-8")
    return folder


_PIECES = st.sampled_from(
    ["leave", " 16", " weeks", ".", " ", "\r\n", "é", "e\u0301", "\U0001f476", "日本",
     "<|end_recall|>", "</think>", "1,234.5", "<recall>", "\u200d", "A ticket", " ticket"]
)  # fmt: skip


@settings(max_examples=40)
@given(st.lists(st.lists(_PIECES, min_size=1, max_size=12), min_size=1, max_size=4), st.integers())
def test_whatever_the_server_says_legally_is_quoted_exactly(
    walking: Any, texts: list[list[str]], seed: int
) -> None:
    documents = [Document("".join(pieces), id=str(n)) for n, pieces in enumerate(texts)]
    answer = walking.answer("?", documents, seed=seed % 2**31, max_new_tokens=120)
    by_id = {d.id: d.text for d in documents}
    for c in answer.citations:
        assert by_id[c.document_id][c.start : c.end] == c.text
        for place in c.occurrences:
            assert by_id[place.document_id][place.start : place.end] == c.text
    for span in answer.trace.spans:
        assert by_id[span.document_id][span.start : span.end] == span.text


@pytest.fixture
def walking(serve: Any) -> RecaLLM:
    _, llm = serve(None, per_event=4)
    found: RecaLLM = llm
    return found


# what goes wrong


@pytest.mark.parametrize(
    ("fault", "part"),
    [
        ("broken", r"failed \(500\): told \?\[31mto"),
        ("busy", r"too busy or not ready, also after further tries \(503\)"),
        ("limited", r"too busy, also after further tries \(429\)"),
        ("redirect", "redirects to http://127.0.0.1:9/v1/completions; redirects aren't followed"),
        ("html", "isn't a vLLM server's event stream; the last it said: <html>a proxy's page"),
        ("unheard", "broke off before it answered"),
        ("cut", "broke off in the middle of its answer"),
        ("early", "ended its answer too early"),
        ("noise", "the server's answer isn't JSON: {not json"),
        ("flood", "an event of more than"),
        ("error", "failed while it generated: EngineCore encountered an issue"),
        ("no echo", "can't be tied to the documents"),
        ("other prompt", "continued another prompt than it was sent"),
        ("texts", "token ids must be a list of numbers below 6,144"),
        ("beyond", "token ids must be a list of numbers below 6,144"),
        ("too many", "more tokens than it was asked for"),
        ("abort", "ended the output with 'abort'"),
        ("illegal", "illegal token, so no quote can be vouched for"),
    ],
)
def test_a_failure_is_a_clear_error_and_the_next_answer_is_fine(
    standing: Any, fault: str, part: str
) -> None:
    server, llm = standing
    server.faults.append(fault)
    with pytest.raises(GenerationError, match=part):
        llm.answer(QUESTION, [FERRY])
    assert llm.answer(QUESTION, [FERRY]).finish_reason == "stop"


@pytest.mark.parametrize("fault", ["hang", "mute"])
def test_a_server_that_says_nothing_is_given_up(serve: Any, fault: str) -> None:
    server, llm = serve(SCRIPT)
    llm.backend.close()  # loading has time; a busy machine is late for the first replies
    llm.backend.connection = Connection(server.url, timeout=0.3, max_retries=0)
    server.faults.append(fault)
    with pytest.raises(ServerError, match=r"sent nothing for 0.3 s.*raise timeout="):
        llm.answer(QUESTION, [FERRY])


def test_a_server_that_is_gone(serve: Any) -> None:
    server, llm = serve(SCRIPT)
    server.stop()
    with pytest.raises(ServerError, match=r"no model server answers at .*recallm serve MODEL"):
        llm.answer(QUESTION, [FERRY])


@pytest.mark.parametrize("faults", [["busy", "limited"], ["unheard"]])
def test_what_is_safe_is_tried_again(serve: Any, faults: list[str]) -> None:
    server, llm = serve(SCRIPT, load={"max_retries": 2})
    before = len(server.requests)
    server.faults.extend(faults)
    check(llm.answer(QUESTION, [FERRY, LEAVE]), FERRY, LEAVE)
    assert len(server.requests) == before + len(faults) + 1


@pytest.mark.parametrize("fault", ["cut", "broken", "noise"])
def test_what_has_begun_or_failed_is_not_tried_again(serve: Any, fault: str) -> None:
    server, llm = serve(SCRIPT, load={"max_retries": 3})
    before = len(server.requests)
    server.faults.append(fault)
    with pytest.raises(ServerError):
        llm.answer(QUESTION, [FERRY])
    assert len(server.requests) == before + 1


def test_an_end_that_the_server_names_apart(standing: Any) -> None:
    server, llm = standing
    server.faults.append("named apart")
    assert llm.answer(QUESTION, [FERRY, LEAVE]).finish_reason == "stop"


def test_a_refused_request_says_why(serve: Any) -> None:
    server, llm = serve(SCRIPT)
    server.name = "another"
    with pytest.raises(ServerError, match=r"refused the request \(400\): the model 'fake' does"):
        llm.answer(QUESTION, [FERRY])


@pytest.mark.parametrize("spec", ["", "{}", '{"version": 99}'])
def test_a_bad_constraint_is_refused(standing: Any, spec: str) -> None:
    _, llm = standing
    with pytest.raises(ServerError, match=r"refused the request \(400\): .*constraint spec"):
        llm.backend.complete([1, 2, 3], 4, spec=spec)


# connecting


def test_connecting_names_what_is_there(standing: Any) -> None:
    server, llm = standing
    assert llm.backend.about == {
        "engine": "vLLM 0.0",
        "runner": "V2",
        "model": "fake",
        "release": "test",
    }
    assert llm.name == "fake"
    bound, free = server.requests[:2]
    assert "vllm_xargs" in bound
    assert "vllm_xargs" not in free


def test_a_server_that_ignores_the_constraint_is_refused(fake_server: Any) -> None:
    server = fake_server(SCRIPT, acts=False)
    with pytest.raises(ServerError, match=r"doesn't hold its output.*recallm serve"):
        RecaLLM.load(server.url)


def test_a_server_without_an_offer_wants_a_folder(fake_server: Any) -> None:
    server = fake_server(SCRIPT, offers=False)
    with pytest.raises(ServerError, match=r"offers no tokenizer.*recallm serve MODEL.*tokenizer="):
        RecaLLM.load(server.url)
    with RecaLLM.load(server.url, tokenizer=FOLDERS["own"]) as llm:
        assert llm.backend.about["engine"] == "vLLM 0.0"
        check(llm.answer(QUESTION, [FERRY, LEAVE]), FERRY, LEAVE)
        assert "/tokenize" in server.paths


def test_a_folder_of_another_model_is_refused(
    fake_server: Any, tmp_path: Path, family: Any
) -> None:
    other = tmp_path / "other"
    family("qwen").save_pretrained(other)
    (other / "config.json").write_text('{"vocab_size": 6144}')
    for offered in (True, False):
        server = fake_server(SCRIPT, offers=offered)
        with pytest.raises(ServerError, match="isn't the one of"):
            RecaLLM.load(server.url, tokenizer=other)


def test_a_folder_that_agrees_with_the_offer(fake_server: Any) -> None:
    server = fake_server(SCRIPT)
    RecaLLM.load(server.url, tokenizer=FOLDERS["own"]).close()
    recipe = json.loads((FOLDERS["own"] / "recallm.json").read_text())
    changed = json.dumps(recipe | {"min_support": 0.0}).encode()
    server.files = server.files | {"recallm.json": changed}
    with pytest.raises(ServerError, match=r"recipe of .* isn't the one of .*recipe=Recipe.load"):
        RecaLLM.load(server.url, tokenizer=FOLDERS["own"])


def test_keys(fake_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = fake_server(SCRIPT, key="a-long-secret-key")
    for wrong in (None, "another"):
        with pytest.raises(ServerError, match=r"wants another key: give api_key=.*401"):
            RecaLLM.load(server.url, api_key=wrong)
    RecaLLM.load(server.url, api_key="a-long-secret-key").close()
    monkeypatch.setenv("RECALLM_API_KEY", "a-long-secret-key")
    llm = RecaLLM.load(server.url + "/v1/")
    assert "secret" not in repr(llm) + repr(llm.backend)
    llm.close()


def test_nobody_is_there() -> None:
    with pytest.raises(ValueError, match="looks like http://host:8000"):
        RecaLLM.load("http://")
    with pytest.raises(ValueError, match="holds no user or password"):
        RecaLLM.load("http://me:secret@localhost:1")
    with pytest.raises(TypeError, match=r"unknown options \['device'\].*api_key"):
        RecaLLM.load("http://localhost:1", device="cpu")
    with pytest.raises(ValueError, match="timeout must be a number above 0"):
        RecaLLM.load("http://localhost:1", timeout=0)


@pytest.mark.enable_socket
def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ServerError, match="no model server answers at"):
            RecaLLM.load(url, max_retries=1)


Edit = Callable[[dict[str, Any]], Any]
HOSTILE: list[tuple[Edit, str]] = [
    (lambda d: [], "can't be used"),
    (lambda d: d | {"version": 99}, "version 99"),
    (
        lambda d: d | {"spec_version": SPEC_VERSION + 1},
        f"constraint specs have version {SPEC_VERSION + 1}",
    ),
    (lambda d: d | {"vocab_size": 10**12}, "vocab_size is no number"),
    (lambda d: d | {"vocab_size": 6000}, "fingerprint"),
    (lambda d: d | {"model_type": "../../x"}, "model_type"),
    (lambda d: d | {"engine": "vLLM\x1b[31m"}, "engine is no plain short text"),
    (lambda d: d | {"eos_ids": ["x"]}, "eos_ids is no number"),
    (lambda d: d | {"files": {"../evil.py": {"size": 1, "sha256": "0" * 64}}}, "isn't one of"),
    (lambda d: d | {"files": {"tokenizer.json": {"size": 10**9, "sha256": "0" * 64}}}, "limit"),
    (lambda d: d | {"model": "other"}, "mixes two servers"),
    (lambda d: {k: v for k, v in d.items() if k != "files"}, "files"),
    (lambda d: json.loads("[" * 500 + "]" * 500), "can't be used"),
]


@pytest.mark.parametrize(("edit", "part"), HOSTILE)
def test_a_hostile_description_is_refused(fake_server: Any, edit: Edit, part: str) -> None:
    server = fake_server(SCRIPT)
    server.edit_offer = edit
    with pytest.raises(ServerError, match=part):
        RecaLLM.load(server.url)


def test_files_that_differ_from_their_description_are_refused(fake_server: Any) -> None:
    server = fake_server(SCRIPT)
    told = json.loads(server.offer())
    server.edit_offer = lambda _: told
    good = server.files["tokenizer.json"]
    for bad in (good[:-1], good + b" ", good[:-1] + b" "):
        server.files = server.files | {"tokenizer.json": bad}
        with pytest.raises(ServerError, match=r"tokenizer.json|more than"):
            RecaLLM.load(server.url)


def test_a_tokenizer_config_cannot_lead_elsewhere(fake_server: Any, tmp_path: Path) -> None:
    server = fake_server(SCRIPT)
    config = json.loads(server.files["tokenizer_config.json"])
    evil = config | {
        "tokenizer_file": "/etc/passwd",
        "vocab_file": "/etc/passwd",
        "auto_map": {"AutoTokenizer": ["evil.Evil", None]},
    }
    server.files = server.files | {"tokenizer_config.json": json.dumps(evil).encode()}
    with RecaLLM.load(server.url) as llm:
        check(llm.answer(QUESTION, [FERRY, LEAVE]), FERRY, LEAVE)
    template = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    bad = config | {"chat_template": template}
    server.files = server.files | {"tokenizer_config.json": json.dumps(bad).encode()}
    with RecaLLM.load(server.url) as llm, pytest.raises(Exception, match=r"unsafe|template"):
        llm.answer(QUESTION, [FERRY])


def test_a_silent_server_cannot_hold_the_loop_thread(serve: Any) -> None:
    """What hangs is ended by close, well before its timeout."""
    server, llm = serve(SCRIPT, load={"timeout": 60})
    server.faults.append("hang")
    stream = llm.stream(QUESTION, [FERRY])
    assert server.wait_for(lambda s: not s.faults)
    begun = time.monotonic()
    llm.close()
    with pytest.raises(GenerationError):
        stream.result()
    assert time.monotonic() - begun < 30
