"""The mini's training loop: seeded, resumable by step, with its curve as JSON lines."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from recallm_core.models.writing import whole_file
from recallm_core.train.mini.model import Mini, MiniShape
from recallm_core.train.mini.optimizer import Muon
from recallm_core.train.reader.train import Round
from recallm_core.train.tasks.tasks import SIZES, Mixture
from recallm_core.train.tasks.traces import EncodedTrace, Encoder

_GROUP = 8  # batches whose examples are drawn together and sorted by length


@dataclass(frozen=True, slots=True)
class Phase:
    """What the batches are like from a step on.

    Attributes:
        from_step: First step; batches are drawn in groups of 8, so a multiple of 8.
        batch_tokens: Tokens of one step, without padding.
        sizes: Share of each size of example.
    """

    from_step: int
    batch_tokens: int
    sizes: dict[str, float]


@dataclass(frozen=True, slots=True)
class MiniConfig:
    """All that a run depends on, besides the data.

    Attributes:
        seed: Everything random follows from it.
        steps: Optimizer steps of the whole run.
        lr: Muon's rate for matrices.
        adam_lr: Adam's rate for embeddings, norms and biases.
        decay_from: Share of the run after which the rates fall linearly to a twentieth.
        tasks: Share of each task.
        phases: What the batches are like, in order; the first begins at step 0.
        shape: Sizes of the network.
        threads: torch threads.
        save_every: Steps between checkpoints.
        data: Whether the data folder is read, or only generated tasks are used.
        reader: The rounds in which the evidence reader is trained.
    """

    seed: int = 1
    steps: int = 3600
    lr: float = 0.02
    adam_lr: float = 0.003
    decay_from: float = 0.4
    tasks: dict[str, float] = field(default_factory=dict)
    phases: tuple[Phase, ...] = ()
    shape: MiniShape = field(default_factory=MiniShape)
    threads: int = 1
    save_every: int = 100
    data: bool = True
    reader: tuple[Round, ...] = ()


def rate(config: MiniConfig, step: int) -> float:
    """Returns the factor on both learning rates at a step."""
    warm = min(1.0, (step + 1) / 30)
    begin = config.decay_from * config.steps
    decay = (config.steps - step) / max(1.0, config.steps - begin)
    return warm * max(0.05, min(1.0, decay))


def phase_at(config: MiniConfig, step: int) -> Phase:
    """Returns the phase that holds at a step."""
    return [phase for phase in config.phases if phase.from_step <= step][-1]


class Batches(IterableDataset[dict[str, Tensor]]):
    """Batches from a step on; batch ``n`` depends on the seed and ``n`` alone."""

    def __init__(
        self, config: MiniConfig, mixture: Mixture, encoder: Encoder, first_step: int
    ) -> None:
        self.config = config
        self.mixture = mixture
        self.encoder = encoder
        self.first_step = first_step

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yields batches until the configured number of steps."""
        step = self.first_step
        while step < self.config.steps:
            group = step // _GROUP
            for batch in self.group(group)[step - group * _GROUP :]:
                if step < self.config.steps:
                    yield batch
                step += 1

    def group(self, number: int) -> list[dict[str, Tensor]]:
        """Returns the batches of one group: examples of like length together."""
        rng = random.Random(f"{self.config.seed}:{number}")
        phase = phase_at(self.config, number * _GROUP)
        names, weights = list(phase.sizes), list(phase.sizes.values())
        rows: list[EncodedTrace] = []
        area = 0
        while area < _GROUP * phase.batch_tokens:
            size = SIZES[rng.choices(names, weights)[0]]
            example = self.mixture.draw(rng, size)
            row = self.encoder.encode(example, rng, tilted=rng.random() < 0.75, limit=2048)
            if row is not None:
                rows.append(row)
                area += len(row.ids)
        rows.sort(key=lambda row: len(row.ids))
        shares = np.cumsum([len(row.ids) for row in rows]) / area
        cuts = np.searchsorted(shares, np.arange(1, _GROUP) / _GROUP)
        pieces = [part.tolist() for part in np.split(np.arange(len(rows)), cuts)]
        batches = [collate([rows[i] for i in part], rng) for part in pieces if part]
        while len(batches) < _GROUP:
            batches.append(batches[-1])
        rng.shuffle(batches)
        return batches


def collate(rows: list[EncodedTrace], rng: random.Random) -> dict[str, Tensor]:
    """Pads rows to one batch; positions of the question on may jump ahead, as in long contexts."""
    length = max(len(row.ids) for row in rows)
    ids = np.zeros((len(rows), length), np.int64)
    positions = np.tile(np.arange(length), (len(rows), 1))
    plain, choices, copies, answers, retrievals = [], [], [], [], []
    supports: list[tuple[np.ndarray, np.ndarray]] = []
    for b, row in enumerate(rows):
        ids[b, : len(row.ids)] = row.ids
        if rng.random() < 0.3:
            positions[b, row.prompt_length - 1 :] += int(rng.random() ** 2 * 13_000)
            positions[b] += rng.randint(0, 300)
        plain += [(b, *item) for item in row.plain]
        copies += [(b, *item) for item in row.copies if rng.random() < 0.4]
        answers += [(b, *item) for item in row.answers]
        retrievals += [(b, *item) for item in row.retrievals]
        for choice in row.choices:
            kind = ("evidence", "answer", "inside").index(choice.kind)
            choices.append((b, choice.position, choice.target, choice.weight, kind))
            supports.append((choice.support, choice.tilt))
    widest = max(len(support) for support, _ in supports)
    support = np.zeros((len(supports), widest), np.int64)
    tilt = np.full((len(supports), widest), -np.inf, np.float32)
    for n, (tokens, added) in enumerate(supports):
        support[n, : len(tokens)] = tokens
        tilt[n, : len(tokens)] = added
    tables: dict[str, list[Any]] = {"plain": plain, "choices": choices, "copies": copies}
    tables["answers"] = answers
    tables["retrievals"] = retrievals
    batch = {name: _table(rows_) for name, rows_ in tables.items()}
    batch |= {"ids": torch.from_numpy(ids), "positions": torch.from_numpy(positions)}
    batch |= {"support": torch.from_numpy(support), "tilt": torch.from_numpy(tilt)}
    return batch


def _table(rows: list[Any]) -> Tensor:
    columns = 4
    return torch.tensor(rows or np.zeros((0, columns)), dtype=torch.float32)


def losses(model: Mini, batch: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Returns weighted sums and plain means of every loss of a batch."""
    states, watched = model(batch["ids"], batch["positions"], dtype)
    plain, choices = batch["plain"], batch["choices"]
    b, t, target = (plain[:, i].long() for i in range(3))
    row = F_cross_entropy(model.logits(states[b, t]).float(), target)
    total = (row * plain[:, 3]).sum()
    out = {"plain": row.detach().mean()}
    b, t, target, kind = (choices[:, i].long() for i in (0, 1, 2, 4))
    logits = model.logits(states[b, t]).float().gather(1, batch["support"]) + batch["tilt"]
    row = F_cross_entropy(logits, target)
    total = total + (row * choices[:, 3]).sum()
    right = (logits.argmax(1) == target).float()
    for number, name in enumerate(("evidence", "answer", "inside")):
        of_kind = kind == number
        if of_kind.any():
            out[name] = row[of_kind].detach().mean()
            out[name + "_right"] = right[of_kind].mean()
    scale = 1.0 / math.sqrt(model.shape.head_width)
    for name, table, share in (
        ("copy", batch["copies"], 0.3),
        ("answer", batch["answers"], 1.0),
    ):
        scores = getattr(watched, name)
        row = _attention_loss(scores, table, scale, exact=True)
        total = total + share * row.sum()
        out[name + "_head"] = row.detach().mean()
    row = _attention_loss(watched.retrieve, batch["retrievals"], scale, exact=False)
    out["retrieve_head"] = row.detach().mean()
    out["total"] = total + 0.5 * row.sum()
    return out


def F_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:  # noqa: N802
    """Cross entropy of each row."""
    return nn.functional.cross_entropy(logits, target, reduction="none")


def _attention_loss(scores: Tensor, table: Tensor, scale: float, *, exact: bool) -> Tensor:
    """Minus the log of the attention on one key, or on a range of keys, for each row."""
    if not len(table):
        return scores.new_zeros(0, dtype=torch.float32)
    b, t, first = (table[:, i].long() for i in range(3))
    rows = scores[b, t].float() * scale
    keys = torch.arange(rows.shape[1], device=rows.device)
    logs = rows.masked_fill(keys > t[:, None], -torch.inf).log_softmax(-1)
    if exact:
        return -logs.gather(1, first[:, None])[:, 0]
    inside = (keys >= first[:, None]) & (keys < table[:, 3].long()[:, None])
    return -logs.masked_fill(~inside, -torch.inf).logsumexp(-1)


class Trainer:
    """Holds a run: model, averaged weights, optimizers, the step reached."""

    def __init__(
        self, config: MiniConfig, mixture: Mixture, tokenizer: Tokenizer, folder: Path
    ) -> None:
        self.config, self.mixture, self.folder = config, mixture, folder
        self.encoder = Encoder(tokenizer)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.set_num_threads(config.threads)
        self.model = Mini(config.shape, config.seed).to(self.device)
        self.average = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, p in self.model.named_parameters():
            (matrices if p.ndim == 2 and name != "embed" else others).append(p)
        self.muon = Muon(matrices, config.lr)
        self.adam = torch.optim.Adam(others, config.adam_lr, betas=(0.9, 0.98), fused=True)
        self.step = 0

    @property
    def checkpoint(self) -> Path:
        """Where the run is saved."""
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Saves the run; a broken write leaves the older file in place."""
        state = {
            "step": self.step,
            "config": asdict(self.config),
            "model": self.model.state_dict(),
            "average": self.average,
            "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(),
        }
        with whole_file(self.checkpoint) as aside:
            torch.save(state, aside)

    def resume(self) -> bool:
        """Loads the saved run, if there is one; says whether there was."""
        if not self.checkpoint.is_file():
            return False
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        return True

    def batches(self, workers: int) -> Iterable[dict[str, Tensor]]:
        """Returns the batches from the current step on."""
        rows = Batches(self.config, self.mixture, self.encoder, self.step)
        return DataLoader(rows, batch_size=None, num_workers=workers)

    def run(self, *, workers: int = 1, every: int = 20) -> list[dict[str, float]]:
        """Trains to the last step; returns the curve, which is also appended to curve.jsonl."""
        self.folder.mkdir(parents=True, exist_ok=True)
        loader = self.batches(workers)
        curve: list[dict[str, float]] = []
        window: list[dict[str, float]] = []
        began, tokens = time.perf_counter(), 0
        for batch in loader:
            window.append(self.update(batch))
            tokens += batch["ids"].numel()
            if self.step % every == 0 or self.step == self.config.steps:
                point = _mean(window) | {"step": float(self.step), "tokens": float(tokens)}
                point["seconds"] = round(time.perf_counter() - began, 1)
                curve.append(point)
                window = []
                with (self.folder / "curve.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps({k: round(v, 4) for k, v in point.items()}) + "\n")
            if self.step % self.config.save_every == 0 or self.step == self.config.steps:
                self.save()
        return curve

    def update(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """Takes one optimizer step."""
        batch = {name: part.to(self.device) for name, part in batch.items()}
        factor = rate(self.config, self.step)
        for optimizer, base in ((self.muon, self.config.lr), (self.adam, self.config.adam_lr)):
            for group in optimizer.param_groups:
                group["lr"] = base * factor
            optimizer.zero_grad(set_to_none=True)
        sums = losses(self.model, batch, torch.bfloat16)
        torch.autograd.backward(sums["total"] / 1365)
        self.muon.step()
        self.adam.step()
        self.step += 1
        keep = min(0.995, self.step / (self.step + 10))
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                self.average[name].lerp_(p, 1 - keep)
        return {name: float(value.detach()) for name, value in sums.items()}


def _mean(window: list[dict[str, float]]) -> dict[str, float]:
    names = sorted({name for point in window for name in point})
    return {n: float(np.mean([p[n] for p in window if n in p])) for n in names}
