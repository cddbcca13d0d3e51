"""What stands before a vLLM server: keys, salts, limits, and the manifest."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.backends.vllm.manifest import FILES_PATH, MANIFEST_PATH, Manifest
from recallm_core.models import shipped
from recallm_core.serving.app import MAX_BODY, SETTINGS, RecallMiddleware

KEYS = ("first-long-secret-key", "second-long-secret-key")
MINI = shipped("recallm-mini")


class App:
    """The server behind it: remembers what reached it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.lengths: list[int] = []
        config = SimpleNamespace(
            model_config=SimpleNamespace(max_model_len=4096, get_vocab_size=lambda: 6144),
            use_v2_model_runner=True,
        )
        self.state = SimpleNamespace(vllm_config=config)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        body, more = b"", scope["method"] == "POST"
        while more:
            message = await receive()
            body, more = body + message["body"], message.get("more_body", False)
        self.bodies.append(body)
        self.lengths.append(int(dict(scope["headers"]).get(b"content-length", b"0")))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"behind"})


class Kit:
    def __init__(self, keys: tuple[str, ...]) -> None:
        self.app = App()
        digests = [hashlib.sha256(key.encode()).hexdigest() for key in keys]
        with pytest.MonkeyPatch.context() as patch:
            told = {"folder": str(MINI), "model": "mini", "keys": digests}
            patch.setenv(SETTINGS, json.dumps(told))
            self.front = RecallMiddleware(self.app)

    async def ask(self, method: str, path: str, key: str | None = None, **options: Any) -> Any:
        async def served(scope: Any, receive: Any, send: Any) -> None:
            scope["app"] = self.app
            await self.front(scope, receive, send)

        headers = options.pop("headers", {})
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        base = options.pop("base", "http://127.0.0.1:8000")
        transport = httpx2.ASGITransport(served)
        async with httpx2.AsyncClient(transport=transport, base_url=base) as client:
            return await client.request(method, path, headers=headers, **options)


@pytest.mark.parametrize(
    "path", ["/v1/models", "/tokenize", "/metrics", "/invocations", "/", MANIFEST_PATH, "/docs"]
)
@pytest.mark.parametrize("key", [None, "", "wrong", KEYS[0] + "x", "é"])
async def test_every_path_wants_a_key(path: str, key: str | None) -> None:
    kit = Kit(KEYS)
    headers = {} if key is None else {"Authorization": f"Bearer {key}".encode()}
    reply = await kit.ask("GET", path, headers=headers)
    assert reply.status_code == 401
    assert kit.app.bodies == []
    for right in KEYS:
        assert (await kit.ask("GET", path, key=right)).status_code == 200


async def test_health_checks_need_none() -> None:
    kit = Kit(KEYS)
    for path in ("/health", "/ping"):
        assert (await kit.ask("GET", path)).text == "behind"


async def test_the_manifest_and_its_files() -> None:
    kit = Kit(())
    manifest = Manifest.from_json((await kit.ask("GET", MANIFEST_PATH)).content)
    assert (manifest.model, manifest.window, manifest.vocab_size) == ("mini", 4096, 6144)
    assert (manifest.runner, manifest.eos_ids, manifest.model_type) == ("V2", (3,), "llama")
    for name, told in manifest.files.items():
        data = (await kit.ask("GET", FILES_PATH + name)).content
        assert (len(data), hashlib.sha256(data).hexdigest()) == (told.size, told.sha256)
    assert set(manifest.files) == {"tokenizer.json", "tokenizer_config.json", "recallm.json"}


@pytest.mark.parametrize(
    "name", ["model.safetensors", "../config.json", "..%2fconfig.json", "", "/etc/passwd"]
)
async def test_nothing_else_is_offered(name: str) -> None:
    kit = Kit(())
    assert (await kit.ask("GET", FILES_PATH + name)).status_code == 404
    assert (await kit.ask("POST", MANIFEST_PATH, json={})).status_code in (404, 405, 200)
    assert b"architectures" not in (await kit.ask("GET", FILES_PATH + name)).content


async def test_bodies_are_salted_per_key() -> None:
    kit = Kit(KEYS)
    for key in (KEYS[0], KEYS[1], KEYS[0]):
        await kit.ask("POST", "/v1/completions", key=key, json={"prompt": [1, 2]})
    found = [json.loads(body) for body in kit.app.bodies]
    assert [body["prompt"] for body in found] == [[1, 2]] * 3
    salts = [body["cache_salt"] for body in found]
    assert salts[0] == salts[2] != salts[1]
    assert all(len(salt) >= 43 and not set("@/\\\0") & set(salt) for salt in salts)
    assert not any(key in salt for key in KEYS for salt in salts)
    assert kit.app.lengths == [len(body) for body in kit.app.bodies]


async def test_a_client_may_narrow_its_salt_further() -> None:
    kit = Kit(KEYS)
    await kit.ask("POST", "/v1/completions", key=KEYS[0], json={"cache_salt": "own"})
    assert json.loads(kit.app.bodies[0])["cache_salt"] == "own"


async def test_without_keys_bodies_pass_as_they_are() -> None:
    kit = Kit(())
    await kit.ask("POST", "/v1/completions", content=b'{"prompt": [1]}')
    assert kit.app.bodies == [b'{"prompt": [1]}']


@given(body=st.binary(max_size=60) | st.sampled_from([b"{}", b" { }", b"[1]", b'{ "a":1}', b"{"]))
async def test_any_body_keeps_its_bytes_and_its_length(body: bytes) -> None:
    kit = Kit(KEYS)
    await kit.ask("POST", "/v1/completions", key=KEYS[0], content=body)
    (got,), (length,) = kit.app.bodies, kit.app.lengths
    if body:
        assert length == len(got)
    salt = got.partition(b'"cache_salt":"')[2].partition(b'",')[0]
    member = b'"cache_salt":"' + salt + b'",'
    assert body in (got.replace(member, b"", 1), got.lstrip(b" "), got[len(got) - len(body) :])


async def test_bodies_of_unknown_or_absurd_length_are_refused() -> None:
    kit = Kit(())

    async def pieces() -> Any:
        yield b"{}"

    assert (await kit.ask("POST", "/v1/completions", content=pieces())).status_code == 411
    headers = {"Content-Length": str(MAX_BODY + 1)}
    reply = await kit.ask("POST", "/v1/completions", content=b"{}", headers=headers)
    assert reply.status_code == 413
    assert kit.app.bodies == []


@pytest.mark.parametrize("base", ["http://evil.example:8000", "http://10.0.0.7", "http://[::2]:1"])
async def test_without_keys_no_other_name_is_answered(base: str) -> None:
    kit = Kit(())
    assert (await kit.ask("GET", "/v1/models", base=base)).status_code == 403
    assert (await Kit(KEYS).ask("GET", "/v1/models", KEYS[0], base=base)).status_code == 200


async def test_without_keys_no_web_page_is_answered() -> None:
    kit = Kit(())
    headers = {"Origin": "https://evil.example"}
    assert (await kit.ask("GET", "/v1/models", headers=headers)).status_code == 403
    for base in ("http://localhost:8000", "http://127.0.0.1", "http://[::1]:8000"):
        assert (await kit.ask("GET", "/v1/models", base=base)).status_code == 200


async def test_sockets_of_other_kinds_are_not_served() -> None:
    kit = Kit(KEYS)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {}

    await kit.front({"type": "websocket", "path": "/v1/realtime", "headers": []}, receive, send)
    assert sent == []
    assert kit.app.bodies == []


def test_a_folder_without_a_fast_tokenizer_is_refused(tmp_path: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            SETTINGS, json.dumps({"folder": str(tmp_path), "model": "m", "keys": []})
        )  # fmt: skip
        with pytest.raises(Exception, match=r"has no tokenizer.json; convert"):
            RecallMiddleware(App())
