from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from recallm_core import Document, RecaLLM
from recallm_core.documents.source_map import SourceMap
from recallm_core.errors import CheckpointError, DocumentError
from recallm_core.testing import scripted_llm
from recallm_core.ui.app import make_app
from recallm_core.ui.session import OpenedSources, Session

KEY, PORT = "k3y", 8123
BASE = f"http://127.0.0.1:{PORT}"
TEXT = "The mill is red.\nIt opened in 1901.\x1b[31m"
SCRIPT = "<|start_recall|>It opened in 1901.<|end_recall|></think>It opened in 1901"
JSON = {"Content-Type": "application/json"}
AUTH = {"Authorization": f"Bearer {KEY}"}


def load(name: str) -> RecaLLM:
    if name == "nothing":
        raise CheckpointError("there is no model 'nothing'")
    return scripted_llm(SCRIPT)


def read(paths: Sequence[str]) -> OpenedSources:
    if paths == ("nowhere",):
        raise DocumentError("nowhere doesn't exist")
    page = Document(TEXT, "page", "A <b>page</b>", source_map=SourceMap("/srv/page.txt"))
    return OpenedSources((page,), ("A <b>page</b>",), ("x.bin: binary",))


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(load, read, model="scripted")
    yield session
    session.close()


@pytest.fixture
def client(session: Session) -> Iterator[TestClient]:
    with TestClient(make_app(session, key=KEY, port=PORT), base_url=BASE) as client:
        client.headers.update(AUTH)
        yield client


def ask(client: TestClient, *messages: str) -> list[dict[str, Any]]:
    roles = ["user", "assistant"] * len(messages)
    body = {"messages": [{"role": r, "content": m} for r, m in zip(roles, messages, strict=False)]}
    response = client.post("/api/ask", json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = response.text.split("\n\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines if line]


def test_a_question_streams_its_quotes_and_ends_with_the_answer(client: TestClient) -> None:
    client.post("/api/open", json={"paths": ["docs"]})
    events = ask(client, "When did it open?")
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["status", "status"]
    assert kinds[-1] == "finished"
    assert kinds.index("quote-start") < kinds.index("quote") < kinds.index("quote-end")
    quoted = "".join(event["text"] for event in events if event["type"] == "quote")
    assert quoted == "It opened in 1901."
    answer = events[-1]
    (citation,) = answer["citations"]
    assert TEXT[citation["start"] : citation["end"]] == citation["text"]
    assert "".join(piece for piece, _ in answer["pieces"]) == answer["text"]
    assert [number for _, closes in answer["pieces"] for number in closes] == [1]
    assert "[^1]" in answer["markdown"]


def test_a_citation_is_shown_in_its_source(client: TestClient) -> None:
    client.post("/api/open", json={"paths": ["docs"]})
    (citation,) = ask(client, "When?")[-1]["citations"]
    place = {key: citation[key] for key in ("document_id", "start", "end")}
    view = client.post("/api/source", json=place).json()
    marked = [text for text, is_marked in view["pieces"] if is_marked]
    assert marked == [citation["text"]]
    shown = "".join(text for text, _ in view["pieces"])
    assert "\x1b" not in shown
    assert "␛[31m" in shown
    assert (view["line"], view["pdf"], view["left_out"]) == (2, False, [0, 0])


def test_the_state_says_what_is_open(client: TestClient) -> None:
    assert client.get("/api/state").json()["count"] == 0
    state = client.post("/api/open", json={"paths": ["docs"]}).json()
    assert (state["count"], state["paths"], state["skipped"]) == (1, ["docs"], ["x.bin: binary"])
    assert client.post("/api/model", json={"model": "other"}).json()["model"] == "other"


def test_what_fails_is_told_and_changes_nothing(client: TestClient) -> None:
    client.post("/api/open", json={"paths": ["docs"]})
    before = client.get("/api/state").json()
    for path, body, told in [
        ("/api/open", {"paths": ["nowhere"]}, "nowhere doesn't exist"),
        ("/api/open", {"paths": [" "]}, "no path was given"),
        ("/api/model", {"model": "nothing"}, "no model 'nothing'"),
    ]:
        response = client.post(path, json=body)
        assert response.status_code == 400
        assert told in response.json()["error"]
    assert client.get("/api/state").json() == before


def test_nothing_is_asked_before_something_is_open(client: TestClient) -> None:
    assert ask(client, "When?")[-1] == {"type": "error", "text": "open some documents first"}


def test_a_model_that_breaks_is_told_without_its_secrets(
    session: Session, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> RecaLLM:
        raise RuntimeError("secret")

    monkeypatch.setattr(session, "llm", broken)
    client.post("/api/open", json={"paths": ["docs"]})
    last = ask(client, "When?")[-1]
    assert last["type"] == "error"
    assert "secret" not in last["text"]


WRONG: list[tuple[str, Any]] = [
    ("/api/open", {}),
    ("/api/open", {"paths": "docs"}),
    ("/api/open", {"paths": [3]}),
    ("/api/open", []),
    ("/api/model", {"model": 3}),
    ("/api/model", {"model": " "}),
    ("/api/ask", {}),
    ("/api/ask", {"messages": []}),
    ("/api/ask", {"messages": [{"role": "system", "content": "x"}]}),
    ("/api/ask", {"messages": [{"role": "user", "content": None}]}),
    ("/api/ask", {"messages": ["x"]}),
    ("/api/ask", {"messages": [{"role": "user", "content": "x"}] * 101}),
    ("/api/source", {"document_id": "other", "start": 0, "end": 1}),
    ("/api/source", {"document_id": "page", "start": 0}),
    ("/api/source", {"document_id": "page", "start": 5, "end": 5}),
    ("/api/source", {"document_id": "page", "start": -1, "end": 5}),
    ("/api/source", {"document_id": "page", "start": 0, "end": 10**30}),
    ("/api/source", {"document_id": "page", "start": 0.0, "end": 1}),
    ("/api/source", {"document_id": "page", "start": True, "end": 2}),
    ("/api/page", {"document_id": "page", "start": 0, "end": 5}),
]


@pytest.mark.parametrize(("path", "body"), WRONG)
def test_requests_that_the_page_never_makes(client: TestClient, path: str, body: Any) -> None:
    client.post("/api/open", json={"paths": ["docs"]})
    ask(client, "When?")
    response = client.post(path, json=body)
    assert response.status_code == 400
    assert response.json()["error"]


@pytest.mark.parametrize("content", [b"{", b"[" * 100_000, b"\xff", b" " * 1_000_001])
def test_bodies_that_are_no_json(client: TestClient, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    response = client.post("/api/open", content=content, headers=headers)
    assert response.status_code == 400


GUARDED = ["/api/state", "/api/open", "/api/ask", "/api/source", "/api/page", "/api/model"]


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize("key", ["", "Bearer ", "Bearer k3", "Bearer k3yy", "Basic k3y"])
def test_without_the_key_nothing_is_answered(session: Session, path: str, key: str) -> None:
    app = make_app(session, key=KEY, port=PORT)
    with TestClient(app, base_url=BASE) as client:
        for method in ("GET", "POST"):
            response = client.request(method, path, headers={"Authorization": key})
            assert response.status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1"},
        {"Host": f"evil.example:{PORT}"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
    ],
)
def test_other_hosts_and_sites_are_refused_even_with_the_key(
    client: TestClient, headers: dict[str, str]
) -> None:
    for path in ("/", "/api/state"):
        assert client.get(path, headers=headers).status_code == 403


def test_another_sites_form_is_refused(client: TestClient) -> None:
    response = client.post("/api/open", data={"paths": "x"})
    assert response.status_code == 400


@pytest.mark.parametrize("path", ["/", "/app.js", "/app.css", "/nothing", "/api/state"])
def test_every_answer_carries_the_policy(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


def test_the_page_asks_for_nothing_outside() -> None:
    static = Path(make_app.__code__.co_filename).parent / "static"
    for path in static.iterdir():
        text = path.read_text("utf-8")
        assert "http://" not in text.replace("http://127", "")
        assert "https://" not in text
        assert "innerHTML" not in text
        assert "style=" not in text


def test_sources_are_those_of_the_answers_alone(client: TestClient) -> None:
    client.post("/api/open", json={"paths": ["docs"]})
    place = {"document_id": "page", "start": 0, "end": 5}
    assert client.post("/api/source", json=place).status_code == 400
    ask(client, "When?")
    assert client.post("/api/source", json=place).status_code == 200
    client.post("/api/open", json={"paths": ["docs"]})
    assert client.post("/api/source", json=place).status_code == 400


def test_text_that_utf_8_cannot_hold_never_stays_in_the_way(
    client: TestClient, session: Session
) -> None:
    for address, body in (("open", {"paths": ["a", "\ud800"]}), ("model", {"model": "\ud800"})):
        response = client.post(f"/api/{address}", content=json.dumps(body), headers=JSON)
        assert response.status_code == 400
        assert "lone surrogate" in response.json()["error"]
    assert client.get("/api/state").json()["paths"] == []
    page = Document("It opened.", "page")  # names of files may be any bytes
    session._read = lambda paths: OpenedSources((page,), ("caf\udce9.txt",), ("\udcff: binary",))
    assert client.post("/api/open", json={"paths": ["docs"]}).status_code == 200
    state = client.get("/api/state").json()
    assert (state["documents"], state["skipped"]) == (["caf\udce9.txt"], ["\udcff: binary"])


@pytest.mark.parametrize("became", ["pipe", "folder", "large", "gone"])
def test_the_file_of_a_page_is_judged_as_it_is_when_it_is_read(
    became: str, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recallm_core.ui.session._MOST_BYTES", 10)
    path = tmp_path / "a.pdf"
    if became == "pipe":
        os.mkfifo(path)
    elif became == "folder":
        path.mkdir()
    elif became == "large":
        path.write_bytes(b"x" * 11)
    document = Document("x", "a", source_map=SourceMap(str(path), pages=(0,)))
    with pytest.raises(DocumentError, match="shown"):
        session.pdf(document)


def test_what_is_kept_of_sources_is_bounded_by_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recallm_core.ui.session._MOST_SOURCE_BYTES", 100_000)
    kept = Session(load, read, model="scripted")
    for number in range(10):
        kept._remember({f"d{number}": Document("x" * 30_000, f"d{number}")})
    assert list(kept._sources) == ["d7", "d8", "d9"]
    last = {f"e{number}": Document("x" * 90_000, f"e{number}") for number in range(4)}
    kept._remember(last)
    assert list(kept._sources) == list(last)  # all of the last answer can be looked at
