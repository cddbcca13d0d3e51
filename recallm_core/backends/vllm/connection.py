"""HTTP to one model server: pooled, patient within limits, and never silent about a failure.

All traffic runs on one event loop in a thread of its own, so that any thread, and any other event
loop, can wait for it or cancel it; a cancelled request closes its connection, which is how a vLLM
server learns that nobody waits any more.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import weakref
from collections.abc import AsyncGenerator, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from recallm_core.backends.vllm.loop_thread import LoopThread
from recallm_core.errors import GenerationCancelledError, ServerError
from recallm_core.inputs.arguments import real_number, whole_number, without_password
from recallm_core.inputs.extras import needs
from recallm_core.locks import ForkSafeLock

T = TypeVar("T")

KEY_VARIABLE = "RECALLM_API_KEY"
_BUSY = (429, 503)
_CONNECT_SECONDS = 10.0
_LONGEST_WAIT = 20.0  # seconds between two tries, whatever the server asks for
_KEPT_SECONDS = 4.0  # vLLM closes idle connections after five
_MAX_ERROR = 65_536  # bytes read of a reply that says what went wrong
_SLOWEST = 50_000  # bytes a second at least that a file, or the reason of a failure, comes with
_STOP_SECONDS = 5.0


def base_url(url: str) -> str:
    """Returns a server's address without a trailing slash or ``/v1``.

    Raises:
        ValueError: It isn't an http or https address of a host, or holds a password.
    """
    if not isinstance(url, str):
        raise ValueError(f"a server's address must be a str, got {type(url).__name__}")
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise ValueError(
            "a server's address looks like http://host:8000, with a port up to 65535 if any"
        ) from None
    named = parts.scheme in ("http", "https") and parts.hostname and port != 0
    if not named or parts.query or parts.fragment:
        raise ValueError(
            f"a server's address looks like http://host:8000, got {without_password(url)!r}"
        )  # fmt: skip
    if parts.username is not None or parts.password is not None:
        raise ValueError("a server's address holds no user or password; give api_key= instead")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


class Connection:
    """One server's address with a pool of connections to it; safe to use from many threads.

    Args:
        url: Such as ``http://127.0.0.1:8000``.
        api_key: Sent as a bearer token; None: the environment's ``RECALLM_API_KEY``, if it is set.
        timeout: Seconds without a byte from the server after which a request fails; the wait for a
            free place on the server and the reading of the prompt count. An answer fails after
            twice as long without a token, and after five seconds more for each token asked for.
        max_retries: How often a request is sent again that the server was too busy for, or that
            broke off before anything of its answer had come.
        max_connections: Requests at once; further ones wait here.

    Raises:
        MissingExtraError: ``httpx2`` isn't installed.
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 300.0,
        max_retries: int = 2,
        max_connections: int = 256,
    ) -> None:
        timeout = real_number("timeout", timeout, above=True)
        max_retries = whole_number("max_retries", max_retries, 0, 1000)
        max_connections = whole_number("max_connections", max_connections, 1, 100_000)
        self.url = base_url(url)
        self._http = _httpx2()
        self._key = _key(os.environ.get(KEY_VARIABLE, "") if api_key is None else api_key)
        self.timeout = float(timeout)
        self._retries = max_retries
        self._most = max_connections
        self._lock = ForkSafeLock()
        self._thread: LoopThread | None = None
        self._pool: Any = None  # made with the thread, as the places are: they belong to its loop
        self._closed = False

    # the loop

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Runs a coroutine on the connection's own loop.

        Raises:
            GenerationCancelledError: The connection was closed.
        """
        with self._lock:
            if self._closed:
                work.close()
                raise GenerationCancelledError("the connection to the server was closed")
            if self._thread is None or not self._thread.alive:  # the first work, or after a fork
                self._pool, self._places = self._client(), asyncio.Semaphore(self._most)
                self._thread = LoopThread(
                    "recallm-server", self._pool.aclose, patience=_STOP_SECONDS
                )
                weakref.finalize(self, self._thread.stop)
            return self._thread.run(work)

    def close(self) -> None:
        """Cancels what runs and closes all connections; safe to call twice."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is not None:
            thread.stop()

    def _client(self) -> Any:
        http = self._http
        headers = {"Accept-Encoding": "identity", "User-Agent": "recallm-core"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        connect = min(_CONNECT_SECONDS, self.timeout)
        return http.AsyncClient(
            headers=headers,
            timeout=http.Timeout(self.timeout, connect=connect, pool=None),
            limits=http.Limits(max_connections=None, keepalive_expiry=_KEPT_SECONDS),
            follow_redirects=False,
            trust_env=urlsplit(self.url).hostname not in ("127.0.0.1", "localhost", "::1"),
        )

    # requests

    def get(self, path: str, *, limit: int) -> bytes | None:
        """Returns a reply's body; None where the server has nothing there.

        Raises:
            ServerError: It can't be reached, refuses, or sends more than ``limit`` bytes.
        """
        return self.start(self._read("GET", path, None, limit)).result()

    def post(self, path: str, body: Mapping[str, Any], *, limit: int) -> bytes | None:
        """Like ``get``, with a JSON body."""
        data = json.dumps(body).encode()
        return self.start(self._read("POST", path, data, limit)).result()

    async def _read(self, method: str, path: str, data: bytes | None, limit: int) -> bytes | None:
        async with self.open_reply(method, path, data, missing_ok=True) as response:
            if response.status_code == 404:
                return None
            return await self._whole(response, path, limit)

    async def _whole(self, response: Any, path: str, limit: int) -> bytes:
        """A reply's body, of a size and in a time that make sense."""
        body = bytearray()
        seconds = 2 * self.timeout + limit / _SLOWEST
        end = asyncio.get_running_loop().time() + seconds
        async for chunk in self.chunks(response):
            body += chunk
            if len(body) > limit:
                raise ServerError(f"{self.url}{path} sent more than {limit:,} bytes")
            if asyncio.get_running_loop().time() > end:
                raise ServerError(f"{self.url}{path} wasn't read whole after {seconds:,.0f} s")
        return bytes(body)

    @asynccontextmanager
    async def open_reply(
        self, method: str, path: str, data: bytes | None, *, missing_ok: bool = False
    ) -> AsyncGenerator[Any, None]:
        """Yields a reply whose status is good; a request that fails before that is sent again.

        Generating has no side effects, so a request is safe to repeat until its answer begins.

        Raises:
            ServerError: The server can't be reached or refuses.
        """
        async with self._places:
            response = await self._sent(method, path, data)
            try:
                if not (missing_ok and response.status_code == 404):
                    await self._check(response)
                yield response
            finally:
                await response.aclose()

    async def _sent(self, method: str, path: str, data: bytes | None) -> Any:
        for tried in range(self._retries + 1):
            last = tried == self._retries
            try:
                response = await self._send(method, path, data)
            except self._http.TimeoutException as error:
                if last or not isinstance(error, self._http.ConnectTimeout):
                    raise self._failure(error) from error
                retry_after = None
            except self._http.TransportError as error:
                if last:
                    raise self._failure(error) from error
                retry_after = None
            else:
                if response.status_code not in _BUSY or last:
                    return response
                retry_after = response.headers.get("retry-after")
                await response.aclose()
            await asyncio.sleep(_pause(tried, retry_after))
        raise AssertionError("the last try returns or raises")

    async def _send(self, method: str, path: str, data: bytes | None) -> Any:
        client = self._pool
        kind = {"Content-Type": "application/json"} if data is not None else {}
        request = client.build_request(method, self.url + path, content=data, headers=kind)
        seconds = 2 * self.timeout + len(data or b"") / _SLOWEST
        try:  # a head that comes byte by byte is never late for the client's own limit
            async with asyncio.timeout(seconds):
                return await client.send(request, stream=True)
        except TimeoutError as error:
            raise ServerError(
                f"{self.url} sent no whole head of a reply in {seconds:,.0f} s; raise timeout= if "
                "it may take so long"
            ) from error

    async def chunks(self, response: Any) -> AsyncGenerator[bytes, None]:
        """The bytes of a reply as they come.

        Raises:
            ServerError: The connection broke, or nothing came for too long.
        """
        if response.headers.get("content-encoding", "identity") != "identity":
            raise ServerError(f"{self.url} sent a compressed reply, which wasn't asked for")
        try:
            async for chunk in response.aiter_raw():
                yield chunk
        except self._http.TransportError as error:
            raise self._failure(error, begun=True) from error

    async def _check(self, response: Any) -> None:
        status = response.status_code
        if status == 200:
            return
        if 300 <= status < 400:
            target = one_line(response.headers.get("location", "elsewhere"))
            raise ServerError(
                f"{self.url} redirects to {target}; redirects aren't followed, a key and documents "
                "would go along: give the address that answers itself"
            )
        explanation = await self._explanation(response)
        raise ServerError(
            f"{self.url} {_MEANINGS.get(status, 'refused the request')} ({status}){explanation}"
        )

    async def _explanation(self, response: Any) -> str:
        """What a reply says of its failure, made harmless."""
        body = b""
        try:
            async with asyncio.timeout(self.timeout), aclosing(self.chunks(response)) as chunks:
                async for chunk in chunks:
                    body += chunk[: _MAX_ERROR - len(body)]
                    if len(body) >= _MAX_ERROR:
                        break
        except (ServerError, TimeoutError):
            pass  # the status is known; what else it wanted to say is lost
        message = message_of(body)
        return f": {message}" if message else ""

    def _failure(self, error: Exception, *, begun: bool = False) -> ServerError:
        http, kind = self._http, type(error).__name__
        if isinstance(error, http.TimeoutException) and not isinstance(error, http.ConnectTimeout):
            return ServerError(
                f"{self.url} sent nothing for {self.timeout:g} s, so the request was given up; "
                "it may be overloaded: raise timeout=, or send fewer requests at once"
            )
        if begun or not isinstance(error, (http.ConnectError, http.ConnectTimeout)):
            when = "in the middle of its answer" if begun else "before it answered"
            return ServerError(
                f"{self.url} broke off {when} ({kind}); the server or something between may have "
                "ended: ask again, and look at the server's log"
            )
        return ServerError(
            f"no model server answers at {self.url} ({kind}: {one_line(str(error))}); check the "
            "address, and that the server runs: recallm serve MODEL"
        )


_MEANINGS = {
    400: "refused the request",
    401: f"wants another key: give api_key= or set {KEY_VARIABLE}",
    403: f"wants another key: give api_key= or set {KEY_VARIABLE}",
    404: "has no such model or path",
    413: "refused the request as too large",
    429: "is too busy, also after further tries",
    500: "failed",
    503: "is too busy or not ready, also after further tries",
}


def _httpx2() -> Any:
    with needs("server", "a served model"):
        import httpx2
    return httpx2


def _key(key: str) -> str:
    if not isinstance(key, str):
        raise ValueError(f"api_key must be a str, got {type(key).__name__}")
    if not key.isascii() or not key.isprintable():
        raise ValueError("api_key must be printable ASCII characters")
    return key.strip()


def _pause(tried: int, retry_after: str | None) -> float:
    """Seconds before the next try: what the server asks for, or doubling with some chance."""
    if retry_after is not None and retry_after.isdigit():
        return min(float(retry_after[:6]), _LONGEST_WAIT)
    return min(0.25 * 2.0**tried, _LONGEST_WAIT) * random.uniform(0.8, 1.2)


def message_of(body: bytes) -> str:
    """Returns the message in an error reply, in vLLM's or OpenAI's form; else how it begins."""
    text = body.decode("utf-8", "replace")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return one_line(text)
    for key in ("error", "message", "detail"):
        if isinstance(content, dict) and key in content:
            content = content[key]
    return one_line(content if isinstance(content, str) else json.dumps(content))


def one_line(text: str) -> str:
    """Returns a text as one line of at most 500 printable characters, safe in a terminal."""
    line = " ".join(text[:2000].split())
    return "".join(c if c.isprintable() else "?" for c in line)[:500]
