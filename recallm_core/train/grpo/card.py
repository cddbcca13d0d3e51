"""The page that goes with an adapter of ``recallm train grpo``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recallm_core.train.adapter_page import adapter_page, shares
from recallm_core.train.grpo.config import GrpoConfig

_ABOUT = """\
An adapter of rank {rank} for {base}{rows}. It opens and closes quotes by itself."""
_TRAINING = """\
{began}`recallm train grpo`: {steps:,} steps of {prompts:,} problems, {rollouts:,} attempts at
each, seed {seed}, rate {lr:g}. Families: {families}.

| steps | mean reward | mean reward of what was quoted |
| --- | --- | --- |
{curve}"""
_PARTS = 5  # of a run, in the table


def card(
    config: GrpoConfig, base: str, name: str, rank: int, curve: Sequence[Mapping[str, Any]]
) -> str:
    """Returns the page of an adapter.

    Args:
        config: Of its run.
        base: What it goes on.
        name: What it is called.
        rank: Of the adapter; more than the run's where it holds an earlier one.
        curve: Points of the run's curve.
    """
    goes_on = rank > config.adapter_rank
    rows = ", and the rows of four tokens" if goes_on else ""
    training = _TRAINING.format(
        began="On from an earlier adapter, which is part of it, by " if goes_on else "",
        steps=config.steps,
        prompts=config.prompts,
        rollouts=config.rollouts,
        seed=config.seed,
        lr=config.lr,
        families=shares(config.families),
        curve="\n".join(_rows(curve)) or "| - | not watched | - |",
    )
    ways = "--policy free,free/reader"
    return adapter_page(
        base,
        name,
        about=_ABOUT.format(rank=rank, base=base, rows=rows),
        training=training,
        other="what the run began with",
        commands=(
            f"recallm eval cited --model {name} {ways} --out runs/rewarded",
            f"recallm eval cited --model {config.model} {ways} --out runs/before",
        ),
    )


def _rows(curve: Sequence[Mapping[str, Any]]) -> list[str]:
    """Means over equal parts of a run, so that one batch says little."""
    points = [point for point in curve if "all/total" in point]
    size = max(1, -(-len(points) // _PARTS))
    parts = [points[first : first + size] for first in range(0, len(points), size)]
    return [
        f"| {part[0]['step']:,} to {part[-1]['step']:,} | {_mean(part, 'all/total'):.3f} "
        f"| {_mean(part, 'all/retrieval'):.3f} |"
        for part in parts
    ]


def _mean(points: Sequence[Mapping[str, Any]], name: str) -> float:
    return sum(float(point[name]) for point in points) / len(points)
