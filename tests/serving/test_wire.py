"""What a server sends is bounded in bytes, events and time, however it is cut into pieces."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core import Document, RecaLLM
from recallm_core.backends.vllm import wire
from recallm_core.backends.vllm.connection import Connection
from recallm_core.backends.vllm.http import ServerBackend
from recallm_core.errors import ServerError
from recallm_core.prompting.recipe import trained_recipe
from recallm_core.testing import ByteTokenizer

DONE = b"data: [DONE]\n\n"


def read(pieces: Sequence[bytes], *, prompt_tokens: int = 10, max_tokens: int = 100) -> list[bytes]:
    async def given_pieces() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def run() -> list[bytes]:
        found = wire.events(given_pieces(), prompt_tokens=prompt_tokens, max_tokens=max_tokens)
        return [event async for event in found]

    return asyncio.run(run())


@given(
    events=st.lists(
        st.binary(min_size=1, max_size=12).filter(lambda b: b.strip() and b"\n" not in b)
    ),
    cuts=st.lists(st.integers(0, 200), max_size=20),
)
def test_events_are_the_same_however_they_are_cut(events: list[bytes], cuts: list[int]) -> None:
    data = b"".join(b": ping\n\ndata: " + event + b"\n\n" for event in events) + DONE
    at = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    pieces = [data[a:b] for a, b in pairwise(at)]
    whole = read([data])
    assert read(pieces) == whole
    assert read([bytes([byte]) for byte in data]) == whole


def test_each_byte_is_copied_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    copied = 0

    class Counted(bytes):
        def __add__(self, other: bytes) -> bytes:
            nonlocal copied
            copied += len(self) + len(other)
            return Counted(bytes(self) + other)

        def __radd__(self, other: bytes) -> bytes:
            nonlocal copied
            copied += len(self) + len(other)
            return Counted(other + bytes(self))

    count = 4000
    with pytest.raises(ServerError, match="too early"):
        read([Counted(b"x")] * count)
    assert copied <= 2 * count


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'data: {"choices":[]}\n\n', "more events"),
        (b": ping\n\n" * 500, "more bytes"),
        (b"\n" * 5000, "more bytes"),
        (b"x" * 70_000, "an event of more than"),
    ],
)
def test_what_comes_is_bounded(line: bytes, said: str) -> None:
    class Endless(Sequence[bytes]):
        def __getitem__(self, number: int) -> bytes:  # type: ignore[override]
            return line

        def __len__(self) -> int:
            return 10**9

    with pytest.raises(ServerError, match=said):
        read(Endless())


@pytest.mark.parametrize(("useful", "said"), [(False, "no token for 20 s"), (True, "520 s")])
def test_a_server_that_trickles_is_given_up(
    monkeypatch: pytest.MonkeyPatch, useful: bool, said: str
) -> None:
    now = 0.0
    monkeypatch.setattr(wire.time, "monotonic", lambda: now)
    may = wire.Allowance(prompt_tokens=10, max_tokens=100, timeout=10)

    def trickle() -> None:
        nonlocal now
        for _ in range(1000):
            now += 9.0
            may.take(1)
            if useful:
                may.progress()

    with pytest.raises(ServerError, match=said):
        trickle()


def test_a_slow_server_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(wire.time, "monotonic", lambda: now)
    may = wire.Allowance(prompt_tokens=10, max_tokens=1000, timeout=10)
    for _ in range(1000):
        now += 4.0
        may.take(4000)
        may.take_event()
        may.progress()


# a server that is nothing but a socket


@contextmanager
def raw_server(head: bytes, again: bytes, pause: float) -> Iterator[int]:
    """Answers anything with some bytes, and then others again and again."""
    listening = socket.create_server(("127.0.0.1", 0))

    def talk(one: socket.socket) -> None:
        try:
            one.recv(65_536)
            one.sendall(head)
            while True:
                one.sendall(again)
                time.sleep(pause)
        except OSError:
            one.close()

    def accept() -> None:
        while True:
            try:
                one, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(one,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.close()


EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
BODY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"


def asked(port: int) -> None:
    connection = Connection(f"http://127.0.0.1:{port}", timeout=0.3, max_retries=0)
    vocab = ByteTokenizer().vocab_size
    backend = ServerBackend(connection, model="m", window=100_000, vocab_size=vocab)
    with RecaLLM(ByteTokenizer(), backend, trained_recipe()) as llm:
        llm.answer("q", [Document("abc")], max_new_tokens=5)


@pytest.mark.parametrize(
    "again", [b": ping\n\n", b'data: {"choices":[{"token_ids":[]}]}\n\n', b"\n"]
)
@pytest.mark.parametrize("pause", [0.0, 0.05])
@pytest.mark.enable_socket
def test_an_answer_without_tokens_is_given_up(again: bytes, pause: float) -> None:
    with raw_server(EVENTS, again, pause) as port, pytest.raises(ServerError):
        asked(port)


@pytest.mark.enable_socket
def test_a_head_that_never_ends_is_given_up() -> None:
    trickle = b"HTTP/1.1 200 OK\r\nx: "
    with raw_server(trickle, b"y", 0.05) as port, pytest.raises(ServerError, match="no whole head"):
        asked(port)


@pytest.mark.enable_socket
def test_a_body_that_never_ends_is_given_up() -> None:
    with raw_server(BODY, b" ", 0.05) as port:
        connection = Connection(f"http://127.0.0.1:{port}", timeout=0.3, max_retries=0)
        try:
            with pytest.raises(ServerError, match="wasn't read whole"):
                connection.get("/v1/models", limit=1000)
            with pytest.raises(ServerError, match="more than 10 bytes"):
                connection.get("/v1/models", limit=10)
        finally:
            connection.close()


@pytest.mark.enable_socket
def test_a_failure_that_is_explained_for_ever_is_told() -> None:
    head = BODY.replace(b"200 OK", b"500 No")
    with raw_server(head, b"because ", 0.05) as port, pytest.raises(ServerError, match="500"):
        asked(port)


def test_huge_numbers_and_deep_nesting_in_an_event_are_errors_of_ours() -> None:
    for data in (
        b'{"choices": [{"token_ids": [' + b"9" * 5000 + b"]}]}",
        b"[" * 100_000,
        json.dumps({"choices": [{"token_ids": [1.5]}]}).encode(),
        b'{"choices": [{"token_ids": [NaN]}]}',
        b'{"choices": [{"token_ids": [true]}]}',
        b'{"choices": [{"token_ids": [-1]}]}',
        b'{"choices": 5}',
        b'{"usage": 5, "choices": []}',
        b'{"usage": {"prompt_tokens_details": 5}, "choices": []}',
        b"5",
        b"\xff",
        b'{"error": {"code": "\\ud800", "message": "\\ud800"}}',
    ):
        with pytest.raises(ServerError):
            wire.read_event(data, vocab_size=100)
