"""Adapters are loaded by name from one folder; vLLM's own doors for them stay shut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.backends.vllm.manifest import ADAPTERS_PATH
from recallm_core.errors import CheckpointError
from recallm_core.models import shipped
from recallm_core.serving.adapters import LOAD_PATH, adapter_folder
from recallm_core.serving.app import SETTINGS, RecallMiddleware

KEY = "a-long-enough-secret-key"


class App:
    """What stands behind: remembers paths and bodies."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        assert int(dict(scope["headers"])[b"content-length"]) == len(body)
        self.requests.append((scope["path"], body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"behind"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One adapter, as far as a server looks before it loads it."""
    place = tmp_path / "adapters" / "step-1"
    place.mkdir(parents=True)
    (place / "adapter_config.json").write_text("{}")
    (place / "adapter_model.safetensors").write_bytes(b"weights")
    return place.parent


async def ask(
    folder: Path | None, path: str, method: str = "POST", **headers: str
) -> tuple[int, App]:
    app = App()
    told: dict[str, Any] = {"folder": str(shipped("recallm-mini")), "model": "mini", "keys": []}
    if folder is not None:
        told["adapters"] = str(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SETTINGS, json.dumps(told))
        front = RecallMiddleware(app)
    transport = httpx2.ASGITransport(front)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        reply = await client.request(method, path, headers=headers, content=b"{}")
    return reply.status_code, app


async def test_an_adapter_is_loaded_from_the_folder_by_its_name(folder: Path) -> None:
    status, app = await ask(folder, ADAPTERS_PATH + "step-1")
    assert status == 200
    ((path, body),) = app.requests
    assert path == LOAD_PATH
    assert json.loads(body) == {
        "lora_name": "step-1", "lora_path": str(folder / "step-1"), "load_inplace": True
    }  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [LOAD_PATH, "/v1/unload_lora_adapter", "/adapters", "/adapters/step-1", "/v1/x/adapter"],
)
@pytest.mark.parametrize("trains", [True, False])
async def test_the_engines_own_doors_are_shut(folder: Path, path: str, trains: bool) -> None:
    status, app = await ask(folder if trains else None, path)
    assert (status, app.requests) == (403, [])


async def test_who_may_not_ask_is_not_answered(folder: Path) -> None:
    path = ADAPTERS_PATH + "step-1"
    assert (await ask(folder, path, origin="http://evil.example"))[0] == 403
    assert (await ask(folder, path, method="GET"))[0] == 405
    assert (await ask(None, path))[0] == 404


@pytest.mark.parametrize("name", ["", "..", "step-2", "step-1/..", "%2e%2e", ".step-1", "a" * 101])
async def test_other_names_lead_nowhere(folder: Path, name: str) -> None:
    status, app = await ask(folder, ADAPTERS_PATH + name)
    assert status in (400, 404, 405)
    assert app.requests == []


@given(st.text(max_size=40))
def test_any_name_stays_in_the_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    with pytest.raises(CheckpointError, match="no adapter"):
        adapter_folder(tmp_path_factory.getbasetemp(), name)


@pytest.mark.parametrize("kind", ["link", "linked file", "pickle", "folder", "whole", "empty"])
def test_what_is_no_plain_adapter_is_refused(folder: Path, kind: str) -> None:
    place = folder / "step-1"
    if kind == "link":
        place.rename(folder.parent / "elsewhere")
        place.symlink_to(folder.parent / "elsewhere")
    elif kind == "linked file":
        (place / "adapter_model.safetensors").unlink()
        (place / "adapter_model.safetensors").symlink_to("/etc/hostname")
    elif kind == "pickle":
        (place / "adapter_model.bin").write_bytes(b"")
    elif kind == "folder":
        (place / "x.json").mkdir()
    elif kind == "whole":
        (place / "config.json").write_text("{}")
    else:
        (place / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no adapter|isn't an adapter of plain files"):
        adapter_folder(folder, "step-1")
