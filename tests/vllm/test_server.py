"""A real vLLM server that ``recallm serve`` started, and everything that is promised over it.

The server runs in the Python of ``RECALLM_VLLM_PYTHON``, or in this one; where vLLM is missing the
tests fail. On a CPU this is vLLM's first model runner.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document as LangChainDocument
from llama_index.core.llms import ChatMessage, CitableBlock, TextBlock
from pydantic import BaseModel

import llama_index_recallm
from langchain_recallm import ChatRecaLLM, message_citations
from recallm_core import Document, Finished, RecaLLM
from recallm_core.backends.vllm.handshake import check_tokenizer
from recallm_core.backends.vllm.http import ServerBackend
from recallm_core.decoding.spec import GrammarSpec
from recallm_core.errors import GenerationCancelledError, ServerError
from recallm_core.tokenization.tokenizer import HFTokenizer

pytestmark = [pytest.mark.vllm, pytest.mark.enable_socket, pytest.mark.timeout(900)]

KEY = "a-key-of-enough-characters"
START_SECONDS = 400  # two busy cores: 30 s when quiet
FERRY = Document("The ferry leaves Port Hallow at 9:30. A ticket costs 14 euros.", id="ferry")
LEAVE = Document(
    "Parental leave is 16 weeks, paid in full. \U0001f476\r\nAsk Ines Krall in Room 12.", id="leave"
)
QUESTIONS = (
    "When does the ferry leave?",
    "What does a ticket cost?",
    "How long is parental leave?",
    "Who can I ask about leave?",
)
PLAIN: dict[str, Any] = {"temperature": 0.0, "prior": "none"}  # what is equal in and out of process
SHORT: dict[str, Any] = {"max_new_tokens": 100, "max_thinking_tokens": 24}
LONG: dict[str, Any] = {  # noise, which goes on until its limit
    "temperature": 2.0,
    "top_p": 1.0,
    "recall_in": "none",
    "seed": 1,
    "max_new_tokens": 3500,
    "max_thinking_tokens": 3400,
}


class Server:
    """``recallm serve`` as a process group of its own."""

    def __init__(self, folder: Path, log: Path, environment: dict[str, str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        python = os.environ.get("RECALLM_VLLM_PYTHON", sys.executable)
        flags = ["--dtype", "float32", "--enforce-eager", "--max-model-len", "4096"]
        command = [python, "-m", "recallm_core.cli", "serve", str(folder), *flags]
        command += ["--port", str(self.port), "--served-model-name", "mini", "--max-num-seqs", "16"]
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                env=environment | {"RECALLM_API_KEY": KEY},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def wait(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if self.get("/health")[0] == 200:
                    return
            except OSError:
                time.sleep(0.5)
        text = self.log.read_text(errors="replace")[-6000:]
        raise AssertionError(f"the server didn't start (rc {self.process.poll()}):\n{text}")

    def get(self, path: str, key: str = "", body: Any = None) -> tuple[int, str]:
        """Status and text of a reply; with a body, to a POST."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data)
        request.add_header("Content-Type", "application/json")
        if key:
            request.add_header("Authorization", f"Bearer {key}")
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""

    def running(self) -> float:
        """Requests that the engine works on, as its metrics say."""
        _, text = self.get("/metrics", KEY)
        lines = [line for line in text.splitlines() if line.startswith("vllm:num_requests_running")]
        assert lines
        return sum(float(line.split()[-1]) for line in lines)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


@pytest.fixture(scope="module")
def server(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, vllm_environment: dict[str, str]
) -> Iterator[Server]:
    started = Server(folder, tmp_path_factory.mktemp("log") / "server.log", vllm_environment)
    try:
        started.wait()
        yield started
    finally:
        started.kill()


@pytest.fixture(scope="module")
def llm(server: Server) -> Iterator[RecaLLM]:
    with RecaLLM.load(server.url, api_key=KEY, timeout=120) as found:
        yield found


def check(answer: Any) -> None:
    texts = {FERRY.id: FERRY.text, LEAVE.id: LEAVE.text}
    for c in answer.citations:
        assert texts[c.document_id][c.start : c.end] == c.text


def test_connecting_says_what_is_there(llm: RecaLLM, local: RecaLLM) -> None:
    about = llm.backend.about  # type: ignore[attr-defined] # of served backends
    assert about["engine"].startswith("vLLM 0.")
    assert about["runner"] in ("V1", "V2")
    assert about["model"] == llm.name == "mini"
    assert (llm.backend.window, llm.backend.vocab_size) == (4096, local.backend.vocab_size)
    assert llm.recipe == local.recipe
    assert llm.tokenizer.fingerprint == local.tokenizer.fingerprint
    assert llm.tokenizer.eos_ids == local.tokenizer.eos_ids


def test_a_local_folder_is_compared_with_the_server(
    server: Server, llm: RecaLLM, folder: Path
) -> None:
    RecaLLM.load(server.url, api_key=KEY, tokenizer=folder).close()
    backend, tokenizer = llm.backend, llm.tokenizer
    assert isinstance(backend, ServerBackend)
    assert isinstance(tokenizer, HFTokenizer)
    check_tokenizer(backend, tokenizer)  # by what the server makes of texts, without an offer
    other = HFTokenizer(family_of_another_model())
    with pytest.raises(ServerError, match="isn't the one of"):
        check_tokenizer(backend, other)


def family_of_another_model() -> Any:
    """A tokenizer that knows next to nothing."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({c: n for n, c in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made)


def test_the_same_tokens_as_transformers(llm: RecaLLM, local: RecaLLM) -> None:
    for question in QUESTIONS:
        here = local.answer(question, [FERRY, LEAVE], **PLAIN)
        there = llm.answer(question, [FERRY, LEAVE], **PLAIN)
        assert there.trace == here.trace
        assert there.citations == here.citations
        assert there.finish_reason == here.finish_reason
        check(there)
    assert there.trace.spans


def test_a_static_prior_goes_along(llm: RecaLLM) -> None:
    for question in QUESTIONS:
        answer = llm.answer(question, [FERRY, LEAVE], temperature=0.0)
        assert answer.trace.spans
        check(answer)


def test_streaming(llm: RecaLLM) -> None:
    events = list(llm.stream(QUESTIONS[0], [FERRY, LEAVE], **PLAIN))
    assert isinstance(events[-1], Finished)
    check(events[-1].answer)
    assert len(events) > 5


def test_sixteen_at_once_are_like_one_after_another(llm: RecaLLM) -> None:
    asked = [(QUESTIONS[n % 4], [FERRY, LEAVE]) for n in range(16)]
    alone = [llm.answer(question, documents, **PLAIN) for question, documents in asked[:4]]
    together = llm.answer_batch(asked, **PLAIN)
    for number, answer in enumerate(together):
        assert answer.trace == alone[number % 4].trace
        check(answer)


def test_sampled_answers_repeat_with_their_seed(llm: RecaLLM) -> None:
    settings: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "prior": "none"}
    asked = [(QUESTIONS[0], [FERRY, LEAVE])] * 6
    first, second, *rest = (
        llm.answer(q, d, seed=seed, **settings)
        for (q, d), seed in zip(asked, (7, 7, 1, 2, 3, 4), strict=True)
    )
    assert first.trace == second.trace
    assert any(answer.trace != first.trace for answer in rest)
    for answer in (first, *rest):
        check(answer)


def test_a_seeded_request_with_a_long_prompt(llm: RecaLLM) -> None:
    """Longer than what vLLM reads at once by default; on a CPU that used to end its engine."""
    text = " ".join(f"Shed {n} holds {n * 7} kilos of rope." for n in range(180))
    answer = llm.answer("What does shed 3 hold?", [text], seed=1, max_new_tokens=8)
    assert answer.usage.prompt_tokens > 2048


async def test_asynchronous_callers(llm: RecaLLM) -> None:
    import asyncio

    answers = await asyncio.gather(*(llm.aanswer(q, [FERRY, LEAVE], **PLAIN) for q in QUESTIONS))
    for answer in answers:
        check(answer)


def test_the_second_question_finds_the_passages_in_the_cache(llm: RecaLLM) -> None:
    text = " ".join(f"Shed {n} holds {n * 7} kilos of rope." for n in range(60))
    document = Document(text, id="sheds")
    for question in ("What does shed 3 hold?", "What does shed 7 hold?"):
        answer = llm.answer(question, [document], max_new_tokens=8)
    assert answer.usage.cached_tokens > 100


def test_tools_and_schemas(llm: RecaLLM, tool: Any, schema: Any) -> None:
    messages = [{"role": "user", "content": "Book seats on the ferry."}]
    answer = llm.chat(messages, [FERRY], tools=[tool], tool_choice="required", **PLAIN)
    (call,) = answer.tool_calls[:1]
    assert call.name == "book"
    assert 1 <= call.arguments["seats"] <= 9
    answer = llm.chat(messages, [FERRY], response_schema=schema, **PLAIN)
    value = json.loads(answer.text)
    assert set(value) == {"open", "kind"}
    assert value["kind"] in ("ferry", "leave")


@pytest.mark.parametrize("policy", ["free", "required", "first"])
def test_every_policy_gives_the_tokens_of_transformers(
    llm: RecaLLM, local: RecaLLM, tool: Any, schema: Any, policy: str
) -> None:
    settings: dict[str, Any] = {**PLAIN, **SHORT, "evidence": policy}
    documents, messages = [FERRY, LEAVE], [{"role": "user", "content": QUESTIONS[0]}]
    for form in ({}, {"response_schema": schema}, {"tools": [tool], "tool_choice": "required"}):
        here = local.chat(messages, documents, **form, **settings)
        with llm.stream_chat(messages, documents, **form, **settings) as stream:
            there = [stream.result()]
        if not form:
            there += llm.answer_batch([(QUESTIONS[0], documents)] * 2, **settings)
        for other in there:
            assert (other.trace, other.citations) == (here.trace, here.citations)
            assert [c.arguments for c in other.tool_calls] == [c.arguments for c in here.tool_calls]
        assert here.trace.spans or policy == "free"


def test_langchain(server: Server, tool: Any) -> None:
    class Ferry(BaseModel):
        """Whether it leaves."""

        leaves: bool

    model = ChatRecaLLM(model=server.url, api_key=KEY, temperature=0, prior="none")
    documents = [LangChainDocument(FERRY.text)]
    message = model.invoke(QUESTIONS[0], documents=documents)
    for citation in message_citations(message):
        place = citation["extras"]
        quote = FERRY.text[place["start_char_index"] : place["end_char_index"]]
        assert quote == citation["cited_text"]
    streamed = "".join(c.text for c in model.stream(QUESTIONS[0], documents=documents))
    assert streamed == message.text
    bound = model.bind_tools([tool], tool_choice="any")
    assert bound.invoke("Book.", documents=documents).tool_calls[0]["name"] == "book"
    found = model.with_structured_output(Ferry).invoke(QUESTIONS[0], documents=documents)
    assert isinstance(found, Ferry)
    model.llm.close()


def test_llama_index(server: Server) -> None:
    llm = llama_index_recallm.RecaLLM(model=server.url, api_key=KEY, temperature=0, prior="none")
    source = CitableBlock(title="Ferry", source="f", content=[TextBlock(text=FERRY.text)])
    asked = [ChatMessage(role="user", blocks=[source, TextBlock(text=QUESTIONS[0])])]
    whole = llm.chat(asked).message.content
    assert "".join(r.delta or "" for r in llm.stream_chat(asked)) == whole
    llm.engine.close()


@pytest.mark.parametrize("spec", ["", "{}", "[1]", '{"version": 99}', "x" * 1000])
def test_a_bad_constraint_is_refused_before_it_runs(llm: RecaLLM, spec: str) -> None:
    with pytest.raises(ServerError, match=r"refused the request \(400\)"):
        llm.backend.complete([1, 2, 3], 4, spec=spec)  # type: ignore[attr-defined] # served
    check(llm.answer(QUESTIONS[0], [FERRY, LEAVE], **PLAIN))


def test_a_bad_constraint_is_http_400(server: Server) -> None:
    body = {"model": "mini", "prompt": [1, 2], "max_tokens": 2, "vllm_xargs": {"recallm": "{}"}}
    assert server.get("/v1/completions", KEY, body)[0] == 400
    assert server.get("/v1/completions", KEY, body | {"vllm_xargs": {}})[0] == 200


@pytest.mark.parametrize(
    "grammar", ["start: (", 'start: %json {"type": "integer", "multipleOf": 99999989}']
)
def test_a_grammar_that_cannot_be_compiled_is_refused(llm: RecaLLM, grammar: str) -> None:
    """The second would take minutes; either would have ended the engine for everyone."""
    prompt, _ = llm.prepare([{"role": "user", "content": QUESTIONS[0]}], [FERRY])
    spec = replace(prompt.spec, grammar=GrammarSpec(answer=grammar)).to_json()
    with pytest.raises(ServerError, match=r"refused the request \(400\).*grammar"):
        llm.backend.complete(prompt.token_ids.tolist(), 4, spec=spec)  # type: ignore[attr-defined] # served
    check(llm.answer(QUESTIONS[0], [FERRY, LEAVE], **PLAIN))


def test_a_constraint_of_another_prompt_keeps_recall_closed(llm: RecaLLM) -> None:
    """The worker itself finds out; nothing can be opened, whatever the model wants."""
    prompt, _ = llm.prepare([{"role": "user", "content": QUESTIONS[0]}], [FERRY])
    other = prompt.token_ids.tolist()[:-1]
    opened = prompt.spec.open.ids[0]
    backend: Any = llm.backend
    more = {"logit_bias": {str(opened): 100.0}}
    right = backend.complete(prompt.token_ids.tolist(), 8, spec=prompt.spec.to_json(), **more)
    wrong = backend.complete(other, 8, spec=prompt.spec.to_json(), **more)
    assert opened in right
    assert opened not in wrong


def test_keys_are_wanted_everywhere(server: Server) -> None:
    for path in ("/v1/models", "/metrics", "/version", "/recallm/v1/offer", "/docs"):
        assert server.get(path)[0] == 401
        assert server.get(path, "another-key-of-some-length")[0] == 401
    assert server.get("/health")[0] == 200
    for path in ("/v1/models", "/metrics", "/recallm/v1/offer"):
        assert server.get(path, KEY)[0] == 200
    with pytest.raises(ServerError, match="wants another key"):
        RecaLLM.load(server.url)


def test_closing_a_stream_stops_the_engine(server: Server, llm: RecaLLM) -> None:
    stream = llm.stream(QUESTIONS[0], [FERRY], **LONG)
    next(stream)
    end = time.monotonic() + 10
    while server.running() != 1 and time.monotonic() < end:  # a gauge that lags behind
        time.sleep(0.1)
    assert server.running() == 1
    stream.close()
    end = time.monotonic() + 30
    while server.running() and time.monotonic() < end:
        time.sleep(0.2)
    assert server.running() == 0  # long before its limit: some 20 s on one core
    with pytest.raises(GenerationCancelledError):
        stream.result()


def test_interrupting_ends_every_process(
    folder: Path,
    tmp_path: Path,
    vllm_environment: dict[str, str],
    group: Callable[[int], list[int]],
) -> None:
    second = Server(folder, tmp_path / "log", vllm_environment)
    try:
        second.wait()
        assert len(group(second.process.pid)) > 1
        second.process.send_signal(signal.SIGINT)
        second.process.wait(60)
        end = time.monotonic() + 30
        while group(second.process.pid) and time.monotonic() < end:
            time.sleep(0.2)
        assert group(second.process.pid) == []
    finally:
        second.kill()


def test_a_killed_server_is_an_error_at_once(server: Server, llm: RecaLLM) -> None:
    """The last one: the server doesn't come back."""
    stream = llm.stream(QUESTIONS[0], [FERRY], **LONG)
    next(stream)
    server.kill()
    with pytest.raises(ServerError, match="broke off in the middle"):
        stream.result()
    with pytest.raises(ServerError, match="no model server answers"):
        llm.answer(QUESTIONS[0], [FERRY])
