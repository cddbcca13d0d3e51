"""A server that is given each step's adapter makes the attempts, or the run says why it can't."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from recallm_core.errors import RecallmError, ServerError
from recallm_core.train.grpo.config import grpo_config

pytest.importorskip("trl", reason="needs the extra grpo")

SMALL: dict[str, Any] = {
    "steps": 2,
    "response_tokens": 32,
    "adapter_rank": 2,
    "lr": 0.05,
    "beta": 0.0,
}


class Loader:
    """Gives a stand-in for a server the adapters that it is told of, as vLLM would."""

    def __init__(self, server: Any, adapters: Path) -> None:
        self.server, self._adapters = server, adapters
        self.steps: list[int] = []
        server.load_adapter = self.load

    def load(self, name: str) -> None:
        from recallm_core.backends.local.transformers import TransformersBackend
        from recallm_core.models.adapters import read_adapter
        from recallm_core.models.checkpoint import load_model

        model = load_model(
            self.server.folder,
            device=torch.device("cpu"),
            dtype=torch.float32,
            adapter=read_adapter(self._adapters / name),
        )
        self.close()
        self.server.engine = TransformersBackend(model, batches=True)
        self.steps.append(int(name.split("-")[1]))

    def close(self) -> None:
        if self.server.engine is not None:
            self.server.engine.close()


@pytest.fixture
def loader(
    checkpoints: dict[str, Path], tmp_path: Path, fake_server: Callable[..., Any]
) -> Iterator[Loader]:
    """A server of the tiny checkpoint, for a run in the usual folder."""
    loading = Loader(
        fake_server(folder=checkpoints["qwen2"], name="served"), tmp_path / "run" / "adapters"
    )
    yield loading
    loading.close()


def test_every_step_is_attempted_by_the_policy_as_it_is_then(
    open_tiny: Callable[..., Any], loader: Loader
) -> None:
    from recallm_core.train.grpo.train import train

    run = open_tiny(**SMALL | {"steps": 3}, rollouts_from=loader.server.url)
    train(run)
    lines = (run.folder / "curve.jsonl").read_text("utf-8").splitlines()
    points = [json.loads(line) for line in lines]
    assert loader.steps == [0, 1, 2]
    assert all(point["log_prob_gap"] < 1e-4 for point in points)  # the new weights, and no others
    assert any(point["grad_norm"] > 0 for point in points[:-1])
    asked = [body for body in loader.server.requests if "logprobs" in body]
    assert len(asked) == 3 * 8
    assert {(body["temperature"], body["top_p"], body["top_k"]) for body in asked} == {(1.0, 1, 0)}
    kept = sorted(path.name for path in (run.folder / "adapters").iterdir())
    assert [name[:11] for name in kept] == ["step-000001", "step-000002"]


def test_a_server_that_goes_on_with_old_weights_is_refused(
    open_tiny: Callable[..., Any], loader: Loader
) -> None:
    from recallm_core.train.grpo.train import train

    server = loader.server
    server.load_adapter = lambda name: server.engine or loader.load(name)
    with pytest.raises(RecallmError, match=r"differ from the trainer's by .*another checkpoint"):
        train(open_tiny(**SMALL | {"lr": 1.0}, rollouts_from=loader.server.url))
    assert loader.steps == [0]


def first_adapter(run: Any) -> None:
    from recallm_core.train.grpo.train import attempting

    with attempting(run) as served:
        assert served is not None
        served.backend.use_adapter("step-1")


def test_a_server_of_another_model_is_refused(
    open_tiny: Callable[..., Any], loader: Loader, checkpoints: dict[str, Path]
) -> None:
    server = loader.server
    refused: list[tuple[dict[str, Any], str]] = [
        ({"response_tokens": 16_384}, "context length of 16,384; the run needs .* 16,534"),
        ({"model": str(checkpoints["qwen2"])}, "takes no adapters"),
    ]
    for changes, message in refused:
        run = open_tiny(**SMALL | changes, rollouts_from=loader.server.url)
        server.load_adapter = None
        with pytest.raises(RecallmError, match=message):
            first_adapter(run)
    changed = json.loads(server.files["recallm.json"]) | {"question": "Q: {question}"}
    server.files["recallm.json"] = json.dumps(changed).encode()
    with pytest.raises(ServerError, match=r"the recipe of .* isn't the one of"):
        first_adapter(open_tiny(**SMALL, rollouts_from=server.url))


def test_what_cannot_be_served_is_refused_before_anything_runs() -> None:
    values = {"families": {"recall": 1.0}, "rollouts_from": "http://127.0.0.1:8000"}
    assert grpo_config(values | {"adapter_rank": 8}).rollouts_from == "http://127.0.0.1:8000"
    with pytest.raises(ValueError, match="needs adapter_rank"):
        grpo_config(values)
    with pytest.raises(ValueError, match="looks like http://host:8000"):
        grpo_config(values | {"adapter_rank": 8, "rollouts_from": "gpu-box"})


def test_the_check_says_how_to_start_the_server_and_asks_one_that_answers(
    open_tiny: Callable[..., Any], loader: Loader, checkpoints: dict[str, Path]
) -> None:
    from recallm_core.train.grpo import check

    server = loader.server
    config = open_tiny(**SMALL, rollouts_from="http://127.0.0.1:9").config
    shape = {"vocab_size": server.width}
    (line,) = check._server(config, shape)
    assert "no server yet" in line
    assert f"recallm serve {checkpoints['qwen2']} --adapters OUT/adapters" in line
    assert "--max-lora-rank 8" in line
    config = open_tiny(**SMALL, rollouts_from=loader.server.url).config
    assert "serves the model" in check._server(config, shape)[0]
    with pytest.raises(RecallmError, match="the run needs"):
        check._server(config, {"vocab_size": server.width + 1})
