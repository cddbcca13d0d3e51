"""Stage 2 in small: adapters beside a frozen model learn, and the recall tokens' rows with them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from recallm_core.inputs.model_config import dtype_name
from recallm_core.models.adapter_base import BASE, shape_of
from recallm_core.models.adapters import CONFIG, ROWS, WEIGHTS
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


def save_adapter(adapted: Any, rows: NewRows, base: Path, target: Path, card: str) -> None:
    """Writes adapters and rows as peft does, with tokenizer and recipe; ``RecaLLM.load`` takes it.

    Weights are in the precision that the base was saved in. The card is its ``README.md``.
    """
    from peft import get_peft_model_state_dict

    saved = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    weights = {name: value for name, value in saved.items() if ".lora_" in name}
    tables = rows.whole_rows(adapted.get_base_model())
    weights |= {f"base_model.model.{name}.{ROWS}": table for name, table in tables.items()}
    dtype = getattr(torch, dtype_name(base))
    tensors = {name: w.detach().cpu().to(dtype).contiguous() for name, w in weights.items()}
    settings = _settings(adapted.peft_config["default"], base, tables, rows.ids.tolist())
    facts = {"format": "pt", BASE: json.dumps(shape_of(adapted.get_base_model().config))}
    with whole_folder(target, overwrite=True) as aside:
        copy_beside(base, aside)
        save_file(tensors, aside / WEIGHTS, metadata=facts)
        (aside / "README.md").write_text(card, encoding="utf-8")
        (aside / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _settings(config: Any, base: Path, tables: Iterable[str], ids: Sequence[int]) -> dict[str, Any]:
    """The description of peft, with the rows as if it had trained them too."""
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in config.to_dict().items()}
    return plain | {
        "base_model_name_or_path": str(base.resolve()),
        "inference_mode": True,
        "trainable_token_indices": {name.rpartition(".")[2]: list(ids) for name in tables},
    }
