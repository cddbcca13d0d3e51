"""A stand-in for a vLLM server with our processor, as strict about requests as vLLM is.

It binds the constraint that a request brings to the prompt that it brings, as the real processor
does in its worker, and follows a script (or a model of transformers) under it. What can go wrong on
the way is told to it by name: see ``FakeServer.faults``.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import random
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from recallm_core.backends import GenerationRequest, Sampling
from recallm_core.backends.vllm import manifest as manifests
from recallm_core.backends.vllm.manifest import (
    ADAPTERS_PATH,
    FILES_PATH,
    MANIFEST_PATH,
    Manifest,
)
from recallm_core.decoding.constraint import ConstraintRules
from recallm_core.decoding.grammar import GrammarEngine
from recallm_core.decoding.spec import ConstraintSpec, Tag
from recallm_core.errors import ConstraintError
from recallm_core.inputs import model_config
from recallm_core.models import shipped
from recallm_core.testing import random_walk
from recallm_core.testing.scripts import follow
from recallm_core.tokenization.tokenizer import HFTokenizer

Script = str | Callable[[str], str]
FIELDS = {
    "model": str,
    "prompt": list,
    "stream": bool,
    "stream_options": dict,
    "n": int,
    "max_tokens": int,
    "temperature": (int, float),
    "top_p": (int, float),
    "top_k": int,
    "min_p": (int, float),
    "repetition_penalty": (int, float),
    "presence_penalty": (int, float),
    "frequency_penalty": (int, float),
    "stop_token_ids": list,
    "skip_special_tokens": bool,
    "return_token_ids": bool,
    "seed": int,
    "vllm_xargs": dict,
    "cache_salt": str,
    "logit_bias": dict,
    "ignore_eos": bool,
    "logprobs": int,
}


class RefusedError(Exception):
    """HTTP 400."""


class BadSpecError(RefusedError):
    """Found out by the processor: in a stream, vLLM has begun to answer by then."""


class EarlyEndError(Exception):
    """A tidy end of a reply that comes too soon."""


class FakeServer:
    """Listens on 127.0.0.1 until ``stop``.

    Args:
        script: What the model would like to say, or a function of the prompt's text; None: anything
            that is legal, by the request's seed.
        folder: The model's folder; None: the shipped one.
        engine: A transformers backend that generates in place of the script.
        acts: Whether the constraint is obeyed.
        offers: Whether tokenizer and recipe are offered.
        key: The key that it wants.
        window: Tokens of input and output.
        per_event: Tokens in one event.
        pause: Seconds before each event.

    Attributes:
        faults: What to do wrong with the next requests for an answer, in order; ``none`` is fine.
        requests: The bodies of the requests for answers, in order.
        finished, aborted: How many answers were sent whole, and how many nobody waited for.
    """

    def __init__(
        self,
        script: Script | None = "",
        *,
        folder: Path | None = None,
        engine: Any = None,
        acts: bool = True,
        offers: bool = True,
        key: str = "",
        window: int = 16_384,
        per_event: int = 1,
        pause: float = 0.0,
        name: str = "fake",
        width: int | None = None,
    ) -> None:
        self.folder = folder or wordy_folder()
        self.script, self.engine, self.acts, self.offers = script, engine, acts, offers
        self.key, self.window, self.per_event, self.pause = key, window, per_event, pause
        self.name = name
        eos = _eos(self.folder)
        self.tokenizer = _tokenizer(self.folder, eos)
        self.width = width or _width(self.folder)
        self.grammars: GrammarEngine | None = None
        self.faults: deque[str] = deque()
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.load_adapter: Callable[[str], Any] | None = None  # of a server for training
        self.adapters: list[str] = []
        self.finished = self.aborted = self.running = self.most_running = 0
        self.changed = threading.Condition()
        self.release = threading.Event()  # ends what hangs
        self.files = offers_files(self.folder)
        self.edit_offer: Callable[[dict[str, Any]], Any] = lambda data: data
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.fake = self
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=lambda: self._http.serve_forever(0.02), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Refuses connections from now on, and ends what hangs."""
        self.release.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def wait_for(self, holds: Callable[[FakeServer], bool], seconds: float = 10.0) -> bool:
        """Waits until something is true of the server."""
        with self.changed:
            return self.changed.wait_for(lambda: holds(self), seconds)

    def count(self, name: str, step: int = 1) -> None:
        with self.changed:
            setattr(self, name, getattr(self, name) + step)
            self.most_running = max(self.most_running, self.running)
            self.changed.notify_all()

    # what the engine does

    def offer(self) -> bytes:
        made = Manifest(
            model=self.name,
            window=self.window,
            vocab_size=self.width,
            eos_ids=_eos(self.folder),
            model_type=str(model_config.read_config(self.folder).get("model_type", "")),
            files=manifests.manifest_files(self.files),
            engine="vLLM 0.0",
            runner="V2",
            release="test",
        )
        return json.dumps(self.edit_offer(json.loads(made.to_json()))).encode()

    def checked(self, body: dict[str, Any]) -> dict[str, Any]:
        """Refuses what vLLM refuses, and what it would silently ignore."""
        unknown = sorted(set(body) - set(FIELDS))
        if unknown:
            raise RefusedError(f"unknown members {unknown}")
        for name, value in body.items():
            if not isinstance(value, FIELDS[name]):  # type: ignore[arg-type] # a table of types
                raise RefusedError(f"{name} is a {type(value).__name__}")
        prompt, asked = body["prompt"], body["max_tokens"]
        if not prompt or not all(type(i) is int and 0 <= i < self.width for i in prompt):
            raise RefusedError("the prompt must be token ids of the vocabulary")
        if body["model"] not in (self.name, *self.adapters):
            raise RefusedError(f"the model {body['model']!r} does not exist")
        if not 1 <= asked <= self.window - len(prompt):
            raise RefusedError("this model's maximum context length is exceeded")
        if not body["stream"] or not body["return_token_ids"] or body["skip_special_tokens"]:
            raise RefusedError("this stand-in only streams token ids")
        for value in body.get("vllm_xargs", {}).values():
            if not isinstance(value, str | int | float | list):
                raise RefusedError("vllm_xargs holds plain values only")
        return body

    def generate(self, body: dict[str, Any], tell: Callable[[float], None]) -> Iterator[int]:
        ids = np.array(body["prompt"], dtype=np.int32)
        text = body.get("vllm_xargs", {}).get("recallm") if self.acts else None
        rules = self._rules(text, ids, body["stop_token_ids"])
        if "logit_bias" in body:
            return _nudged(rules, int(next(iter(body["logit_bias"]))), free=text is None)
        if self.engine is not None:
            return self._of_engine(rules, ids, body, tell)
        script = self.script
        if script is None:
            return random_walk(rules.start(), random.Random(body["seed"]))
        if callable(script):
            known = (self.tokenizer.token_bytes(i) or b"" for i in ids.tolist())
            script = script(b"".join(known).decode("utf-8", "replace"))
        return follow(rules.start(), script, self.tokenizer)  # type: ignore[arg-type] # needs no more

    def _rules(self, text: str | None, ids: Any, eos: Sequence[int]) -> ConstraintRules:
        if text is None:
            return ConstraintRules.from_spec(_free(ids, self.width, tuple(eos) or (0,)), ids)
        try:
            spec = ConstraintSpec.from_json(text)
        except ConstraintError as error:
            raise BadSpecError(str(error)) from error
        if spec.grammar is not None and self.grammars is None:
            self.grammars = GrammarEngine(self.tokenizer, vocab_size=self.width)
        return ConstraintRules.from_spec(spec, ids, self.grammars)

    def _of_engine(
        self,
        rules: ConstraintRules,
        ids: Any,
        body: dict[str, Any],
        tell: Callable[[float], None],
    ) -> Iterator[int]:
        sampling = Sampling(
            body["max_tokens"], body["temperature"], body["top_p"], body.get("seed")
        )
        stream = self.engine.generate(GenerationRequest(ids, rules, sampling, log_probs=tell))
        return itertools.chain.from_iterable(stream)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    fake: FakeServer


def offers_files(folder: Path) -> dict[str, bytes]:
    return manifests.read_files(folder)


_FOLDERS = tempfile.TemporaryDirectory(prefix="recallm-served-")


@functools.cache
def wordy_folder() -> Path:
    """The shipped model's tokenizer and recipe, but for answers in words: scripts are words."""
    mini, folder = shipped("recallm-mini"), Path(_FOLDERS.name)
    assert mini is not None
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(mini / name, folder / name)
    recipe = json.loads((mini / "recallm.json").read_text("utf-8"))
    recipe["sampling"]["answer_form"] = "words"
    (folder / "recallm.json").write_text(json.dumps(recipe), "utf-8")
    return folder


@functools.cache
def _tokenizer(folder: Path, eos: tuple[int, ...]) -> HFTokenizer:
    return HFTokenizer.from_folder(folder, eos_ids=eos)


def _eos(folder: Path) -> tuple[int, ...]:
    return model_config.eos_ids(folder)


def _width(folder: Path) -> int:
    found = model_config.vocab_size(folder)
    assert found is not None
    return found


def _free(ids: Any, width: int, eos: tuple[int, ...]) -> ConstraintSpec:
    """Rules that forbid next to nothing."""
    none = np.zeros(0, dtype=np.bool_)
    first, second = [i for i in range(width) if i not in eos][-2:]
    return ConstraintSpec(
        len(ids), "", width, (), none, none, none, Tag("<", (first,)), Tag(">", (second,)),
        None, False, eos, recall_in="none",
    )  # fmt: skip


def _nudged(rules: ConstraintRules, wished: int, *, free: bool) -> Iterator[int]:
    """A greedy model with one token's logit raised above all others."""
    constraint = rules.start()
    while True:
        mask = constraint.mask()
        token = wished
        if not free and not mask.allows(wished):
            token = int(mask.only[0]) if mask.only is not None else 0
        if not free:
            constraint.consume(token)
        yield token


class _Handler(BaseHTTPRequestHandler):
    server: _Http
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 20

    @property
    def fake(self) -> FakeServer:
        return self.server.fake

    def log_message(self, *_: Any) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().handle()

    def do_GET(self) -> None:
        self.fake.paths.append(self.path)
        name = self.path.removeprefix(FILES_PATH)
        if self._locked():
            return
        if self.path == "/v1/models":
            card = {"id": self.fake.name, "max_model_len": self.fake.window}
            self._json(200, {"object": "list", "data": [card]})
        elif self.path == "/version":
            self._json(200, {"version": "0.0"})
        elif self.path == MANIFEST_PATH and self.fake.offers:
            self._send(200, self.fake.offer())
        elif self.path.startswith(FILES_PATH) and self.fake.offers and name in self.fake.files:
            self._send(200, self.fake.files[name])
        else:
            self._json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        self.fake.paths.append(self.path)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._locked():
            return
        if self.path == "/tokenize":
            ids = self.fake.tokenizer.tokenizer.encode(body["prompt"], add_special_tokens=False)
            self._json(200, {"tokens": ids, "count": len(ids)})
        elif self.path == "/v1/completions":
            self._complete(body)
        elif self.path.startswith(ADAPTERS_PATH) and self.fake.load_adapter is not None:
            name = self.path.removeprefix(ADAPTERS_PATH)
            self.fake.load_adapter(name)
            self.fake.adapters.append(name)
            self._send(200, b"Success")
        else:
            self._json(404, {"detail": "Not Found"})

    def _locked(self) -> bool:
        wrong = self.fake.key and self.headers.get("Authorization") != f"Bearer {self.fake.key}"
        if wrong:
            self._json(401, {"error": "Unauthorized"})
        return bool(wrong)

    def _complete(self, body: dict[str, Any]) -> None:
        fault = self.fake.faults.popleft() if self.fake.faults else "none"
        self.fake.requests.append(body)
        self.fake.count("running", 0)
        if self._failed_at_once(fault):
            return
        log_probs: list[float] = []
        try:
            tokens = self.fake.generate(self.fake.checked(body), log_probs.append)
        except RefusedError as error:
            detail = {"message": str(error), "type": "BadRequestError", "code": 400}
            if isinstance(error, BadSpecError):
                event = b"data: " + json.dumps({"error": detail}).encode() + b"\n\n"
                self._send(200, event + b"data: [DONE]\n\n", kind="text/event-stream")
            else:
                self._json(400, {"error": detail})
            return
        self.fake.count("running")
        try:
            with contextlib.suppress(EarlyEndError):
                self._stream(body, tokens, fault, log_probs)
            self.fake.count("finished")
        except (ConnectionError, TimeoutError):
            self.fake.count("aborted")
            self.close_connection = True
        finally:
            self.fake.count("running", -1)

    def _failed_at_once(self, fault: str) -> bool:
        statuses = {"busy": 503, "limited": 429, "broken": 500}
        if fault in statuses:
            self._json(statuses[fault], {"error": {"message": "told \x1b[31mto"}})
        elif fault == "redirect":
            self._send(307, b"", location="http://127.0.0.1:9/v1/completions")
        elif fault == "html":
            self._send(200, b"<html>a proxy's page</html>", kind="text/html")
        elif fault == "unheard":  # ends before anything was answered
            self.close_connection = True
        elif fault == "hang":
            self.fake.release.wait(20)
        else:
            return False
        return True

    def _stream(
        self, body: dict[str, Any], tokens: Iterator[int], fault: str, log_probs: list[float]
    ) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent = 0
        reason: str | None = None
        while reason is None:
            ids = []
            while len(ids) < self.fake.per_event and reason is None:
                ids.append(next(tokens))
                sent += 1
                if ids[-1] in body["stop_token_ids"]:
                    reason = "stop"
                elif sent == body["max_tokens"]:
                    reason = "length"
            if self.fake.pause:
                time.sleep(self.fake.pause)
            first = sent == len(ids)
            event = _event(body, ids, reason, first)
            if "logprobs" in body:
                event["choices"][0]["logprobs"] = {
                    "token_logprobs": log_probs[sent - len(ids) : sent]
                }
            self._spoil(fault, event, first)
            self._event(event)
        usage = {
            "prompt_tokens": len(body["prompt"]),
            "completion_tokens": sent,
            "prompt_tokens_details": {"cached_tokens": len(body["prompt"]) // 2},
        }
        self._event({"choices": [], "usage": usage})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _spoil(self, fault: str, event: dict[str, Any], first: bool) -> None:
        """What goes wrong with one event."""
        if fault in _IN_CHOICE:
            _IN_CHOICE[fault](event["choices"][0], self.fake)
        elif fault == "other prompt" and first:
            del event["choices"][0]["prompt_token_ids"][0]
        elif fault in _IN_STREAM:
            self._chunk(_IN_STREAM[fault])
        elif fault == "mute" and not first:
            self.fake.release.wait(20)
        elif fault == "early":
            self._chunk(b"")
            raise EarlyEndError
        elif fault == "cut" and not first:
            self.connection.shutdown(2)
            raise ConnectionError

    def _event(self, event: dict[str, Any]) -> None:
        self._chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _json(self, status: int, data: Any) -> None:
        self._send(status, json.dumps(data).encode())

    def _send(
        self, status: int, data: bytes, kind: str = "application/json", **headers: str
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.title(), value)
        self.end_headers()
        self.wfile.write(data)


def _named_apart(choice: dict[str, Any], _: FakeServer) -> None:
    if choice["finish_reason"] == "stop":
        choice["stop_reason"] = choice["token_ids"].pop()


def _illegal(choice: dict[str, Any], server: FakeServer) -> None:
    """The mark that ends a quote, where none is open."""
    choice["token_ids"].insert(0, server.tokenizer.control_id("<|end_recall|>"))


_IN_CHOICE: dict[str, Callable[[dict[str, Any], FakeServer], Any]] = {
    "no echo": lambda choice, _: choice.update(prompt_token_ids=None),
    "texts": lambda choice, _: choice.update(token_ids=["a"]),
    "beyond": lambda choice, server: choice.update(token_ids=[server.width]),
    "too many": lambda choice, _: choice.update(token_ids=choice["token_ids"] * 5000),
    "abort": lambda choice, _: choice.update(finish_reason="abort"),
    "named apart": _named_apart,
    "illegal": _illegal,
}
_IN_STREAM = {
    "noise": b"data: {not json\n\n",
    "flood": b"x" * 2**23,
    "error": b'data: {"error": {"message": "EngineCore encountered an issue", "code": 500}}\n\n',
}


def _event(
    body: dict[str, Any], ids: list[int], reason: str | None, first: bool
) -> dict[str, Any]:  # fmt: skip
    choice = {
        "index": 0,
        "text": "",
        "logprobs": None,
        "finish_reason": reason,
        "stop_reason": None,
        "token_ids": ids,
        "prompt_token_ids": list(body["prompt"]) if first else None,
    }
    return {"id": "cmpl-1", "object": "text_completion", "choices": [choice], "usage": None}
