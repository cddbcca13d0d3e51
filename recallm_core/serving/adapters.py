"""Adapters that a trainer writes and a server loads: by name, from one folder, and nowhere else.

vLLM's own path for that takes any path of the machine, from anyone who may ask. So it is closed to
clients, and the middleware asks it for what stands in the folder that the server was started with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from recallm_core.errors import CheckpointError
from recallm_core.inputs.model_files import check_file_sizes
from recallm_core.models.adapters import WEIGHTS, is_adapter

LOAD_PATH = "/v1/load_lora_adapter"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_PLAIN = (".json", ".md", ".jinja", ".txt", WEIGHTS)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


def adapter_folder(folder: Path, name: str) -> Path:
    """Returns where an adapter stands, checked as far as it can be without its weights.

    Args:
        folder: Where a trainer writes them.
        name: What a client said.

    Raises:
        CheckpointError: There is none of that name, or it holds a link, or what could be code.
    """
    place = folder / name
    if not NAME.fullmatch(name) or place.is_symlink() or not place.is_dir():
        raise CheckpointError(
            f"there is no adapter {name[:100]!r} in the folder that this server takes them from; "
            "trainer and server have to name the same one: recallm serve MODEL --adapters FOLDER"
        )
    files = sorted(place.iterdir())
    wrong = [file.name for file in files if file.is_symlink() or not file.is_file()]
    wrong += [file.name for file in files if not file.name.endswith(_PLAIN)]
    if wrong or not is_adapter(place) or not (place / WEIGHTS).is_file():
        raise CheckpointError(f"{name} isn't an adapter of plain files with {WEIGHTS}")
    check_file_sizes(place)
    return place


def load_request(scope: Scope, name: str, place: Path) -> tuple[Scope, Receive]:
    """Returns what vLLM is asked in place of a client's request."""
    body = json.dumps({"lora_name": name, "lora_path": str(place), "load_inplace": True}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers += [(key, value) for key, value in scope["headers"] if key == b"host"]
    asked = {"path": LOAD_PATH, "raw_path": LOAD_PATH.encode(), "query_string": b""}

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return {**scope, **asked, "headers": headers}, receive
