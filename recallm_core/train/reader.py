"""Trains the evidence reader: where in a passage an answer stands, or that it isn't there.

    python -m recallm_core.train.reader --teacher FOLDER --run FOLDER [--steps N] [--out FOLDER]

``--teacher`` is a folder of all-MiniLM-L6-v2 (Apache-2.0), whose weights the reader starts from;
its hashes are checked before anything is loaded. With ``--start`` it goes on from the weights of a
reader that was exported before. The data folder is RECALLM_DATA. Interrupted, the same command goes
on from the last checkpoint; ``--out`` gets the folder that ``reader.EvidenceReader`` loads.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import log_softmax

from recallm_core.errors import RecallmError
from recallm_core.model_files import whole_tokenizer
from recallm_core.reader import END, EVIDENCE, SIZE_LIMITS, START, padded, read_weights
from recallm_core.train.reader_rows import Row, RowSource, batches
from recallm_core.train.readers import data_folder, read_pool
from recallm_core.train.static_embedder import verify_teacher

_WATCH_EVERY = 250
_TELL_EVERY = 50


def tensors(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Pads rows to one width."""
    return padded([row.ids for row in rows], [row.kinds for row in rows])


def loss_of(logits: Tensor, rows: Sequence[Row], mask: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Cross entropy of start, end and evidence, over a row's text and its first token."""
    allowed = torch.zeros(mask.shape, dtype=torch.bool)
    for n, row in enumerate(rows):
        allowed[n, row.heads[0] : len(row.ids) - 1] = True
        allowed[n, 0] = True
    masked = logits.float().masked_fill(~allowed[:, :, None], -1e4)
    asked = [n for n, row in enumerate(rows) if row.start >= 0]
    parts = []
    for kind in (START, END):
        target = torch.tensor([(rows[n].start, rows[n].end)[kind] for n in asked])
        parts.append(-log_softmax(masked[asked, :, kind], 1)[range(len(asked)), target].mean())
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
    def write(self) -> None:
        """Sets the live weights to the copies."""
        for live, copy in zip(self._live, self.copies, strict=True):
            live.copy_(copy)


def make_model(teacher: Path) -> Any:
    """Returns the encoder with three fresh outputs a token; its word table stays as it is."""
    from transformers import BertForTokenClassification

    verify_teacher(teacher)
    model = BertForTokenClassification.from_pretrained(
        str(teacher), num_labels=3, use_safetensors=True, attn_implementation="sdpa"
    )
    model.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    return model.to(torch.bfloat16)


def set_weights(model: Any, reader: Path) -> None:
    """Sets what is trained to the weights of an exported reader.

    Raises:
        CheckpointError: They are incomplete, or of another shape.
    """
    learnt = {name: value for name, value in model.named_parameters() if value.requires_grad}
    found = read_weights(reader / "model.safetensors", learnt)
    with torch.no_grad():
        for name, value in learnt.items():
            value.copy_(found[name])


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
            for row, logits in zip(part, model(**tensors(part)).logits.float(), strict=True):
                _watch_row(row, logits, right, sure)
    model.train()
    low, high = (np.array(found) for found in sure)
    auroc = float((high[:, None] > low[None, :]).mean()) if len(low) and len(high) else 0.0
    means = np.mean(right, axis=0) if right else np.zeros(3)
    both = float(np.mean([s and e for s, e, _ in right])) if right else 0.0
    names = ("start", "end", "evidence")
    return {"auroc": auroc, "both": both} | {k: float(v) for k, v in zip(names, means, strict=True)}


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
class Plan:
    """How long and how fast a run learns."""

    steps: int = 3400
    lr: float = 1.5e-4
    seed: int = 1


class Run:
    """One training run in a folder; goes on where it was saved.

    Args:
        teacher: The encoder that it starts from.
        folder: Checkpoint and curve.
        plan: How long and how fast.
        start: A reader whose weights it starts from instead.
    """

    def __init__(self, teacher: Path, folder: Path, plan: Plan, start: Path | None = None) -> None:
        self._folder, self._plan = folder, plan
        torch.manual_seed(plan.seed)
        pool = read_pool(data_folder())
        self._source = RowSource(pool, whole_tokenizer(teacher / "tokenizer.json"))
        draws = random.Random(7)
        self._watched = [row for f in pool.held_out for row in self._source.of_fact(f, draws)]
        self._model = make_model(teacher)
        if start is not None:
            set_weights(self._model, start)
        self._masters = Masters(self._model, plan.lr)
        self._step = _restored(folder, self._masters)

    def train(self) -> None:
        """Trains to the last step, saving on the way."""
        plan, began, told = self._plan, time.time(), []
        self._model.train()
        while self._step < plan.steps:
            for rows in batches(self._source, random.Random(f"{plan.seed}:{self._step}")):
                if self._step < plan.steps:
                    told.append(self._learn(rows))
                if self._step % _TELL_EVERY == 0 and told:
                    self._tell(told, time.time() - began)
                    told = []
        self._save()

    def _learn(self, rows: Sequence[Row]) -> dict[str, float]:
        batch = tensors(rows)
        total, parts = loss_of(self._model(**batch).logits, rows, batch["attention_mask"])
        torch.autograd.backward(total)
        self._step += 1
        self._masters.step(rate(self._step, self._plan.steps, self._plan.lr))
        return parts | {"tokens": float(batch["input_ids"].numel())}

    def _tell(self, told: Sequence[dict[str, float]], seconds: float) -> None:
        line: dict[str, float] = {"step": self._step, "seconds": round(seconds)}
        line |= {k: round(float(np.nanmean([t[k] for t in told])), 3) for k in told[0]}
        if self._step % _WATCH_EVERY == 0:
            line |= {f"held_{k}": round(v, 3) for k, v in watch(self._model, self._watched).items()}
            self._save()
        print(json.dumps(line), flush=True)  # noqa: T201  (a command's progress)
        with (self._folder / "curve.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")

    def _save(self) -> None:
        partial = self._folder / "run.partial"
        state = {"step": self._step, "copies": [c.detach() for c in self._masters.copies]}
        torch.save(state | {"adam": self._masters.adam.state_dict()}, partial)
        partial.replace(self._folder / "run.pt")


def _restored(folder: Path, masters: Masters) -> int:
    """Takes up what the folder holds; returns the step reached."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "run.pt").is_file():
        return 0
    state = torch.load(folder / "run.pt", weights_only=True)
    for copy, value in zip(masters.copies, state["copies"], strict=True):
        copy.data.copy_(value)
    masters.adam.load_state_dict(state["adam"])
    masters.write()
    return int(state["step"])


def export(teacher: Path, run: Path, out: Path) -> None:
    """Writes a run's weights as the folder that ``EvidenceReader`` loads: matrices as int8.

    Raises:
        RecallmError: The run has no checkpoint.
    """
    if not (run / "run.pt").is_file():
        raise RecallmError(f"no checkpoint in {run}; train first, without --export-only")
    model = make_model(teacher)
    copies = iter(torch.load(run / "run.pt", weights_only=True)["copies"])
    weights = {
        name: next(copies) if value.requires_grad else value.detach().float()
        for name, value in model.named_parameters()
    }
    config = json.loads((teacher / "config.json").read_text("utf-8"))
    write_folder(weights, config, whole_tokenizer(teacher / "tokenizer.json"), out)


def write_folder(
    weights: Mapping[str, Tensor], config: Mapping[str, Any], tokenizer: Tokenizer, out: Path
) -> None:
    """Writes a reader's folder: matrices as int8 with a scale per row, the rest in 16 bits."""
    tensors: dict[str, Tensor] = {}
    for name, value in weights.items():
        if value.ndim == 2:
            scale = value.abs().amax(1).clamp_min(1e-8) / 127
            tensors[name] = (value / scale[:, None]).round().to(torch.int8).contiguous()
            tensors[f"{name}.scale"] = scale
        else:
            tensors[name] = value.to(torch.float16)
    out.mkdir(parents=True, exist_ok=True)
    partial = out / "model.safetensors.partial"
    save_file(tensors, partial)
    partial.chmod(0o644)
    partial.replace(out / "model.safetensors")
    kept = {name: config[name] for name in SIZE_LIMITS}
    (out / "config.json").write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, or goes on training, and exports."""
    plan = Plan()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="checkpoints and curve")
    parser.add_argument("--out", type=Path, help="where the finished reader goes")
    parser.add_argument("--export-only", action="store_true", help="export the run as it is")
    parser.add_argument("--steps", type=int, default=plan.steps)
    parser.add_argument("--seed", type=int, default=plan.seed)
    parser.add_argument("--lr", type=float, default=plan.lr, help="highest learning rate")
    parser.add_argument("--start", type=Path, help="a reader whose weights the run starts from")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if not args.export_only:
        plan = replace(plan, steps=args.steps, seed=args.seed, lr=args.lr)
        Run(args.teacher, args.run, plan, args.start).train()
    if args.out is not None:
        export(args.teacher, args.run, args.out)


if __name__ == "__main__":
    main()
