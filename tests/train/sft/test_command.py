"""``recallm train sft`` as a user runs it: killed, resumed, loaded, asked."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from recallm_core import Document, RecaLLM
from recallm_core.train.tasks.keyed import key_value

CONFIG = """
examples = 480
validation = 8
max_tokens = 600
context_tokens = [30, 90]
global_batch = 8
device_batch = 8
precision = "fp32"
gradient_checkpointing = false
workers = 1
save_every = 15
log_every = 5

[embeddings]
epochs = 1
lr = 1e-2

[all_weights]
epochs = 4
lr = 4e-3

[tasks]
key_value = 1
"""


def started(run: Path, config: Path, model: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "recallm_core.cli", "train", "sft"]
    command += ["--config", str(config), "--model", str(model), "--out", str(run)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def wait_for(seen: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not seen():
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_a_run_survives_kills_and_its_model_quotes_exactly(
    make_checkpoint: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    model = make_checkpoint(tmp_path, kind, tied=kind == "qwen2", width=96)
    config, run = tmp_path / "config.toml", tmp_path / "run"
    config.write_text(CONFIG)
    process = started(run, config, model)
    wait_for(lambda: (run / "embeddings" / "checkpoint-15" / "complete.json").is_file(), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    process = started(run, config, model)
    first = run / "all-weights" / "checkpoint-15"
    wait_for(lambda: (first / "complete.json").is_file(), process)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate()
    assert process.returncode == 130, told
    assert "the same command goes on" in told
    assert "Traceback" not in told
    process = started(run, config, model)
    out, told = process.communicate()
    assert process.returncode == 0, told
    assert f"model in {run / 'model'}" in out
    assert_falls(run)
    assert_quotes(run / "model")


def assert_falls(run: Path) -> None:
    points = [json.loads(line) for line in (run / "curve.jsonl").read_text().splitlines()]
    for stage, share in (("embeddings", 1.0), ("all-weights", 0.5)):
        losses = [p["loss"] for p in points if p["stage"] == stage and "loss" in p]
        assert losses[-1] < share * losses[0]
    assert (run / "curve.png").is_file()


def assert_quotes(folder: Path) -> None:
    llm = RecaLLM.load(folder)
    cited = 0
    for seed in range(10):
        example = key_value(random.Random(-1 - seed), size=200)
        document = Document(example.passages[0][1], id="table")
        answer = llm.answer(example.question, [document])
        for citation in answer.citations:
            assert document.text[citation.start : citation.end] == citation.text
        cited += bool(answer.citations)
    assert cited >= 8
