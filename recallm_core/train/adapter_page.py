"""The page that goes with an adapter, whatever trained it."""

from __future__ import annotations

from collections.abc import Mapping

_PAGE = """\
---
base_model: {base}
library_name: peft
tags: [recallm, lora]
---

# {name}

{about}

```python
from recallm_core import RecaLLM

llm = RecaLLM.load("{name}", base="{base}")
answer = llm.answer("When does the ferry leave?", ["The ferry leaves at nine."])
```

## Training

{training}

## Evaluation

None is recorded here. Before you share it, compare it with {other}:

```
{commands}
```
"""


def adapter_page(
    base: str, name: str, *, about: str, training: str, other: str, commands: tuple[str, ...]
) -> str:
    """Returns the page of an adapter.

    Args:
        base: What it goes on.
        name: What it is called.
        about: What it is and does.
        training: How it was made, with its curve.
        other: What to compare it with.
        commands: That do so.
    """
    return _PAGE.format(
        base=base,
        name=name,
        about=about,
        training=training,
        other=other,
        commands="\n".join(commands),
    )


def shares(parts: Mapping[str, float]) -> str:
    """Returns shares of a mixture as text, the largest first."""
    ranked = sorted(parts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {share:.0%}" for name, share in ranked if share)
