"""HTTP: this machine alone, or whoever has a key; no web page, no other name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from recallm_core.mcp_server.desk import Desk
from recallm_core.mcp_server.library import Library
from recallm_core.mcp_server.server import RecallServer
from recallm_core.mcp_server.web import PATH, application
from recallm_core.testing import scripted_llm

KEYS = ["a-key-of-some-length", "another-key-as-long"]
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "0"},
    },
}
ACCEPT = {"accept": "application/json, text/event-stream"}


def hello(folder: Path, keys: list[str], headers: dict[str, str], host: str = "127.0.0.1") -> Any:
    (folder / "leave.md").write_text("The annual leave is 30 days.")
    server = RecallServer(Desk(Library([folder]), scripted_llm))
    with TestClient(application(server, keys), base_url=f"http://{host}:8765") as client:
        return client.post(PATH, json=HELLO, headers=ACCEPT | headers)


def test_this_machine_needs_no_key(tmp_path: Path) -> None:
    response = hello(tmp_path, [], {})
    assert response.status_code == 200
    assert "recallm" in response.text


@pytest.mark.parametrize(
    ("headers", "host", "status"),
    [
        ({"origin": "https://evil.example"}, "127.0.0.1", 403),
        ({"origin": "http://localhost:3000"}, "localhost", 403),
        ({"origin": "null"}, "127.0.0.1", 403),
        ({}, "evil.example", 421),
        ({}, "127.0.0.1.evil.example", 421),
    ],
)
def test_no_web_page_and_no_other_name(
    headers: dict[str, str], host: str, status: int, tmp_path: Path
) -> None:
    assert hello(tmp_path, [], headers, host).status_code == status


@pytest.mark.parametrize("key", KEYS)
def test_any_of_the_keys_opens_from_anywhere(key: str, tmp_path: Path) -> None:
    headers = {"authorization": f"Bearer {key}"}
    assert hello(tmp_path, KEYS, headers, "files.example").status_code == 200


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {KEYS[0]}", KEYS[0], f"Bearer {KEYS[0]}x"],
)
def test_nothing_else_opens(header: str, tmp_path: Path) -> None:
    response = hello(tmp_path, KEYS, {"authorization": header} if header else {})
    assert response.status_code == 401
    assert "this server wants a key" in response.text
    assert KEYS[0] not in response.text
