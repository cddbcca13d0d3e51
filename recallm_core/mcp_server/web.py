"""The server over HTTP: for this machine alone, or for whoever has a key."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Any

from mcp.server.transport_security import TransportSecuritySettings

from recallm_core.mcp_server.server import RecallServer
from recallm_core.serving.app import App, Receive, Scope, Send

PATH = "/mcp"
_THIS_MACHINE = ("127.0.0.1", "localhost", "[::1]")


def application(server: RecallServer, keys: Sequence[str]) -> App:
    """Returns the application that answers at ``PATH``.

    Without keys it answers only programs of this machine: a request that a web page sends has an
    ``Origin``, and one that reaches it by a trick with names has a foreign ``Host``. With keys
    each request must have one.
    """
    hosts = [host for name in _THIS_MACHINE for host in (name, f"{name}:*")]
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=not keys, allowed_hosts=hosts, allowed_origins=[]
    )
    inner: Any = server.streamable_http_app(
        streamable_http_path=PATH, transport_security=security
    )  # fmt: skip
    return KeyGate(inner, keys) if keys else inner


class KeyGate:
    """Lets through only requests with a key; only the keys' digests are remembered.

    Args:
        app: The application behind it.
        keys: Any of them opens.
    """

    def __init__(self, app: App, keys: Sequence[str]) -> None:
        self._app = app
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or hands it on."""
        kind = scope["type"]
        if kind == "lifespan" or (kind == "http" and self._opens(scope)):
            await self._app(scope, receive, send)
        elif kind == "http":
            await _refuse(send)

    def _opens(self, scope: Scope) -> bool:
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, key = (values[0] if len(values) == 1 else b"").partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        equal = [hmac.compare_digest(digest, known) for known in self._digests]  # in equal time
        return scheme.lower() == b"bearer" and any(equal)


async def _refuse(send: Send) -> None:
    message = "this server wants a key: Authorization: Bearer ..."
    body = json.dumps({"error": {"message": message, "type": "recallm"}}).encode()
    headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": body})
