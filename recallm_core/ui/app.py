"""The page's server: one user, one machine. Only who holds the key is answered."""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from recallm_core.documents.document import Document, check_text
from recallm_core.errors import RecallmError
from recallm_core.rendering.visible import visible
from recallm_core.ui.page_image import PageImage, page_image
from recallm_core.ui.session import Session
from recallm_core.ui.wire import EventWriter, source_view

_LOG = logging.getLogger(__name__)
_MOST_BODY = 1_000_000  # bytes of a request
_MOST_MESSAGES = 100
_STATIC = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/app.css": ("app.css", "text/css; charset=utf-8"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]


class RequestError(Exception):
    """A request that isn't as the page makes them."""


def make_app(session: Session, *, key: str, port: int) -> ASGIApp:
    """Returns the application.

    Args:
        session: What it works on.
        key: What every request but those for the page itself must carry, as a bearer token. The
            page has it from the fragment of its own address, which no browser sends anywhere.
        port: The port on loopback; requests that name another host are refused, since a page of
            any site could have its name point here.
    """
    api = _Api(session)
    routes = [Route(path, _static(*named)) for path, named in _STATIC.items()]
    routes += [
        Route("/api/state", api.state),
        Route("/api/open", api.open, methods=["POST"]),
        Route("/api/model", api.use_model, methods=["POST"]),
        Route("/api/ask", api.ask, methods=["POST"]),
        Route("/api/source", api.source, methods=["POST"]),
        Route("/api/page", api.page, methods=["POST"]),
    ]
    return _Guard(Starlette(routes=routes, exception_handlers=_HANDLERS), key, port)


class _Guard:
    """Lets through what names this host, and to the interface only what holds the key."""

    def __init__(self, app: ASGIApp, key: str, port: int) -> None:
        self._app = app
        self._expected = f"Bearer {key}".encode()
        self._hosts = {f"{host}:{port}".encode() for host in ("127.0.0.1", "localhost")}
        self._origins = {b"http://" + host for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope) if scope["type"] == "http" else "only HTTP is spoken here"
        if refusal is not None:
            await _AsciiJson({"error": refusal}, 403, headers=_HEADERS)(scope, receive, send)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [
                    (k.lower().encode(), v.encode()) for k, v in _HEADERS.items()
                ]
            await send(message)

        await self._app(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> str | None:
        headers = dict(scope["headers"])
        if headers.get(b"host") not in self._hosts:
            return "this server answers to 127.0.0.1 and localhost only"
        if headers.get(b"origin", next(iter(self._origins))) not in self._origins:
            return "requests of other sites aren't answered"
        if not scope["path"].startswith("/api/"):
            return None
        if not hmac.compare_digest(headers.get(b"authorization", b""), self._expected):
            return "the key is missing or wrong; open the address that recallm ui printed"
        return None


def _static(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    content = files("recallm_core.ui").joinpath("static", name).read_bytes()

    async def serve(request: Request) -> Response:
        return Response(content, media_type=media_type)

    return serve


class _AsciiJson(JSONResponse):
    """JSON of ASCII alone: names of files need not be text that UTF-8 can hold."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode("ascii")


class _Api:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def state(self, request: Request) -> Response:
        return _AsciiJson(self._session.state())

    async def open(self, request: Request) -> Response:
        body = await _body(request)
        paths = body.get("paths")
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise RequestError("paths must be a list of strings")
        for path in paths:
            check_text(path, "a path")
        await run_in_threadpool(self._session.open, paths)
        return _AsciiJson(self._session.state())

    async def use_model(self, request: Request) -> Response:
        name = (await _body(request)).get("model")
        if not isinstance(name, str) or not name.strip():
            raise RequestError("model must be a name")
        check_text(name, "the model's name")
        await run_in_threadpool(self._session.use, name)
        return _AsciiJson(self._session.state())

    async def ask(self, request: Request) -> Response:
        messages = _messages((await _body(request)).get("messages"))
        return StreamingResponse(self._events(messages), media_type="text/event-stream")

    async def _events(self, messages: list[dict[str, str]]) -> AsyncIterator[str]:
        writer = EventWriter()
        try:
            if not self._session.state()["loaded"]:
                yield _server_sent_event({"type": "status", "text": "Loading the model"})
            llm = await run_in_threadpool(self._session.llm)
            yield _server_sent_event({"type": "status", "text": "The model is reading"})
            events = self._session.ask(llm, messages)
            async with aclosing(events):
                async for event in events:
                    data = writer.write(event)
                    if data is not None:
                        yield _server_sent_event(data)
        except (RecallmError, ValueError, OSError) as error:
            yield _server_sent_event({"type": "error", "text": visible(str(error))})
        except Exception:
            _LOG.exception("a question failed")
            yield _server_sent_event(
                {"type": "error", "text": "Something broke; the terminal shows what."}
            )

    async def source(self, request: Request) -> Response:
        document, start, end = self._place(await _body(request))
        return _AsciiJson(await run_in_threadpool(source_view, document, start, end))

    async def page(self, request: Request) -> Response:
        document, start, end = self._place(await _body(request))
        image = await run_in_threadpool(self._page, document, start, end)
        about = {"boxes": image.boxes, "pages": image.pages, "page": document.page_at(start)}
        headers = {"X-Page": json.dumps(about)}
        return Response(image.png, media_type="image/png", headers=headers)

    def _page(self, document: Document, start: int, end: int) -> PageImage:
        number = document.page_at(start)
        if number is None:
            raise RequestError("this source has no pages")
        begin = document.text.rfind("\f", 0, start) + 1
        quote = document.text[start:end].partition("\f")[0]
        return page_image(self._session.pdf(document), number, quote, start - begin)

    def _place(self, body: dict[str, Any]) -> tuple[Document, int, int]:
        key, start, end = body.get("document_id"), body.get("start"), body.get("end")
        if not isinstance(key, str) or type(start) is not int or type(end) is not int:
            raise RequestError("a place is a document_id, a start and an end")
        document = self._session.source(key)
        if not 0 <= start < end <= len(document.text):
            raise RequestError("the place lies outside the source")
        return document, start, end


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        RequestError: It is too large, or isn't one.
    """
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise RequestError("the content type must be application/json")
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > _MOST_BODY:
            raise RequestError(f"a request may have {_MOST_BODY:,} bytes at most")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RequestError("the request is no JSON") from error
    if not isinstance(body, dict):
        raise RequestError("the request must be a JSON object")
    return body


def _messages(value: Any) -> list[dict[str, str]]:
    """A conversation that ends with a question."""
    if not isinstance(value, list) or not 1 <= len(value) <= _MOST_MESSAGES:
        raise RequestError(f"messages must be a list of 1 to {_MOST_MESSAGES}")
    messages = []
    for message in value:
        role, content = (
            (message.get("role"), message.get("content"))
            if isinstance(message, dict)
            else (None, None)
        )
        if role not in ("user", "assistant") or not isinstance(content, str):
            raise RequestError("a message has a role, user or assistant, and its content as text")
        messages.append({"role": role, "content": content})
    return messages


def _server_sent_event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


async def _bad_request(request: Request, error: Exception) -> Response:
    return _AsciiJson({"error": visible(str(error))}, 400)


_HANDLERS: dict[Any, Any] = {
    RequestError: _bad_request,
    RecallmError: _bad_request,
    OSError: _bad_request,
    ValueError: _bad_request,
}
