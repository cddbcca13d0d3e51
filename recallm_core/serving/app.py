"""What ``recallm serve`` puts before a vLLM server: keys, cache salts, the manifest for clients.

An ASGI middleware, loaded by vLLM with ``--middleware``. vLLM's own key check covers only paths
below ``/v1``; this one covers everything but the health checks. It needs nothing but the standard
library and this package.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from recallm_core._version import __version__
from recallm_core.backends.vllm import setup as vllm_setup
from recallm_core.backends.vllm.manifest import (
    ADAPTERS_PATH,
    FILES_PATH,
    MANIFEST_PATH,
    Manifest,
    manifest_files,
    read_files,
)
from recallm_core.errors import CheckpointError
from recallm_core.inputs.model_config import context_length, eos_ids, read_config, vocab_size
from recallm_core.serving.adapters import adapter_folder, load_request

SETTINGS = "RECALLM_SERVED"
"""Environment variable: {"folder", "model", "keys": [sha256, ...], "adapters": folder or none}."""
MAX_BODY = 192 * 2**20  # bytes; a spec of its largest size, and a prompt of ten million tokens
_OPEN_PATHS = ("/health", "/ping")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class RecallMiddleware:
    """Checks keys, salts the prefix cache per key, and answers below ``/recallm/v1``.

    Args:
        app: The application behind it.

    Raises:
        KeyError, ValueError: The environment holds no settings of ``recallm serve``.
    """

    def __init__(self, app: App) -> None:
        settings = json.loads(os.environ[SETTINGS])
        self._app = app
        self._folder = Path(settings["folder"])
        self._model: str = settings["model"]
        self._keys: tuple[bytes, ...] = tuple(bytes.fromhex(key) for key in settings["keys"])
        self._adapters = Path(settings["adapters"]) if settings.get("adapters") else None
        self._files = read_files(self._folder)
        self._manifest: bytes | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or hands it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # a websocket carries no key: nothing here needs one
        path: str = scope["path"]
        if path in _OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        key = _bearer(scope)
        if not self._keys and _is_cross_origin(scope):
            await _reply(send, 403, _error("a server without keys answers only this machine"))
        elif self._keys and not self._knows(key):
            await _reply(send, 401, _error("this server wants a key: Authorization: Bearer ..."))
        elif path.startswith(ADAPTERS_PATH) and self._adapters is not None:
            await self._load(self._adapters, scope, send)
        elif path.startswith("/recallm/"):
            await self._serve_model_files(scope, send)
        elif "adapter" in path:
            await _reply(send, 403, _error("adapters are loaded by recallm train grpo alone"))
        elif scope["method"] == "POST":
            await self._post(scope, receive, send, key if self._keys else b"")
        else:
            await self._app(scope, receive, send)

    def _knows(self, key: bytes) -> bool:
        digest = hashlib.sha256(key).digest()
        known = [
            hmac.compare_digest(digest, digest_of_key) for digest_of_key in self._keys
        ]  # all, in equal time
        return any(known)

    async def _load(self, folder: Path, scope: Scope, send: Send) -> None:
        """Has vLLM load an adapter of the folder that was named at the start."""
        name = scope["path"].removeprefix(ADAPTERS_PATH)
        if scope["method"] != "POST":
            await _reply(send, 405, _error("only POST"))
            return
        try:
            place = adapter_folder(folder, name)
        except (CheckpointError, OSError) as error:
            await _reply(send, 400, _error(str(error)))
        else:
            await self._app(*load_request(scope, name, place), send)

    async def _serve_model_files(self, scope: Scope, send: Send) -> None:
        path: str = scope["path"]
        name = path.removeprefix(FILES_PATH)
        if path.startswith(ADAPTERS_PATH):
            await _reply(send, 404, _error("this server was started without --adapters"))
        elif scope["method"] not in ("GET", "HEAD"):
            await _reply(send, 405, _error("only GET"))
        elif path == MANIFEST_PATH:
            self._manifest = self._manifest or self._describe(scope).to_json().encode()
            await _reply(send, 200, self._manifest)
        elif path.startswith(FILES_PATH) and name in self._files:
            await _reply(send, 200, self._files[name], b"application/octet-stream")
        else:
            await _reply(send, 404, _error("no such file here"))

    def _describe(self, scope: Scope) -> Manifest:
        config = _engine_config(scope)
        model = getattr(config, "model_config", None)
        folder = self._folder
        length = getattr(model, "max_model_len", None) or context_length(folder)
        width = model.get_vocab_size() if model is not None else vocab_size(folder)
        return Manifest(
            model=self._model,
            window=int(length or 0),
            vocab_size=int(width or 0),
            eos_ids=eos_ids(folder),
            model_type=str(read_config(folder).get("model_type", "")),
            files=manifest_files(self._files),
            engine=f"vLLM {vllm_setup.version()}",
            runner=vllm_setup.runner(config),
            release=__version__,
        )

    async def _post(self, scope: Scope, receive: Receive, send: Send, key: bytes) -> None:
        """Hands a body on, with a cache salt put before what it says itself."""
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        if not length.isdigit():
            await _reply(send, 411, _error("a request needs a content-length"))
        elif int(length) > MAX_BODY:
            await _reply(send, 413, _error(f"a request has at most {MAX_BODY:,} bytes"))
        elif key and scope["path"].startswith("/v1/"):
            await self._app(*_add_salt(scope, receive, _salt(key)), send)
        else:
            await self._app(scope, receive, send)


def _add_salt(scope: Scope, receive: Receive, salt: bytes) -> tuple[Scope, Receive]:
    """The request with ``cache_salt`` as the first member of its JSON object.

    The body isn't parsed for that, it may have megabytes. A salt of the client's own comes later
    in the object, and so wins: it can only name a tenant whose salt it knows.
    """
    member = b'"cache_salt":"' + salt + b'",'
    pad = b" " * len(member)  # where nothing can be inserted, so that the length stays true
    headers = [
        (name, str(int(value) + len(member)).encode() if name == b"content-length" else value)
        for name, value in scope["headers"]
    ]
    waiting = True

    async def receive_salted() -> Message:
        nonlocal waiting
        message = await receive()
        body: bytes = message.get("body", b"")
        if message["type"] != "http.request" or not waiting or not body:
            return message
        waiting = False
        start = len(body) - len(body.lstrip())
        rest = body[start + 1 :].lstrip()
        fits = body[start : start + 1] == b"{" and rest[:1] == b'"'
        extra = member if fits else pad
        at = start + 1 if fits else 0
        return {**message, "body": body[:at] + extra + body[at:]}

    return {**scope, "headers": headers}, receive_salted


def _salt(key: bytes) -> bytes:
    """A salt that only who has the key can know; equal on all replicas."""
    digest = hashlib.blake2b(key, digest_size=32, person=b"recallm-salt").digest()
    return base64.urlsafe_b64encode(digest)


def _bearer(scope: Scope) -> bytes:
    """The key of a request; empty where it has none."""
    headers = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, key = (headers[0] if len(headers) == 1 else b"").partition(b" ")
    key_bytes: bytes = key.strip() if scheme.lower() == b"bearer" else b""
    return key_bytes


def _is_cross_origin(scope: Scope) -> bool:
    """Whether a web page, or a name that points here, is behind a request.

    A browser on this machine can reach loopback for any page that it shows; it says so by an
    ``Origin``, or after a trick with names by a ``Host`` that isn't this machine's.
    """
    headers = dict(scope["headers"])
    host = headers.get(b"host", b"localhost").decode("latin-1").rpartition("@")[2]
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return b"origin" in headers or not is_loopback(name)


def is_loopback(host: str) -> bool:
    """Whether an address means this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _engine_config(scope: Scope) -> Any:
    """The engine's configuration, which vLLM keeps in its application's state; None elsewhere."""
    state = getattr(scope.get("app"), "state", None)
    config = getattr(state, "vllm_config", None)
    client = getattr(state, "engine_client", None)
    return config if config is not None else getattr(client, "vllm_config", None)


def _error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "recallm"}}).encode()


async def _reply(
    send: Send, status: int, body: bytes, kind: bytes = b"application/json"
) -> None:  # fmt: skip
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
