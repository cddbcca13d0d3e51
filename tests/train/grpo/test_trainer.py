"""Attempts and trainer agree, and one method of the pinned TRL is overridden."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recallm_core.errors import RecallmError

pytest.importorskip("trl", reason="needs the extra grpo")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_the_one_overridden_method_exists_in_trl_and_is_what_it_calls() -> None:
    from trl import GRPOTrainer

    from recallm_core.train.grpo.trainer import OVERRIDDEN, QuoteTrainer

    theirs = inspect.signature(getattr(GRPOTrainer, OVERRIDDEN)).parameters
    ours = inspect.signature(getattr(QuoteTrainer, OVERRIDDEN)).parameters
    assert [n for n in theirs if n in ours] == [n for n in ours if n != "_"]
    for caller in ("_compute_loss", "_generate_and_score_completions"):
        assert f"self.{OVERRIDDEN}(" in inspect.getsource(getattr(GRPOTrainer, caller))
    changed = {n for n in vars(QuoteTrainer) if n in dir(GRPOTrainer) and not n.startswith("__")}
    assert changed - {"_abc_impl"} == {OVERRIDDEN}


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_log_probs_of_attempts_and_trainer_agree_through_a_whole_run(
    open_tiny: Callable[..., Any], kind: str
) -> None:
    from recallm_core.train.grpo.train import train

    run = open_tiny(kind, temperature=0.8)
    model = train(run)
    points = lines(run.folder / "curve.jsonl")
    assert [point["step"] for point in points] == [1, 2, 3]
    assert all(point["log_prob_gap"] < 1e-4 for point in points)
    assert any(point["grad_norm"] > 0 for point in points)
    assert points[0]["kl"] == pytest.approx(0, abs=1e-7)
    assert {"recall/retrieval", "recall/format", "all/total"} <= points[0].keys()
    assert (model / "recallm.json").is_file()
    assert (run.folder / "curve.png").is_file()


def test_a_run_that_was_stopped_goes_on_with_the_same_batches(
    open_tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from recallm_core.train.grpo import train as module
    from recallm_core.train.grpo.train import train

    whole = open_tiny(folder="whole", adapter_rank=2)
    train(whole)
    broken = open_tiny(folder="broken", adapter_rank=2)
    note = module.QuoteTrainer._note

    def killed(self: Any, step: int, *rest: Any) -> None:
        note(self, step, *rest)
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(module.QuoteTrainer, "_note", killed)
    with pytest.raises(KeyboardInterrupt):
        train(broken)
    monkeypatch.undo()
    train(broken)
    names = ("step", "problems", "digest", "rewards")
    batches = [
        [{name: line[name] for name in names} for line in lines(run.folder / "attempts.jsonl")]
        for run in (whole, broken)
    ]
    assert len({reward for line in batches[0][:2] for reward in line["rewards"]}) > 1  # it learns
    assert batches[0] == batches[1]
    assert len(batches[0]) == 3


def test_another_config_cannot_go_on_with_a_run(open_tiny: Callable[..., Any]) -> None:
    from recallm_core.train.grpo.train import train
    from recallm_core.train.sft.train import keep_config

    run = open_tiny()
    keep_config(run.folder, run.config.to_dict(), ())
    with pytest.raises(RecallmError, match="seed"):
        train(open_tiny(seed=9))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_hundred_steps_raise_retrieval_and_no_learning_does_not(
    open_tiny: Callable[..., Any], seed: int
) -> None:
    from recallm_core.train.grpo.train import train

    gains = []
    for lr in (1e-2, 0.0):
        run = open_tiny(
            folder=f"lr-{lr}",
            seed=seed,
            lr=lr,
            beta=0.0,
            steps=100,
            rollouts=8,
            device_batch=16,
            problems=2,
            prompt_tokens=[20, 150],
            save_every=100,
        )
        train(run)
        retrieval = [line["retrieval"] for line in lines(run.folder / "attempts.jsonl")]
        means = [sum(values) / len(values) for values in retrieval]
        gains.append(sum(means[-10:]) / 10 - sum(means[:10]) / 10)
    assert gains[0] > 0.15
    assert abs(gains[1]) < 0.1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_steps_on_the_mini_leave_a_model_that_quotes(
    open_tiny: Callable[..., Any],
) -> None:
    import recallm_core
    from recallm_core import RecaLLM
    from recallm_core.train.grpo.train import train

    shipped = Path(recallm_core.__file__).parent / "models" / "recallm-mini"
    run = open_tiny(
        model=str(shipped),
        steps=20,
        device_batch=8,
        prompt_tokens=[200, 700],
        response_tokens=160,
        thinking_tokens=64,
        evidence="free",
        lr=2e-5,
        save_every=10,
        families={"recall": 0.5, "citation_qa": 0.5},
    )
    trained = train(run)
    points = lines(run.folder / "curve.jsonl")
    assert [point["step"] for point in points] == list(range(1, 21))
    assert all(point["log_prob_gap"] < 1e-4 for point in points)
    assert max(point["all/retrieval"] for point in points) > 0.1  # the shipped weights quote
    assert all(point["kl"] < 0.1 for point in points)
    text = "The ferry to Skerry leaves at 9:40 from the north quay."
    with RecaLLM.load(str(trained)) as model:
        answer = model.answer("When does the ferry to Skerry leave?", [text])
    assert answer.citations
    assert all(text[c.start : c.end] == c.text for c in answer.citations)
