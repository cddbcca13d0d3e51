"""The page that goes with an adapter: what it goes on, how it was trained, and what isn't known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recallm_core.train.sft.config import SftConfig

_CARD = """\
---
base_model: {base}
library_name: peft
tags: [recallm, lora]
---

# {name}

An adapter of rank {rank} for {base}, and the rows of four tokens with which it opens and closes
quotes by itself.

```python
from recallm_core import RecaLLM

llm = RecaLLM.load("{name}", base="{base}")
answer = llm.answer("When does the ferry leave?", ["The ferry leaves at nine."])
```

## Training

`recallm train sft` over {examples:,} rows of at most {tokens:,} tokens, seed {seed}, rate {lr:g},
{batch} rows a step. Tasks: {tasks}.

| step | validation loss |
| --- | --- |
{curve}

## Evaluation

None is recorded here. Before you share it, compare it with the same base, prompted:

```
recallm eval cited --model {name} --policy free,free/reader --out runs/trained
recallm eval cited --model {base} --out runs/prompted
```
"""


def card(config: SftConfig, base: str, name: str, curve: Sequence[Mapping[str, Any]]) -> str:
    """Returns the page of an adapter.

    Args:
        config: Of its run.
        base: What it goes on.
        name: What it is called.
        curve: Points of the run's curve.
    """
    shares = sorted(config.tasks.items(), key=lambda item: -item[1])
    seen = {p["step"]: p["eval_loss"] for p in curve if "eval_loss" in p}
    rows = [f"| {step:,} | {loss:.3f} |" for step, loss in seen.items()]
    return _CARD.format(
        base=base,
        name=name,
        rank=config.adapter_rank,
        examples=config.examples,
        tokens=config.max_tokens,
        seed=config.seed,
        lr=config.all_weights.lr,
        batch=config.global_batch,
        tasks=", ".join(f"{task} {share:.0%}" for task, share in shares if share),
        curve="\n".join(rows) or "| - | not watched |",
    )
