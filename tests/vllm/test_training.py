"""A run of GRPO whose attempts a vLLM server makes, as ``recallm serve --adapters`` starts it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="needs the extra grpo")
pytestmark = [pytest.mark.vllm, pytest.mark.enable_socket, pytest.mark.timeout(1200)]

START_SECONDS = 600


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint, with heads as wide as vLLM's kernels want them."""
    from recallm_core.train.grpo.tiny import make_checkpoint

    return make_checkpoint(tmp_path_factory.mktemp("base"), "qwen2", tied=True, width=64)


@pytest.fixture
def url(base: Path, tmp_path: Path, vllm_environment: dict[str, str]) -> Iterator[str]:
    """A server of the checkpoint that takes adapters of the run in ``tmp_path``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    python = os.environ.get("RECALLM_VLLM_PYTHON", sys.executable)
    command = [python, "-m", "recallm_core.cli", "serve", str(base), "--port", str(port)]
    command += ["--adapters", str(tmp_path / "adapters"), "--max-lora-rank", "8"]
    command += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "4096"]
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=vllm_environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        wait(process, f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=60):
                return
        except OSError:
            time.sleep(1)
    text = log.read_text(errors="replace")[-6000:]
    raise AssertionError(f"the server didn't start (rc {process.poll()}):\n{text}")


def test_server_and_trainer_agree_while_the_adapter_learns(
    base: Path, tmp_path: Path, url: str
) -> None:
    from recallm_core.train.grpo.config import grpo_config
    from recallm_core.train.grpo.train import open_run, train

    values = {
        "model": str(base),
        "rollouts_from": url,
        "steps": 4,
        "prompts": 2,
        "rollouts": 4,
        "device_batch": 8,
        "prompt_tokens": [20, 150],
        "response_tokens": 48,
        "thinking_tokens": 4,
        "evidence": "first",
        "adapter_rank": 4,
        "lr": 0.02,
        "beta": 0.0,
        "precision": "fp32",
        "gradient_checkpointing": False,
        "families": {"recall": 1.0},
        "reward": {"overlong_tokens": 0},
    }
    train(open_run(grpo_config(values), tmp_path))
    lines = (tmp_path / "curve.jsonl").read_text("utf-8").splitlines()
    points = [json.loads(line) for line in lines]
    assert [point["step"] for point in points] == [1, 2, 3, 4]
    assert any(point["grad_norm"] > 0 for point in points[:-1])
    assert all(point["log_prob_gap"] < 1e-3 for point in points)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{url}/v1/load_lora_adapter", b"{}")
