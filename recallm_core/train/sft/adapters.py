"""Stage 2 in small: adapters beside a frozen model learn, and the recall tokens' rows with them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from recallm_core.inputs.model_config import dtype_name
from recallm_core.models.adapter_base import BASE, shape_of
from recallm_core.models.adapters import CONFIG, FACTORS, PREFIX, ROWS, WEIGHTS, Adapter, rank_of
from recallm_core.models.writing import copy_beside, whole_folder
from recallm_core.train.sft.new_token_rows import NewRows


def lora(rank: int) -> Any:
    """Returns peft's settings: on all linear layers, twice their rank as their weight."""
    from peft import LoraConfig

    return LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def with_adapters(model: Any, rows: NewRows, rank: int) -> Any:
    """Returns the model frozen, with adapters and rows that learn beside it."""
    from peft import get_peft_model

    rows.attach(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft's
        adapted = get_peft_model(model, lora(rank))
    rows.requires_grad_(True)
    return adapted


def merged(adapted: Any, rows: NewRows) -> Any:
    """Returns the plain model with its adapters and rows in its weights."""
    model = adapted.merge_and_unload()
    rows.detach(model)
    return model


def learnt(adapted: Any, rows: NewRows | None, target: Path) -> Adapter:
    """Returns what a model with adapters has learnt, rows beside it included.

    Args:
        adapted: The model.
        rows: Of the recall tokens, where they learnt too.
        target: Where it will be written.
    """
    from peft import get_peft_model_state_dict

    saved = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    factors: dict[str, dict[str, Tensor]] = {}
    for name, weight in saved.items():
        layer, is_factor, factor = name.removeprefix(PREFIX).rpartition(".lora_")
        if is_factor:
            factors.setdefault(layer, {})[factor] = weight.detach().cpu()
    products = {layer: (both["A.weight"], both["B.weight"]) for layer, both in factors.items()}
    base, settings = adapted.get_base_model(), adapted.peft_config["default"]
    tables = {} if rows is None else rows.whole_rows(base)
    ids = [] if rows is None else rows.ids.tolist()
    scale = settings.lora_alpha / settings.r
    return Adapter(
        target, scale, products, tables, dict.fromkeys(tables, ids), shape_of(base.config)
    )


def together(first: Adapter, second: Adapter) -> Adapter:
    """Returns one adapter that adds what two do, of both ranks together.

    Args:
        first: Of the base.
        second: Learnt on what the first made of it; its rows go before the first's.
    """
    products = {
        layer: _joined(
            [(a.scale, *a.products[layer]) for a in (first, second) if layer in a.products],
            rank=rank_of(first) + rank_of(second),
        )
        for layer in sorted({*first.products, *second.products})
    }
    return replace(
        second,
        scale=1.0,
        products=products,
        rows={**first.rows, **second.rows},
        ids={**first.ids, **second.ids},
    )


def _joined(parts: Sequence[tuple[float, Tensor, Tensor]], rank: int) -> tuple[Tensor, Tensor]:
    """The factors of a sum of products, filled up with zeros to a rank."""
    down = torch.cat([down.float() for _, down, _ in parts])
    up = torch.cat([scale * up.float() for scale, _, up in parts], dim=1)
    room = rank - len(down)
    pad = torch.nn.functional.pad
    return pad(down, (0, 0, 0, room)), pad(up, (0, room))


def save_adapter(adapter: Adapter, settings: Any, base: Path, on: str, card: str) -> None:
    """Writes an adapter as peft does, with tokenizer and recipe; ``RecaLLM.load`` takes it.

    Weights are in the precision that the base was saved in.

    Args:
        adapter: What was learnt; its folder is written.
        settings: Of peft, under which it was.
        base: The whole model that it was learnt on.
        on: What the adapter goes on, by its path or hub id.
        card: Its ``README.md``.
    """
    dtype = getattr(torch, dtype_name(base))
    weights = {
        f"{PREFIX}{layer}.{name}": factor
        for layer, both in adapter.products.items()
        for name, factor in zip(FACTORS, both, strict=True)
    }
    weights |= {f"{PREFIX}{layer}.{ROWS}": table for layer, table in adapter.rows.items()}
    tensors = {name: w.detach().cpu().to(dtype).contiguous() for name, w in weights.items()}
    facts = {"format": "pt", BASE: json.dumps(dict(adapter.base))}
    described = _description(adapter, settings, on)
    with whole_folder(adapter.folder, overwrite=True) as aside:
        copy_beside(base, aside)
        save_file(tensors, aside / WEIGHTS, metadata=facts)
        (aside / "README.md").write_text(card, encoding="utf-8")
        (aside / CONFIG).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def _description(adapter: Adapter, settings: Any, on: str) -> dict[str, Any]:
    """The description of peft, with the rows as if it had trained them too."""
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in settings.to_dict().items()}
    rank = rank_of(adapter)
    ids = {name.rpartition(".")[2]: list(ids) for name, ids in adapter.ids.items()}
    return plain | {
        "base_model_name_or_path": on,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": round(adapter.scale * rank),
        "target_modules": sorted({name.rpartition(".")[2] for name in adapter.products}),
        "trainable_token_indices": ids or None,
    }
