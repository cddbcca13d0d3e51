from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recallm_core.errors import CheckpointError, RecallmError
from recallm_core.train.sft.config import SftConfig, sft_config

SETTINGS = {
    "examples": 12,
    "validation": 2,
    "max_tokens": 700,
    "context_tokens": [40, 90],
    "global_batch": 4,
    "device_batch": 2,
    "precision": "fp32",
    "workers": 0,
    "save_every": 2,
    "embeddings": {"epochs": 2, "lr": 1e-2},
    "all_weights": {"epochs": 2, "lr": 5e-3},
    "tasks": {"key_value": 1, "one_fact": 1},
}
Checkpoints = dict[str, Path]
FAMILIES = ("qwen2", "llama")


def settings(model: Path, **changes: Any) -> SftConfig:
    return sft_config(SETTINGS | {"model": str(model)} | changes)


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_loss_is_that_of_completions_under_the_constraint(
    checkpoints: Checkpoints, tmp_path: Path, kind: str
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from recallm_core.train.sft.data import collate, completion_loss
    from recallm_core.train.sft.train import open_run

    run = open_run(settings(checkpoints[kind]), tmp_path)
    model = AutoModelForCausalLM.from_pretrained(checkpoints[kind])
    rows = [run.train[number] for number in range(3)]
    words = recall = 0.0
    for row in rows:  # one at a time, without padding, over the whole vocabulary
        with torch.no_grad():
            logits = model(torch.from_numpy(row.ids).long()[None]).logits[0].double()
        legal = dict(zip(row.choices, row.supports, strict=True))
        for place, label in enumerate(row.labels.tolist()):
            if label < 0:
                continue
            scores = logits[row.prompt_length + place - 1]
            if place in legal:
                kept = torch.full_like(scores, float("-inf"))
                ids = torch.from_numpy(legal[place]).long()
                kept[ids] = scores[ids]
                recall -= float(kept.log_softmax(0)[label])
            else:
                words -= float(scores.log_softmax(0)[label])
    found = completion_loss(model, collate(rows, run.pad))
    assert float(found["words"].detach()) == pytest.approx(words, rel=1e-4)
    assert float(found["recall"].detach()) == pytest.approx(recall, rel=1e-4)
    assert int(found["words_count"] + found["recall_count"]) == sum(row.learnt for row in rows)


@pytest.mark.parametrize("kind", FAMILIES)
def test_only_new_rows_learn_first_and_merge_exactly(
    checkpoints: Checkpoints, tmp_path: Path, kind: str
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from recallm_core.train.sft.new_token_rows import NewRows, merge
    from recallm_core.train.sft.train import open_run

    run = open_run(settings(checkpoints[kind]), tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(checkpoints[kind])
    before = {name: p.clone() for name, p in plain.named_parameters()}
    held = AutoModelForCausalLM.from_pretrained(checkpoints[kind])
    rows = NewRows(held, run.new_ids)
    rows.attach(held)
    learning = {name for name, p in held.named_parameters() if p.requires_grad}
    assert learning == {f"recall_rows.{n}" for n, _ in rows.named_parameters()}
    assert rows.tied == (kind == "qwen2")
    with torch.no_grad():
        for parameter in rows.parameters():
            parameter.normal_()
    rows.save(tmp_path)
    merge(plain, tmp_path, run.new_ids)
    ids = torch.tensor([[5, *run.new_ids, 7]])
    with torch.no_grad():
        assert torch.allclose(held(ids).logits, plain(ids).logits, atol=1e-5)
    others = [n for n in range(len(run.tokenizer.tokenizer)) if n not in run.new_ids]
    for name, parameter in plain.named_parameters():
        table = "embed_tokens" in name or "lm_head" in name
        kept = others if table else slice(None)
        assert (parameter[kept] == before[name][kept]).all()
        if table:
            assert not (parameter[run.new_ids] == before[name][run.new_ids]).any()


def points(folder: Path) -> dict[tuple[str, int, bool], float]:
    lines = (folder / "curve.jsonl").read_text().splitlines()
    found = {}
    for point in map(json.loads, lines):
        key = (point["stage"], point["step"], "eval_loss" in point)
        assert key not in found
        found[key] = point.get("eval_loss", point.get("loss"))
    return found


def test_a_stopped_run_goes_on_as_if_it_never_stopped(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    from recallm_core.train.sft.train import open_run, train
    from recallm_core.train.sft.trainer import Interrupt, InterruptedRunError

    config = settings(checkpoints["llama"])
    straight = train(open_run(config, tmp_path / "straight"))
    broken = tmp_path / "broken"
    ended = Interrupt.on_step_end
    asked: list[int] = []

    def ask_at_three(self: Interrupt, args: Any, state: Any, control: Any, **more: Any) -> Any:
        if state.global_step == 3 and len(asked) < 2:
            asked.append(3)
            signal.raise_signal(signal.SIGINT)
        return ended(self, args, state, control, **more)

    monkeypatch.setattr(Interrupt, "on_step_end", ask_at_three)
    for stage in ("embeddings", "all-weights"):
        with pytest.raises(InterruptedRunError, match=f"step 3 of 6 of stage {stage}; the same"):
            train(open_run(config, broken))
        half = broken / stage / "checkpoint-9"
        half.mkdir()  # as a kill amid a checkpoint leaves it
        (half / "trainer_state.json").write_text("{")
    resumed = train(open_run(config, broken))
    assert straight is not None
    assert resumed is not None
    assert points(broken) == pytest.approx(points(tmp_path / "straight"), rel=1e-5)
    weights = [load_file(folder / "model.safetensors") for folder in (straight, resumed)]
    for name, value in weights[0].items():
        assert (value - weights[1][name]).abs().max() < 1e-5
    assert not list(broken.glob("*/checkpoint-*"))
    assert (broken / "curve.png").stat().st_size > 1000


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_run_learns_and_gives_a_checkpoint_that_quotes(
    checkpoints: Checkpoints, tmp_path: Path, kind: str
) -> None:
    from recallm_core import Document, GenerationParams, RecaLLM
    from recallm_core.cli.model import describe
    from recallm_core.train.sft.train import open_run, train

    epochs = {"embeddings": {"epochs": 1, "lr": 1e-2}, "all_weights": {"epochs": 2, "lr": 5e-3}}
    config = settings(checkpoints[kind], examples=24, log_every=1, save_every=100, **epochs)
    made = train(open_run(config, tmp_path))
    assert made is not None
    assert train(open_run(config, tmp_path)) == made  # done: nothing is trained again
    before, after = describe(str(checkpoints[kind])), describe(str(made))
    assert {**before, "model": "", "weights_bytes": 0} == {**after, "model": "", "weights_bytes": 0}
    for stage in ("embeddings", "all-weights"):
        losses = [
            v for (s, _, is_eval), v in points(tmp_path).items() if (s, is_eval) == (stage, 0)
        ]
        assert sum(losses[-3:]) < sum(losses[:3])
    llm = RecaLLM.load(made)
    assert llm.recipe.mode == "trained"
    document = Document("The ferry to Skerry leaves at 9:30 from pier 7.", "ferry")
    params = GenerationParams(answer_form="quote", max_new_tokens=60)
    answer = llm.answer("When does the ferry leave?", [document], params=params)
    assert answer.citations
    for citation in answer.citations:
        assert document.text[citation.start : citation.end] == citation.text


def test_another_config_and_a_missing_first_stage_are_refused(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    from recallm_core.train.sft.train import open_run, train

    config = settings(checkpoints["qwen2"])
    with pytest.raises(RecallmError, match="run --stage embeddings first"):
        train(open_run(config, tmp_path), ("all-weights",))
    other = settings(checkpoints["qwen2"], seed=2)
    with pytest.raises(RecallmError, match="whose seed differ; take another --out"):
        train(open_run(other, tmp_path))


def test_a_base_without_a_recipe_is_refused(checkpoints: Checkpoints, tmp_path: Path) -> None:
    from recallm_core.train.sft.train import open_run

    base = checkpoints["qwen2"].with_name("qwen2-base")
    with pytest.raises(CheckpointError, match="recallm model create"):
        open_run(settings(base), tmp_path)


def test_a_look_first_shows_counts_lengths_and_a_row(
    checkpoints: Checkpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from recallm_core.cli.train import main

    config = tmp_path / "c.toml"
    config.write_text(
        "examples = 6\nmax_tokens = 700\ncontext_tokens = [40, 90]\n[tasks]\nabsent = 1"
    )
    model = str(checkpoints["qwen2"])
    assert main(["sft", "--config", str(config), "--model", model, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "6 for training, 175 for validation" in shown
    assert "5 on the new rows, 1 on all weights" in shown
    assert "absent 6" in shown
    assert "<|start_recall|>" in shown
    assert "The documents don't say." in shown


def test_rows_follow_from_seed_and_number(checkpoints: Checkpoints, tmp_path: Path) -> None:
    from recallm_core.train.sft.train import open_run

    runs = [open_run(settings(checkpoints["qwen2"], seed=s), tmp_path) for s in (1, 1, 2)]
    ids = [[run.train[n].ids.tolist() for n in range(4)] for run in runs]
    assert ids[0] == ids[1]
    assert ids[0] != ids[2]
    watched = [runs[0].validation[n].ids.tolist() for n in range(2)]
    assert not any(row in ids[0] for row in watched)


def test_the_share_with_working_is_that_of_the_config(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    from recallm_core.train.sft.report import report
    from recallm_core.train.sft.train import open_run

    def run(working: float, **changes: Any) -> Any:
        values = {"examples": 60, "working": working, "max_tokens": 500} | changes
        return open_run(settings(checkpoints["qwen2"], **values), tmp_path)

    assert not any(run(0.0).train[number].task.endswith("working") for number in range(20))
    behind = [run(0.3).train[number].task.endswith("working") for number in range(60)]
    assert 8 < sum(behind) < 29  # however many are too long and drawn again
    shown = report(run(1.0, examples=4))
    assert "key_value behind working" in shown
    assert "--- one with working before its quote ---" in shown


def test_examples_that_cannot_fit_say_so(checkpoints: Checkpoints, tmp_path: Path) -> None:
    from recallm_core.train.sft.train import open_run

    run = open_run(settings(checkpoints["qwen2"], max_tokens=90), tmp_path)
    with pytest.raises(RecallmError, match="raise max_tokens or lower context_tokens"):
        _ = run.train[0]


def test_own_texts_and_examples_are_used(
    checkpoints: Checkpoints, tmp_path: Path, make_page_text: Callable[[int], str]
) -> None:
    from recallm_core.train.sft.train import open_run

    (tmp_path / "texts").mkdir()
    for number in range(6):
        (tmp_path / "texts" / f"{number}.md").write_text(make_page_text(number))
    own = {
        "documents": [{"text": "Ice melts at 0 degrees."}],
        "question": "When does ice melt?",
        "thinking": ["It says:", {"document": 0, "quote": "at 0 degrees"}],
        "answer": "at 0 degrees",
    }
    (tmp_path / "own.jsonl").write_text(json.dumps(own))
    config = settings(
        checkpoints["qwen2"],
        tasks={"own": 1, "sentence_with": 1, "next_sentence": 1},
        texts=[str(tmp_path / "texts")],
        lessons=[str(tmp_path / "own.jsonl")],
        max_tokens=2000,
    )
    run = open_run(config, tmp_path)
    tasks = {run.train[number].task for number in range(12)}
    assert tasks == {"own", "sentence", "next_sentence"}


@pytest.fixture
def make_page_text() -> Callable[[int], str]:
    from recallm_core.train.tasks.templates import make_page

    return lambda seed: make_page(random.Random(seed), 12).text
