"""What one constrained step costs, mask written, against a rescan of the context in torch.

    python benchmarks/constrained_step.py [--sizes 4096 32768 131072 1048576] [--batches 1 8 64]

A step is what a decoding loop pays on top of the model: ask which tokens are legal, put all other
logits at minus infinity, consume the chosen token. Spans of 64 tokens start at random places. The
rescan compares every window of the context with the copied tokens anew in each step, as a sliding
window in torch does. All times are CPU time of one thread; the machine may be busy.
"""

from __future__ import annotations

import argparse
import gc
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from recallm_core.decoding.constraint import Constraint, ConstraintRules, Mask, build_index
from recallm_core.decoding.spec import ConstraintSpec, Tag, hash_tokens

VOCAB = 151_936
OPEN, CLOSE, EOS = VOCAB - 3, VOCAB - 2, VOCAB - 1
SPAN = 64
SPANS = {1: 12, 8: 4, 64: 1}
RESCAN_STEPS = (1, 8, 24, 48, 63)  # lengths of the copied prefix at which the rescan is timed


def contexts(kind: str, size: int) -> np.ndarray:
    """Token ids: as words in text are distributed, one sentence over and over, or one token."""
    rng = np.random.default_rng(0)
    if kind == "zipf":
        return np.minimum(rng.zipf(1.2, size), 100_000).astype(np.int32)
    if kind == "repetitive":
        return np.resize(rng.integers(0, 100_000, 256), size).astype(np.int32)
    return np.full(size, 7, dtype=np.int32)


def make_rules(ids: np.ndarray) -> ConstraintRules:
    """One run over the whole context; a span may begin and end anywhere."""
    everywhere = np.ones(len(ids), dtype=np.bool_)
    spec = ConstraintSpec(
        prompt_length=len(ids),
        prompt_hash=hash_tokens(ids),
        vocab_size=VOCAB,
        runs=((0, len(ids)),),
        can_start=everywhere,
        can_end=everywhere,
        can_end_hard=everywhere,
        open=Tag("<|start_recall|>", (OPEN,)),
        close=Tag("<|end_recall|>", (CLOSE,)),
        think_close=None,
        thinking=False,
        eos=(EOS,),
        max_span_tokens=2 * SPAN,
        max_spans=10_000,
    )
    return ConstraintRules(spec, build_index(spec, ids))


def write(row: torch.Tensor, view: np.ndarray, mask: Mask) -> None:
    """Puts a row's illegal logits at minus infinity, in place; ``view`` shares its memory."""
    if mask.only is None:
        view[mask.forbid] = -np.inf
        return
    kept = view[mask.only]
    row.fill_(-torch.inf)
    view[mask.only] = kept


def rescan(context: torch.Tensor, prefix: list[int], logits: torch.Tensor) -> torch.Tensor:
    """One step of the sliding window: every window is compared with the prefix."""
    length = len(prefix)
    if length:
        windows = context[:-1].unfold(0, length, 1)
        hits = (windows == torch.tensor(prefix)).all(dim=-1)
        allowed = torch.unique(context[length:][hits])
    else:
        allowed = torch.unique(context)
    mask = torch.full_like(logits, -torch.inf)
    mask[allowed] = 0
    mask[CLOSE] = 0
    return logits + mask


@dataclass
class Timing:
    """Microseconds for one step of a whole batch."""

    first: list[float]
    later: list[float]


def time_ours(rules: ConstraintRules, ids: np.ndarray, batch: int) -> Timing:
    """Copies spans from random places, a step at a time for the whole batch."""
    rng = np.random.default_rng(1)
    logits = torch.randn(batch, VOCAB)
    timing = Timing([], [])
    for _ in range(SPANS[batch]):
        starts = rng.integers(0, len(ids) - SPAN - 1, batch)
        rows = [rules.start() for _ in range(batch)]
        for row in rows:
            row.consume(OPEN)
        gc.collect()
        for step in range(SPAN):
            tokens = ids[starts + step].tolist()
            timing_list = timing.later if step else timing.first
            timing_list.append(time_step(rows, logits, tokens))
    return timing


def time_step(rows: list[Constraint], logits: torch.Tensor, tokens: list[int]) -> float:
    """One step of every row."""
    views = logits.numpy()
    began = time.thread_time_ns()
    for row, view, constraint, token in zip(logits, views, rows, tokens, strict=True):
        write(row, view, constraint.mask())
        constraint.consume(token)
    return (time.thread_time_ns() - began) / 1000


def time_rescan(ids: np.ndarray, batch: int) -> Timing:
    """The same for the rescan, at a few lengths of the prefix; one row, times the batch."""
    context = torch.from_numpy(ids.astype(np.int64))
    logits = torch.randn(VOCAB)
    start = len(ids) // 3
    timing = Timing([], [])
    for length in (0, *RESCAN_STEPS):
        prefix = ids[start : start + length].tolist()
        began = time.thread_time_ns()
        rescan(context, prefix, logits)
        spent = (time.thread_time_ns() - began) / 1000 * batch
        (timing.later if length else timing.first).append(spent)
    return timing


def commit() -> str:
    """The commit that is measured."""
    root = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[1 << 12, 1 << 15, 1 << 17, 1 << 20]
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--kinds", nargs="+", default=["zipf", "repetitive", "identical"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"machine: {platform.processor() or platform.machine()}, {platform.platform()}, 1 thread")
    print(f"commit: {commit()}; torch {torch.__version__}; vocabulary {VOCAB:,}")
    print(f"command: python {' '.join(sys.argv)}\n")
    print("microseconds of CPU time per step of the whole batch, mask written\n")
    print("| context | tokens | batch | opens a span | median | p99 | rescan, median | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for size in options.sizes:
        for kind in options.kinds:
            ids = contexts(kind, size)
            rules = make_rules(ids)
            slow = time_rescan(ids, 1)
            for batch in options.batches:
                ours = time_ours(rules, ids, batch)
                median, theirs = np.median(ours.later), np.median(slow.later) * batch
                print(
                    f"| {kind} | {size:,} | {batch} | {np.median(ours.first):,.0f} "
                    f"| {median:,.1f} | {np.percentile(ours.later, 99):,.0f} "
                    f"| {theirs:,.0f} | {theirs / median:,.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
