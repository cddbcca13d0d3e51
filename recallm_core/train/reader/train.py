"""Trains the evidence reader: where in a passage an answer stands, or that it isn't there.

``recallm train reader`` and the second half of ``recallm train mini``. A run is some rounds, each
with a rate that rises and falls and a fresh optimizer. Interrupted, the same command goes on from
the last checkpoint.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from recallm_core.errors import RecallmError
from recallm_core.evidence.reader import END, EVIDENCE, START, pad_rows
from recallm_core.train.reader.base import Base, write_folder
from recallm_core.train.reader.examples import Row, RowSource, batches
from recallm_core.train.tasks.datasets import Fact, data_folder, read_pool

_WATCH_EVERY = 250
_TELL_EVERY = 50


def tensors(rows: Sequence[Row], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Pads rows to one width, where the model is."""
    arrays = pad_rows([row.ids for row in rows], [row.kinds for row in rows])
    return {name: part.to(device) for name, part in arrays.items()}


def loss_of(logits: Tensor, rows: Sequence[Row], mask: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Cross entropy of start, end and evidence, over a row's text and its first token."""
    allowed = torch.zeros(mask.shape, dtype=torch.bool)
    for n, row in enumerate(rows):
        allowed[n, row.heads[0] : len(row.ids) - 1] = True
        allowed[n, 0] = True
    masked = logits.float().masked_fill(~allowed.to(logits.device)[:, :, None], -1e4)
    answerable = [n for n, row in enumerate(rows) if row.start >= 0]
    parts = []
    for kind in (START, END):
        target = [(rows[n].start, rows[n].end)[kind] for n in answerable]
        parts.append(
            -log_softmax(masked[answerable, :, kind], 1)[range(len(answerable)), target].mean()
        )
    evidence = []
    for n, row in enumerate(rows):
        scores = logits[n, [0, *row.heads], EVIDENCE].float()
        evidence.append(-log_softmax(scores, 0)[row.evidence + 1])
    parts.append(torch.stack(evidence).mean())
    names = ("start", "end", "evidence")
    total = (parts[0] + parts[1]) / 2 + parts[2]
    return total, {name: float(part.detach()) for name, part in zip(names, parts, strict=True)}


class Masters:
    """AdamW over 32-bit copies of 16-bit weights."""

    def __init__(self, model: torch.nn.Module, lr: float) -> None:
        self._live = [p for p in model.parameters() if p.requires_grad]
        self.copies = [p.detach().float().clone().requires_grad_() for p in self._live]
        decayed = [c for c in self.copies if c.ndim > 1]
        plain = [c for c in self.copies if c.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
        self.adam = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), foreach=True)

    def step(self, lr: float) -> None:
        """Moves the copies by the gradients of the live weights, and the weights to the copies."""
        for live, copy in zip(self._live, self.copies, strict=True):
            copy.grad = None if live.grad is None else live.grad.float()
            live.grad = None
        torch.nn.utils.clip_grad_norm_(self.copies, 1.0)
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.adam.step()
        self.write()

    @torch.no_grad()
    def average(self, before: Sequence[Tensor], share: float) -> None:
        """Takes a share of earlier weights into the copies and the live weights."""
        for copy, earlier in zip(self.copies, before, strict=True):
            copy.lerp_(earlier, share)
        self.write()

    @torch.no_grad()
    def write(self) -> None:
        """Sets the live weights to the copies."""
        for live, copy in zip(self._live, self.copies, strict=True):
            live.copy_(copy)


def rate(step: int, steps: int, peak: float) -> float:
    """Warm-up over a twentieth of the run, then down to nothing."""
    warm = max(1, steps // 20)
    return peak * min(step / warm, max(0.0, (steps - step) / (steps - warm)))


def watch(model: Any, rows: Sequence[Row]) -> dict[str, float]:
    """Shares of right starts, ends and evidence, and how well windows without answer are told."""
    model.eval()
    right: list[tuple[bool, bool, bool]] = []
    sure: tuple[list[float], list[float]] = ([], [])
    with torch.inference_mode():
        for at in range(0, len(rows), 24):
            part = rows[at : at + 24]
            for row, logits in zip(part, _score(model, part), strict=True):
                _watch_row(row, logits, right, sure)
    model.train()
    low, high = (np.array(scores) for scores in sure)
    auroc = float((high[:, None] > low[None, :]).mean()) if len(low) and len(high) else 0.0
    means = np.mean(right, axis=0) if right else np.zeros(3)
    both = float(np.mean([s and e for s, e, _ in right])) if right else 0.0
    names = ("start", "end", "evidence")
    return {"auroc": auroc, "both": both} | {k: float(v) for k, v in zip(names, means, strict=True)}


def _score(model: Any, rows: Sequence[Row]) -> Tensor:
    logits: Tensor = model(**tensors(rows, model.device)).logits
    return logits.float().cpu()


def _watch_row(
    row: Row,
    logits: Tensor,
    right: list[tuple[bool, bool, bool]],
    sure: tuple[list[float], list[float]],
) -> None:
    text = logits[row.heads[0] : len(row.ids) - 1]
    null = logits[0, START] + logits[0, END]
    best = text[:, START].max() + text[:, END].max() - null
    sure[row.start > 0].append(float(best))
    if row.start > 0:
        start, end = (int(text[:, kind].argmax()) + row.heads[0] for kind in (START, END))
        evidence = int(logits[list(row.heads), EVIDENCE].argmax())
        right.append((start == row.start, end == row.end, evidence == row.evidence))


@dataclass(frozen=True, slots=True)
class Round:
    """A stretch of a run: how long and how fast it learns.

    Attributes:
        steps: Optimizer steps.
        lr: The highest rate.
        seed: The rows follow from it.
        average: Share of the weights that it began with in those that it ends with.
        dropout: Share of the activations that a step leaves out. Drawing them takes a third of a
            step's time on a processor; a round that meets hardly a question twice needs none.

    Raises:
        RecallmError: A share isn't one.
    """

    steps: int
    lr: float
    seed: int = 1
    average: float = 0.0
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Checks the shares."""
        for name in ("average", "dropout"):
            share = getattr(self, name)
            if not 0 <= share < 1:
                raise RecallmError(
                    f"a round's {name} should be a share from 0 to below 1, got {share!r}"
                )


class Run:
    """One training run in a folder; goes on where it was saved.

    Args:
        base: The encoder that it starts from.
        folder: Checkpoint and curve.
        rounds: What it does, in order.
        data: Whether the data folder is read, or only generated tasks are used.
        more: Further facts, learnt from beside the folder's.
    """

    def __init__(
        self,
        base: Base,
        folder: Path,
        rounds: Sequence[Round],
        *,
        data: bool = True,
        more: Sequence[Fact] = (),
    ) -> None:
        self._folder, self._rounds = folder, tuple(rounds)
        torch.manual_seed(rounds[0].seed)
        pool = read_pool(data_folder(), more=more) if data else None
        self._source = RowSource(pool, base.tokenizer())
        draws = random.Random(7)
        facts = pool.held_out if pool is not None else ()
        self._watched = [row for f in facts for row in self._source.of_fact(f, draws)]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = base.model().to(device)
        self._masters = Masters(self._model, rounds[0].lr)
        self._began = _copies(self._masters)
        self._round, self._step = _restore(folder, self._masters, self._began)

    def train(self) -> None:
        """Trains to the end of the last round, saving on the way."""
        self._model.train()
        while self._round < len(self._rounds):
            plan = self._rounds[self._round]
            self._train_round(plan)
            self._masters.average(self._began, plan.average)
            self._began = _copies(self._masters)
            self._round, self._step = self._round + 1, 0
            if self._round < len(self._rounds):
                self._masters = Masters(self._model, self._rounds[self._round].lr)
            self._save()

    def _train_round(self, plan: Round) -> None:
        _set_dropout(self._model, plan.dropout)
        began, lines = time.time(), []
        while self._step < plan.steps:
            for rows in batches(self._source, random.Random(f"{plan.seed}:{self._step}")):
                if self._step < plan.steps:
                    lines.append(self._learn(rows, plan))
                if lines and (self._step % _TELL_EVERY == 0 or self._step == plan.steps):
                    self._tell(lines, time.time() - began)
                    lines = []

    def _learn(self, rows: Sequence[Row], plan: Round) -> dict[str, float]:
        batch = tensors(rows, self._model.device)
        total, parts = loss_of(self._model(**batch).logits, rows, batch["attention_mask"])
        torch.autograd.backward(total)
        self._step += 1
        self._masters.step(rate(self._step, plan.steps, plan.lr))
        return parts | {"tokens": float(batch["input_ids"].numel())}

    def _tell(self, lines: Sequence[dict[str, float]], seconds: float) -> None:
        line: dict[str, float] = {"round": self._round + 1, "step": self._step}
        line["seconds"] = round(seconds)
        line |= {k: round(float(np.nanmean([t[k] for t in lines])), 3) for k in lines[0]}
        if self._step % _WATCH_EVERY == 0:
            line |= {f"held_{k}": round(v, 3) for k, v in watch(self._model, self._watched).items()}
            self._save()
        print(json.dumps(line), flush=True)  # noqa: T201  (a command's progress)
        with (self._folder / "curve.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")

    def _save(self) -> None:
        partial = self._folder / "run.partial"
        state: dict[str, Any] = {"round": self._round, "step": self._step}
        state["copies"] = [c.detach() for c in self._masters.copies]
        if any(plan.average for plan in self._rounds[self._round : self._round + 1]):
            state["began"] = self._began
        torch.save(state | {"adam": self._masters.adam.state_dict()}, partial)
        partial.replace(self._folder / "run.pt")


def _set_dropout(model: torch.nn.Module, share: float) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = share


def _copies(masters: Masters) -> list[Tensor]:
    return [copy.detach().clone() for copy in masters.copies]


def _restore(folder: Path, masters: Masters, began: list[Tensor]) -> tuple[int, int]:
    """Takes up what the folder holds; returns the round and the step reached.

    Args:
        folder: The run's.
        masters: Get the weights reached.
        began: Gets those that the round began with, where it averages.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "run.pt").is_file():
        return 0, 0
    state = torch.load(folder / "run.pt", map_location="cpu", weights_only=True)
    for copy, value in zip(masters.copies, state["copies"], strict=True):
        copy.data.copy_(value)
    masters.adam.load_state_dict(state["adam"])
    masters.write()
    began[:] = state.get("began", _copies(masters))
    return int(state["round"]), int(state["step"])


def export(base: Base, run: Path, out: Path) -> None:
    """Writes a run's weights as the folder that ``EvidenceReader`` loads: matrices as int8.

    Raises:
        RecallmError: The run has no checkpoint.
    """
    if not (run / "run.pt").is_file():
        raise RecallmError(f"no checkpoint in {run}; train first, without --export-only")
    copies = iter(torch.load(run / "run.pt", map_location="cpu", weights_only=True)["copies"])
    weights = {
        name: next(copies) if value.requires_grad else value.detach().float()
        for name, value in base.model().named_parameters()
    }
    write_folder(weights, base.config(), base.tokenizer(), out)
