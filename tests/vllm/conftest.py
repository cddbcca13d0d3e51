"""What the tests against a server and against an engine in process share."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from recallm_core import RecaLLM
from recallm_core.models import shipped


@pytest.fixture(scope="session")
def vllm_environment() -> dict[str, str]:
    """The environment of a process that starts vLLM on a busy machine without a GPU."""
    root = Path(__file__).parent.parent.parent
    paths = [str(root), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",  # threads that wait for each other starve on a busy machine
        "TORCH_COMPILE_DISABLE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }


@pytest.fixture(scope="session")
def group() -> Callable[[int], list[int]]:
    """Says which processes of a group haven't ended."""

    def alive(leader: int) -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == leader and fields[0] != "Z":
                found.append(int(path.parent.name))
        return found

    return alive


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model, with a chat template that shows tools."""
    mini = shipped("recallm-mini")
    assert mini is not None
    made = tmp_path_factory.mktemp("served") / "mini"
    shutil.copytree(mini, made)
    path = made / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["chat_template"] = "{{ tools | default('') | tojson }}" + config["chat_template"]
    path.write_text(json.dumps(config))
    return made


@pytest.fixture(scope="module")
def local(folder: Path) -> Iterator[RecaLLM]:
    """The same model in transformers."""
    with RecaLLM.load(folder, dtype="float32") as found:
        yield found


@pytest.fixture(scope="session")
def tool() -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": "book",
            "description": "Books seats.",
            "parameters": {
                "type": "object",
                "properties": {"seats": {"type": "integer", "minimum": 1, "maximum": 9}},
                "required": ["seats"],
            },
        },
    }


@pytest.fixture(scope="session")
def schema() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"open": {"type": "boolean"}, "kind": {"enum": ["ferry", "leave"]}},
        "required": ["open", "kind"],
    }
