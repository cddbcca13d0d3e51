"""Model folders: found, checked and loaded as plain architectures, without running their code."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from recallm_core.errors import CheckpointError
from recallm_core.inputs.arguments import shown
from recallm_core.inputs.memory import memory_bytes
from recallm_core.inputs.model_files import check_file_sizes, read_json
from recallm_core.models.adapter_base import check_shape, check_words
from recallm_core.models.adapters import CONFIG, Adapter, apply, base_of
from recallm_core.models.weight_sizes import brief, check_sizes

# The authors' checkpoints subclass plain architectures only to add their own decoding.
RECALLM_TYPES: Mapping[str, str] = {"recallm_qwen2": "qwen2", "recallm_llama": "llama"}
_RECALLM_FIELDS = (
    "auto_map",
    "force_recall",
    "max_recall_length",
    "mask_recall_tokens",
    "recall_end_str",
    "recall_end_token_id",
    "recall_start_str",
    "recall_start_token_id",
    "recall_tag_type",
    "use_fast_recall",
)
_HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")
_SINGLE = "model.safetensors"
_SHARDED = "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_MOST_PARTS = 16_384  # layers, heads or experts
_MOST_NUMBER = 1 << 40  # of anything else
_DEEPEST = 20  # objects in a config
_TABLE_TYPES = ("pegasus", "marian", "roformer", "xlm", "flaubert")
_TABLE_SIZES = ("max_position_embeddings", "d_model", "hidden_size", "emb_dim", "embedding_size")
_MOST_NUMBERS = 1 << 23  # in such a table: half a minute


def find_folder(
    path_or_id: str | os.PathLike[str],
    *,
    revision: str | None = None,
    local_files_only: bool = False,
) -> Path:
    """Returns the local folder of a checkpoint, downloading a hub id where that is possible.

    Only configuration, tokenizer and safetensors files are fetched, never code or pickles.

    Raises:
        CheckpointError: There is no such folder, or the hub can't be reached or doesn't know it.
    """
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        return folder
    name = os.fspath(path_or_id)
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise CheckpointError(
            f"no model folder at {name!r}; give a folder with config.json and *.safetensors, or "
            "a hub id such as 'Qwen/Qwen3-0.6B'"
        )
    return _from_hub(name, revision, local_files_only)


def find_base(adapter: Path, base: object, *, local_files_only: bool = False) -> Path:
    """Returns the local folder of the model that an adapter goes on.

    Raises:
        CheckpointError: Neither the caller nor the adapter names one, there is none there, or it
            has another vocabulary.
    """
    name = base_of(adapter, base)
    try:
        folder = find_folder(name, local_files_only=local_files_only)
    except CheckpointError as error:
        raise CheckpointError(
            f"the adapter in {adapter} goes on a model that isn't to be had: {error}. Where it "
            "stands elsewhere, give that as base=FOLDER_OR_HUB_ID (--base of the commands)"
        ) from error
    check_words(adapter, folder)
    return folder


def _from_hub(name: str, revision: str | None, local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        snapshot = snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(_HUB_FILES),
            local_files_only=local_files_only,
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(
            f"{name!r} is neither a folder here nor a model that the hub gave us "
            f"({type(error).__name__}); check the spelling and the network, log in if the model "
            "is gated, or download it elsewhere and give the folder's path"
        ) from error
    return Path(snapshot)


def check_folder(folder: Path) -> tuple[Path, ...]:
    """Checks a checkpoint folder and returns its safetensors files.

    Raises:
        CheckpointError: A file is missing, is only there as a pickle, or links out of the folder.
    """
    for path in sorted(folder.iterdir()):
        _check_link(folder, path)
    check_file_sizes(folder)
    if (folder / CONFIG).exists():
        raise CheckpointError(
            f"{folder} holds an adapter, not a whole model; merge it into its base model first "
            "(recallm model merge FOLDER OUT --base BASE) and load the result"
        )
    if (folder / _SHARDED).is_file():
        names = sorted(set(_weight_map(folder / _SHARDED).values()))
    elif (folder / _SINGLE).is_file():
        names = [_SINGLE]
    else:
        raise CheckpointError(_no_weights(folder))
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise CheckpointError(
                f"{_SHARDED} of {folder} names {name!r}, which isn't a file in that folder; "
                "download the checkpoint again"
            )
    return tuple(folder / name for name in names)


def _check_link(folder: Path, path: Path) -> None:
    """Refuses links that lead out; a hub cache links to the blobs beside its snapshots."""
    if not path.is_symlink():
        return
    target, home = path.resolve(), folder.resolve()
    inside = target.is_relative_to(home)
    cached = home.parent.name == "snapshots" and target.is_relative_to(home.parent.parent / "blobs")
    if not (inside or cached):
        raise CheckpointError(
            f"{path} links out of its folder, to {target}; a model folder must hold its own files: "
            "copy them in place of the links"
        )


def _no_weights(folder: Path) -> str:
    if any(path.suffix in _PICKLES for path in folder.iterdir()):
        return (
            f"{folder} has its weights only as pickles ({', '.join(_PICKLES)}), which can run code "
            "when they are read; convert them on a machine you can spare, with "
            "model.save_pretrained(folder, safe_serialization=True), or take a safetensors release"
        )
    return f"{folder} has no weights; expected {_SINGLE} or {_SHARDED} with its shards"


def _weight_map(path: Path) -> dict[str, str]:
    weights = read_json(path).get("weight_map")
    if not isinstance(weights, dict) or not weights:
        raise CheckpointError(f"{path} has no weight_map; download the checkpoint again")
    return {str(name): str(file) for name, file in weights.items()}


def transformers_config(folder: Path) -> Any:
    """Returns the transformers config of a folder, the authors' types mapped to plain ones.

    Raises:
        CheckpointError: No config, or an architecture that would need code from the folder.
    """
    path = folder / "config.json"
    data = read_json(path)
    kind = data.get("model_type")
    if kind in RECALLM_TYPES:
        data = plain_config(data, RECALLM_TYPES[str(kind)])
    kind = data.get("model_type")
    data.pop("auto_map", None)
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise CheckpointError(
            f"model_type {kind!r} of {folder} isn't built into the installed transformers, and "
            "code from model folders is never run; update transformers, or choose another model"
        )
    _check_counts(data, path)
    _check_table(data, path)
    try:
        return CONFIG_MAPPING[kind].from_dict(data)
    except Exception as error:  # configs validate with many kinds of exception
        raise CheckpointError(f"{path} isn't valid: {error}") from error


def _check_counts(data: Mapping[str, Any], path: Path, *, depth: int = 0) -> None:
    """Refuses absurd numbers, which would keep the config or the model's plan busy for hours."""
    if depth > _DEEPEST:
        raise CheckpointError(f"{path} nests more than {_DEEPEST} objects; no model's does")
    for name, value in data.items():
        if isinstance(value, dict):
            _check_counts(value, path, depth=depth + 1)
        counts = any(part in name for part in ("layer", "head", "expert", "block"))
        limit = _MOST_PARTS if counts else _MOST_NUMBER
        if isinstance(value, int) and abs(value) > limit:
            raise CheckpointError(
                f"{path} says {name} = {shown(value)}, more than any model has ({limit:,} at "
                "most); config and weights don't belong together"
            )


def _check_table(data: Mapping[str, Any], path: Path) -> None:
    """Refuses a large table of positions where the model's code makes it number by number."""
    if data["model_type"] not in _TABLE_TYPES:
        return
    sizes = [data[name] for name in _TABLE_SIZES if isinstance(data.get(name), int)]
    if math.prod(max(1, size) for size in sizes) > _MOST_NUMBERS:
        raise CheckpointError(
            f"{path} describes a table of {' x '.join(map(str, sizes))} positions, which "
            f"{data['model_type']} models would work out for hours; choose another model"
        )


def plain_config(data: dict[str, Any], kind: str) -> dict[str, Any]:
    """Returns a RecaLLM config as that of the plain architecture that it extends."""
    plain = {name: value for name, value in data.items() if name not in _RECALLM_FIELDS}
    names = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}
    return plain | {"model_type": kind, "architectures": [names[kind]]}


def context_length_of(config: Any) -> int | None:
    """Tokens that a model can attend to, rope scaling included; None where its config is silent.

    ``max_position_embeddings`` already counts llama3 and longrope scaling; for YaRN, linear and
    dynamic scaling it may be the length before scaling.
    """
    text = config.get_text_config(decoder=True)
    size = getattr(text, "max_position_embeddings", None)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        return None
    rope = rope_of(text)
    factor = rope.get("factor")
    if not isinstance(factor, int | float) or not 1 < factor < _MOST_NUMBER:
        return size
    if rope.get("rope_type") == "yarn":
        original = rope.get("original_max_position_embeddings") or size
        if not isinstance(original, int | float) or not 0 < original < _MOST_NUMBER:
            return size
        return max(size, int(original * factor))
    if rope.get("rope_type") in ("linear", "dynamic"):
        return int(size * factor)
    return size


def rope_of(config: Any) -> dict[str, Any]:
    """Returns the rope settings of a config that has one set of them; else an empty dict."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if not isinstance(rope, dict):
        return {}
    return {"rope_type": rope.get("rope_type", rope.get("type")), **rope}


def load_model(
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype | str,
    model_kwargs: Mapping[str, Any] | None = None,
    adapter: Adapter | None = None,
) -> Any:
    """Loads a checked folder as a plain transformers model in evaluation mode.

    Args:
        folder: The model's.
        device: Where it goes.
        dtype: As what; ``auto`` is float32 on a CPU with room for it, else as it was saved.
        model_kwargs: Further arguments of ``from_pretrained``.
        adapter: Put into the weights.

    Raises:
        CheckpointError: The folder is incomplete, unsafe or of an unknown kind, or the adapter
            doesn't fit it.
    """
    files = check_folder(folder)
    config = transformers_config(folder)
    stored = check_sizes(config, files)
    if adapter is not None:
        check_shape(adapter.folder, adapter.base, config)
    kwargs = dict(model_kwargs or {})
    placed = "device_map" in kwargs or "quantization_config" in kwargs
    if dtype == "auto":
        dtype = auto_dtype(device, stored)
    try:
        with _without_progress_bar():
            model, info = AutoModelForCausalLM.from_pretrained(
                folder,
                **kwargs,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
    except Exception as error:  # transformers raises many kinds
        raise CheckpointError(f"{folder} can't be loaded: {brief(error)}") from error
    missing = sorted(info["missing_keys"]) + [str(key) for key in info["mismatched_keys"]]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of the weights that its config.json asks for, "
            f"{missing[0]} first; config and weights don't belong together"
        )
    if adapter is not None:
        apply(model, adapter)
    if not placed:
        model = model.to(device)
    return model.eval().requires_grad_(False)


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """A library doesn't draw on its caller's terminal; what it shows is the caller's choice."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def choose_device(device: str | torch.device) -> torch.device:
    """Returns the device to use; ``auto`` is the fastest that is there.

    Raises:
        ValueError: There is no such device.
    """
    if not isinstance(device, str) or device != "auto":
        try:
            choice = torch.device(device)
            torch.empty(1, device=choice)
        except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
            reason = str(error).partition("\n")[0][:120]
            raise ValueError(
                f"device {device!r} can't be used here ({reason}); give 'auto', 'cpu', or the name "
                "of an accelerator that this build of torch sees, such as 'cuda' or 'mps'"
            ) from error
        return choice
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def auto_dtype(device: torch.device, parameters: int) -> torch.dtype | str:
    """Returns the dtype to load: float32 on a CPU with room for it (much faster), else ``auto``."""
    if device.type == "cpu" and 4 * parameters < memory_bytes() // 2:
        return torch.float32
    return "auto"
