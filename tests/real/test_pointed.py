"""A real model behind a real OpenAI-compatible server, held to the schema by both frameworks.

Every reply has to be an answer of the schema, and every quote a slice of its document. A model that
small says much that is wrong, and points at the first sentence more often than not.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, convert_to_openai_messages
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableLambda
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LLMMetadata,
)
from llama_index.core.llms import CustomLLM
from llama_index.core.schema import NodeWithScore, TextNode

import langchain_recallm
import llama_index_recallm

pytestmark = [pytest.mark.real, pytest.mark.timeout(600), pytest.mark.enable_socket]

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SERVER = ("llama_cpp", "fastapi", "pydantic_settings", "starlette_context", "sse_starlette")
FERRY = (
    "A ferry crosses the Tarn Sound every forty minutes from April to October. In winter it runs "
    "twice a day. Bicycles travel free, and a car costs nine crowns each way."
)
OWL = (
    "The marsh owl of Hennick island nests on the ground, mostly under gorse. Its young leave the "
    "nest after thirty-one days."
)
QUESTIONS = (
    "How much does a car cost on the Tarn Sound ferry?",
    "Where does the marsh owl of Hennick island nest?",
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that runs as long as the tests of this module."""
    models = Path(os.environ.get("RECALLM_REAL_MODELS", "~/.cache/recallm-real")).expanduser()
    missing = [name for name in SERVER if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"no {missing}: pip install 'llama-cpp-python[server]'")
    if not (models / NAME).is_file():
        pytest.skip(f"no {NAME} in {models}; `python tests/real/bring.py` brings it (98 MB)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("server") / "log").open("w")
    options = ["--n_ctx", "2048", "--n_threads", "1", "--n_threads_batch", "1"]
    place = ["--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(models / NAME)]
    with log, subprocess.Popen([*command, *options, *place], stdout=log, stderr=log) as server:
        try:
            yield _answering(server, f"http://127.0.0.1:{port}/v1", Path(log.name))
        finally:
            server.terminate()
            server.wait(30)


def _answering(server: subprocess.Popen[bytes], address: str, log: Path) -> str:
    for _ in range(240):
        if server.poll() is not None:
            break
        try:
            httpx.get(f"{address}/models").raise_for_status()
        except httpx.TransportError:
            time.sleep(0.5)
            continue
        return address
    raise AssertionError(f"the server doesn't answer: {log.read_text()[-2000:]}")


def asked(address: str, messages: Any, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The pieces of a streamed completion, as the server sends them."""
    body = {"messages": messages, "max_tokens": 160, "temperature": 0, "stream": True, **options}
    with httpx.stream("POST", f"{address}/chat/completions", json=body, timeout=300) as reply:
        reply.raise_for_status()
        for line in reply.iter_lines():
            if line.startswith("data: {"):
                yield json.loads(line.removeprefix("data: "))["choices"][0]


class Served(BaseChatModel):
    """The least chat model that takes a schema from such a server."""

    address: str

    @property
    def _llm_type(self) -> str:
        return "served"

    def with_structured_output(self, schema: Any, **options: Any) -> Any:
        wanted = {"type": "json_object", "schema": schema}
        return self.bind(response_format=wanted) | RunnableLambda(str)

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any):
        message = AIMessage("")
        for piece in self._stream(messages, **options):
            message = AIMessage(
                f"{message.content}{piece.message.content}",
                response_metadata=piece.message.response_metadata,
            )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any
    ) -> Iterator[ChatGenerationChunk]:
        for choice in asked(self.address, convert_to_openai_messages(messages), options):
            ending = {"finish_reason": choice["finish_reason"]} if choice["finish_reason"] else {}
            text = choice["delta"].get("content") or ""
            yield ChatGenerationChunk(message=AIMessageChunk(text, response_metadata=ending))


class ServedLLM(CustomLLM):
    """The same for LlamaIndex."""

    address: str

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(context_window=2048, num_output=160, model_name=NAME)

    def chat(self, messages: Any, **options: Any) -> ChatResponse:
        turns = [{"role": m.role.value, "content": m.content} for m in messages]
        choices = list(asked(self.address, turns, options))
        text = "".join(choice["delta"].get("content") or "" for choice in choices)
        raw = {"choices": [{"finish_reason": choices[-1]["finish_reason"]}]}
        return ChatResponse(message=ChatMessage(role="assistant", content=text), raw=raw)

    def complete(self, prompt: str, formatted: bool = False, **options: Any) -> CompletionResponse:
        raise NotImplementedError

    def stream_complete(self, prompt: str, formatted: bool = False, **options: Any) -> Any:
        raise NotImplementedError


def test_a_chat_model_points_at_sentences_and_streams(address: str) -> None:
    model = langchain_recallm.cited(Served(address=address), limits="llama")
    documents = [Document(FERRY, id="ferry"), Document(OWL, id="owl")]
    cited = 0
    for question in QUESTIONS:
        message: Any = None
        for piece in model.stream(question, documents=documents):
            message = piece if message is None else message + piece
        citations = langchain_recallm.message_citations(message)
        assert bool(citations) != message.response_metadata["abstained"]
        for citation in citations:
            place = citation["extras"]
            text = documents[place["document_index"]].page_content
            quote = text[place["start_char_index"] : place["end_char_index"]]
            assert quote == citation["cited_text"]
        cited += bool(citations)
    assert cited
    whole = model.invoke(QUESTIONS[-1], documents=documents)
    assert whole.text == message.text
    assert langchain_recallm.message_citations(whole) == citations


def test_a_query_engine_points_at_sentences(address: str) -> None:
    def ask(schema: dict[str, Any]) -> dict[str, Any]:
        return {"response_format": {"type": "json_object", "schema": schema}}

    model = llama_index_recallm.cited(ServedLLM(address=address), ask=ask, limits="llama")
    nodes = [NodeWithScore(node=TextNode(text=text, id_=text[:6])) for text in (FERRY, OWL)]
    synthesizer = llama_index_recallm.RecaLLMSynthesizer(model)
    response: Any = synthesizer.synthesize(QUESTIONS[1], nodes)
    texts = {node.node.node_id: node.node.text for node in nodes}
    assert bool(response.citations) != response.abstained
    for citation in response.citations:
        assert citation.basis in ("pointed", "matched")
        quote = texts[citation.node_id][citation.node_start : citation.node_end]
        assert quote == citation.text
