"""The page that goes with an adapter: what it goes on, how it was trained, and what isn't known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recallm_core.train.adapter_page import adapter_page, shares
from recallm_core.train.sft.config import SftConfig

_ABOUT = """\
An adapter of rank {rank} for {base}, and the rows of four tokens with which it opens and closes
quotes by itself."""
_TRAINING = """\
`recallm train sft` over {examples:,} rows of at most {tokens:,} tokens, seed {seed}, rate {lr:g},
{batch} rows a step. Tasks: {tasks}.

| step | validation loss |
| --- | --- |
{curve}"""


def card(config: SftConfig, base: str, name: str, curve: Sequence[Mapping[str, Any]]) -> str:
    """Returns the page of an adapter.

    Args:
        config: Of its run.
        base: What it goes on.
        name: What it is called.
        curve: Points of the run's curve.
    """
    seen = {p["step"]: p["eval_loss"] for p in curve if "eval_loss" in p}
    rows = [f"| {step:,} | {loss:.3f} |" for step, loss in seen.items()]
    training = _TRAINING.format(
        examples=config.examples,
        tokens=config.max_tokens,
        seed=config.seed,
        lr=config.all_weights.lr,
        batch=config.global_batch,
        tasks=shares(config.tasks),
        curve="\n".join(rows) or "| - | not watched |",
    )
    return adapter_page(
        base,
        name,
        about=_ABOUT.format(rank=config.adapter_rank, base=base),
        training=training,
        other="the same base, prompted",
        commands=(
            f"recallm eval cited --model {name} --policy free,free/reader --out runs/trained",
            f"recallm eval cited --model {base} --out runs/prompted",
        ),
    )
