"""What a run would train on, before it does: ``recallm train sft --dry-run``."""

from __future__ import annotations

from collections import Counter

import numpy as np

from recallm_core.train.sft.train import Run
from recallm_core.train.sft.trainer import steps
from recallm_core.train.tasks.tokenized import IGNORED, Row
from recallm_core.train.tasks.working import BEHIND

_LOOKED_AT = 200
_SHOWN = 1500  # characters of the prompt at each end


def report(run: Run) -> str:
    """Returns counts, lengths, steps and one rendered example as text."""
    config = run.config
    looked = min(len(run.train), _LOOKED_AT)
    rows = [run.train[number] for number in range(looked)]
    lengths = np.array([len(row.ids) for row in rows])
    completions = np.array([len(row.labels) for row in rows])
    learnt = sum(row.learnt for row in rows) / completions.sum()
    tasks = Counter(row.task for row in rows)
    rank = config.adapter_rank
    second = f"adapters of rank {rank}" if rank else "all weights"
    lines = [
        f"model        {run.base}",
        f"rows         {len(run.train):,} for training, {len(run.validation):,} for validation",
        f"steps        {steps(config, config.embeddings, len(run.train)):,} on the new rows, "
        f"{steps(config, config.all_weights, len(run.train)):,} on {second}, "
        f"{config.global_batch} rows each",
        f"tokens       {_spread(lengths)} (limit {config.max_tokens:,}), in {looked} rows",
        f"completions  {_spread(completions)}; {learnt:.0%} of their tokens carry loss",
        "tasks        " + ", ".join(f"{name} {count}" for name, count in tasks.most_common()),
        "",
        "--- one row (tokens that carry no loss, forced or given, between middle dots) ---",
        row_text(run, rows[0]),
    ]
    worked = next((row for row in rows[1:] if row.task.endswith(BEHIND)), None)
    if worked is not None:
        lines += ["", "--- one with working before its quote ---", row_text(run, worked)]
    return "\n".join(lines) + "\n"


def _spread(values: np.ndarray) -> str:
    low, mid, high = (int(v) for v in np.quantile(values, (0, 0.5, 1)))
    return f"{low:,} to {high:,}, median {mid:,}"


def row_text(run: Run, row: Row) -> str:
    """Returns a row as text; the middle of a long prompt is left out."""
    prompt = _text(run, row.ids[: row.prompt_length].tolist())
    if len(prompt) > 2 * _SHOWN:
        prompt = f"{prompt[:_SHOWN]}\n[...]\n{prompt[-_SHOWN:]}"
    out, forced = "", False
    for token, label in zip(row.ids[row.prompt_length :].tolist(), row.labels, strict=True):
        if (label == IGNORED) != forced:
            forced = not forced
            out += "\u00b7"
        out += _text(run, [token])
    return prompt + out


def _text(run: Run, ids: list[int]) -> str:
    return str(run.tokenizer.tokenizer.decode(ids, skip_special_tokens=False))
