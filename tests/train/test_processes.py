"""Runs on two processes are those of one, survive kills, and write everything once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from recallm_core.train.processes import is_main_process, is_true_anywhere, wait_for_all

psutil = pytest.importorskip("psutil", reason="needs the extra train")

GRPO = """
steps = 8
prompts = 3
rollouts = 4
device_batch = 3
prompt_tokens = [20, 150]
response_tokens = 64
thinking_tokens = 2
evidence = "first"
lr = 1e-3
beta = 0.01
adapter_rank = 2
precision = "fp32"
gradient_checkpointing = false
save_every = 1

[families]
recall = 0.5
reasoning_retrieval = 0.5

[reward]
overlong_tokens = 0
"""
SFT = """
examples = 12
validation = 2
max_tokens = 700
context_tokens = [40, 90]
global_batch = 4
device_batch = 2
precision = "fp32"
gradient_checkpointing = false
workers = 0
save_every = 2

[embeddings]
epochs = 1
lr = 1e-2

[all_weights]
epochs = 1
lr = 1e-3

[tasks]
key_value = 1
one_fact = 1
"""


def test_one_process_is_the_main_one_and_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert is_main_process()
    monkeypatch.setenv("RANK", "1")
    assert not is_main_process()
    monkeypatch.delenv("RANK")
    wait_for_all()
    assert [is_true_anywhere(flag) for flag in (True, False)] == [True, False]


def require_two_processes() -> None:
    import torch

    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo, which joins CPU processes")
    if (os.cpu_count() or 1) < 2:
        pytest.skip("two processes need two cores")


@contextmanager
def launched(*command: str) -> Iterator[subprocess.Popen[str]]:
    """Starts ``recallm train`` on two processes; none of them outlives the block."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    started = subprocess.Popen(
        [*launcher, "--nproc_per_node", "2", "-m", "recallm_core.train", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        yield started
    finally:
        if started.poll() is None:
            for process in [*psutil.Process(started.pid).children(recursive=True), started]:
                process.kill()
        started.communicate()


def finished(*command: str) -> str:
    with launched(*command) as run:
        told, _ = run.communicate(timeout=300)
    assert run.returncode == 0, told
    return told


def stopped(number: int, ready: Callable[[], bool], *command: str) -> str:
    """Sends a signal to the second of two processes once something stands."""
    with launched(*command) as run:
        while not ready():
            assert run.poll() is None, run.communicate()
            time.sleep(0.05)
        workers = {p.environ()["RANK"]: p for p in psutil.Process(run.pid).children()}
        workers["1"].send_signal(number)
        told, _ = run.communicate(timeout=300)
    assert run.returncode != 0
    return told


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def assert_same_weights(one: Path, other: Path) -> None:
    from safetensors.torch import load_file

    weights, others = load_file(one), load_file(other)
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        assert (weight - others[name]).abs().max() < 1e-4, name


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_attempts_on_two_processes_are_those_of_one_after_kills_too(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("trl", reason="needs the extra grpo")
    require_two_processes()
    from recallm_core.cli.train import main

    config = tmp_path / "grpo.toml"
    config.write_text(GRPO)
    options = ["grpo", "--config", str(config), "--model", str(checkpoints["llama"]), "--out"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert main([*options, str(one)]) == 0

    def is_saved(step: int) -> bool:
        return (two / "grpo" / f"checkpoint-{step}" / "complete.json").is_file()

    stopped(signal.SIGKILL, lambda: is_saved(2), *options, str(two))
    assert len(lines(two / "attempts.jsonl")) < 8
    told = stopped(signal.SIGTERM, lambda: is_saved(5), *options, str(two))
    assert told.count("the same command goes on") == 2, told  # both, though one alone was asked
    assert len(lines(two / "attempts.jsonl")) < 8
    told = finished(*options, str(two))
    assert told.count(f"model in {two}") == 1
    assert lines(one / "attempts.jsonl") == lines(two / "attempts.jsonl")
    curves = [lines(run / "curve.jsonl") for run in (one, two)]
    assert [point["step"] for point in curves[1]] == list(range(1, 9))
    names = ("grad_norm", "reward", "reward_std", "kl", "all/retrieval", "all/format")
    for point, other in zip(*curves, strict=True):
        assert other["log_prob_gap"] < 1e-4
        families = [name for name in point if name.endswith("/total")]
        for name in (*names, *families):
            assert other[name] == pytest.approx(point[name], rel=1e-3, abs=1e-5), name
    assert_same_weights(one / "model" / "model.safetensors", two / "model" / "model.safetensors")
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("rank", [0, 2])
def test_post_training_on_two_processes_gives_the_weights_of_one(
    checkpoints: dict[str, Path], tmp_path: Path, rank: int
) -> None:
    require_two_processes()
    if rank:
        pytest.importorskip("peft", reason="needs the extra grpo")
    from recallm_core.cli.train import main

    config = tmp_path / "sft.toml"
    config.write_text(f"adapter_rank = {rank}\n{SFT}")
    options = ["sft", "--config", str(config), "--model", str(checkpoints["qwen2"]), "--out"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert main([*options, str(one)]) == 0
    assert finished(*options, str(two)).count(f"model in {two}") == 1
    steps = [[(p["stage"], p["step"]) for p in lines(run / "curve.jsonl")] for run in (one, two)]
    assert steps[0] == steps[1]
    file = Path("adapter/adapter_model.safetensors") if rank else Path("model/model.safetensors")
    assert_same_weights(one / file, two / file)
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
