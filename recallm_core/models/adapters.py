"""Adapters (LoRA, as peft saves it) put into the weights of their base; no code of peft's runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recallm_core.errors import CheckpointError
from recallm_core.inputs.arguments import shown
from recallm_core.inputs.extras import needs
from recallm_core.inputs.model_files import read_json
from recallm_core.models.adapter_base import read_shape

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
ROWS = "token_adapter.trainable_tokens_delta"
PREFIX = "base_model.model."
FACTORS = ("lora_A.weight", "lora_B.weight")
_MOST = 1_000_000
_REFUSED = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "fan_in_fan_out",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "target_parameters",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
)  # what changes how weights are put together, other than by scale * B @ A


@dataclass(frozen=True, slots=True)
class Adapter:
    """What an adapter adds to its base.

    Attributes:
        folder: Where it was read, for errors.
        scale: What the products are multiplied by.
        products: By layer, the two factors: rank by inputs, and outputs by rank.
        rows: By layer, its new rows of a table of tokens.
        ids: By layer, the ids of these rows.
        base: What the adapter says of its base (``adapter_base.shape_of``); empty: nothing.
    """

    folder: Path
    scale: float
    products: Mapping[str, tuple[Tensor, Tensor]]
    rows: Mapping[str, Tensor]
    ids: Mapping[str, Sequence[int]]
    base: Mapping[str, Any] = field(default_factory=dict)


def rank_of(adapter: Adapter) -> int:
    """Returns the largest rank of an adapter's products; 0 where it has none."""
    return max((len(down) for down, _ in adapter.products.values()), default=0)


def is_adapter(folder: Path) -> bool:
    """Says whether a folder holds an adapter and no whole model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path, base: object) -> str:
    """Returns what an adapter goes on: what the caller says, else what its config names.

    Raises:
        CheckpointError: Neither says it.
    """
    if base is not None:
        return str(base)
    name = read_json(folder / CONFIG).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise CheckpointError(
            f"{folder} holds an adapter and doesn't name the model that it goes on; give it: "
            "RecaLLM.load(folder, base=FOLDER_OR_HUB_ID)"
        )
    return name


def read_adapter(folder: Path) -> Adapter:
    """Reads an adapter's settings and weights.

    Raises:
        CheckpointError: A file is missing or damaged, or it is of a kind that can't be put into
            weights as scale * B @ A.
    """
    with needs("local", "an adapter"):
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load_file

    settings = read_json(folder / CONFIG)
    scale = _scale(settings, folder)
    path = folder / WEIGHTS
    try:
        weights = load_file(path)
        with safe_open(path, "pt") as opened:
            metadata = opened.metadata()
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"the adapter's weights {path} can't be read: {error}; get them again"
        ) from error
    flat = [name for name, weight in weights.items() if weight.ndim != 2]
    if flat:
        raise CheckpointError(f"{path} holds {shown(flat[0])}, which isn't a table; get it again")
    rows = {
        name.removeprefix(PREFIX).removesuffix(f".{ROWS}"): weights.pop(name)
        for name in list(weights)
        if name.endswith(f".{ROWS}")
    }
    ids = {layer: _ids(settings, layer, len(table), folder) for layer, table in rows.items()}
    products = _products(weights, folder)
    return Adapter(folder, scale, products, rows, ids, read_shape(metadata, path))


def _scale(settings: Mapping[str, Any], folder: Path) -> float:
    kind = settings.get("peft_type")
    changes = [name for name in _REFUSED if settings.get(name)]
    if settings.get("bias", "none") != "none":
        changes.append("bias")
    if kind != "LORA" or changes:
        what = f"of kind {shown(kind)}" if kind != "LORA" else f"with {', '.join(changes)}"
        raise CheckpointError(
            f"{folder} holds an adapter {what}; plain LoRA is read. Merge it into its base with "
            "peft (merge_and_unload, then save_pretrained) and load the result"
        )
    rank = _number(settings, "r", 1, folder)
    alpha = _number(settings, "lora_alpha", 0, folder)
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _number(settings: Mapping[str, Any], name: str, low: float, folder: Path) -> float:
    value = settings.get(name)
    if not isinstance(value, int | float) or value is True or not low <= value <= _MOST:
        raise CheckpointError(
            f"{folder / CONFIG} must have a number from {low:g} to {_MOST:,} as {name}, got "
            f"{shown(value)}"
        )
    return float(value)


def _ids(settings: Mapping[str, Any], layer: str, count: int, folder: Path) -> list[int]:
    """The ids of a layer's rows, as the settings list them for it or for all."""
    listed = settings.get("trainable_token_indices")
    if isinstance(listed, dict):
        listed = listed.get(layer.rpartition(".")[2], listed.get(layer))
    whole = isinstance(listed, list) and all(type(i) is int and i >= 0 for i in listed)
    if not isinstance(listed, list) or not whole or not len(set(listed)) == len(listed) == count:
        raise CheckpointError(
            f"{folder / CONFIG} must list {count} different token ids for the rows of {layer}, got "
            f"{shown(listed)}"
        )
    return listed


def _products(weights: Mapping[str, Tensor], folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    suffixes = tuple(f".{name}" for name in FACTORS)
    unknown = [n for n in weights if not (n.startswith(PREFIX) and n.endswith(suffixes))]
    layers = sorted({name.rpartition(".lora_")[0] for name in weights})
    halves = [n for n in layers if not all(f"{n}.{factor}" in weights for factor in FACTORS)]
    if unknown or halves:
        raise CheckpointError(
            f"{folder / WEIGHTS} holds {shown((unknown or halves)[0])}, which isn't a pair of "
            "LoRA's factors; get the adapter again, or merge it with peft"
        )
    return {
        name.removeprefix(PREFIX): (
            weights[f"{name}.{FACTORS[0]}"],
            weights[f"{name}.{FACTORS[1]}"],
        )
        for name in layers
    }


def apply(model: Any, adapter: Adapter) -> None:
    """Puts an adapter into the weights of its base; the table of tokens grows where it has to.

    Raises:
        CheckpointError: The base is of another shape, or can't be added to (quantised weights).
    """
    import torch

    with torch.no_grad():
        _grow(model, adapter)
        layers = dict(model.named_modules())
        for name, (down, up) in adapter.products.items():
            weight = _weight(layers, name, (up.shape[0], down.shape[1]), adapter)
            if up.shape[1] != down.shape[0]:
                raise _mismatch(adapter, name)
            delta = adapter.scale * (up.float() @ down.float())
            weight.copy_(weight.float() + delta.to(weight.device))
        for name, rows in adapter.rows.items():
            table = layers.get(name)
            shape = (getattr(table, "weight", rows).shape[0], rows.shape[1])
            weight = _weight(layers, name, shape, adapter)
            weight[list(adapter.ids[name])] = rows.to(weight)


def _grow(model: Any, adapter: Adapter) -> None:
    """Makes room for rows that the base lacks; these have to follow on those that it has."""
    size = model.get_input_embeddings().weight.shape[0]
    added = {i for ids in adapter.ids.values() for i in ids if i >= size}
    if not added:
        return
    if max(added) != size + len(added) - 1:
        raise CheckpointError(
            f"{adapter.folder} holds an adapter with rows for tokens up to {max(added):,}, and its "
            f"base has {size:,}: rows are missing between; give the base that it was trained on"
        )
    model.resize_token_embeddings(size + len(added), mean_resizing=False)


def _weight(
    layers: Mapping[str, Any], name: str, shape: tuple[int, ...], adapter: Adapter
) -> Tensor:
    weight: Tensor | None = getattr(layers.get(name), "weight", None)
    if weight is None or tuple(weight.shape) != tuple(shape) or not weight.is_floating_point():
        raise _mismatch(adapter, name)
    return weight


def _mismatch(adapter: Adapter, name: str) -> CheckpointError:
    return CheckpointError(
        f"the adapter in {adapter.folder} doesn't fit this base at {name}; give the base that it "
        "was trained on, unquantised"
    )
