"""The page that goes with an adapter of ``recallm train grpo``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recallm_core.train.grpo.config import GrpoConfig

_CARD = """\
---
base_model: {base}
library_name: peft
tags: [recallm, lora]
---

# {name}

An adapter of rank {rank} for {base}{rows}. It opens and closes quotes by itself.

```python
from recallm_core import RecaLLM

llm = RecaLLM.load("{name}", base="{base}")
answer = llm.answer("When does the ferry leave?", ["The ferry leaves at nine."])
```

## Training

{began}`recallm train grpo`: {steps:,} steps of {prompts:,} problems, {rollouts:,} attempts at
each, seed {seed}, rate {lr:g}. Families: {families}.

| steps | mean reward | mean reward of what was quoted |
| --- | --- | --- |
{curve}

## Evaluation

None is recorded here. Before you share it, compare it with what the run began with:

```
recallm eval cited --model {name} --policy free,free/reader --out runs/rewarded
recallm eval cited --model {start} --policy free,free/reader --out runs/before
```
"""
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
    shares = sorted(config.families.items(), key=lambda item: -item[1])
    goes_on = rank > config.adapter_rank
    return _CARD.format(
        base=base,
        name=name,
        rank=rank,
        rows=", and the rows of four tokens" if goes_on else "",
        began="On from an earlier adapter, which is part of it, by " if goes_on else "",
        start=config.model,
        steps=config.steps,
        prompts=config.prompts,
        rollouts=config.rollouts,
        seed=config.seed,
        lr=config.lr,
        families=", ".join(f"{family} {share:.0%}" for family, share in shares if share),
        curve="\n".join(_rows(curve)) or "| - | not watched | - |",
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
