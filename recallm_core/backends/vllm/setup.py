"""What holds wherever vLLM is started from here: which models, which settings, and what it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recallm_core.backends.vllm.manifest import INSTALL_VLLM
from recallm_core.errors import MissingExtraError
from recallm_core.inputs.model_config import read_config

_CODE = "code of a checkpoint never runs"
_OWN = "prompts are built with the tokenizer of the model's own folder"
_LORA = "merge the adapter into the model: adapters are neither checked nor offered"
SPECULATIVE = "speculative_config"
_DRAFTS = ("spec_", "speculative", "draft")  # what begins so is part of it
REFUSED: Mapping[str, str] = {
    "trust_remote_code": _CODE,
    "code_revision": _CODE,
    "hf_config_path": "the model's own configuration is the one that was checked",
    "load_format": "only safetensors are loaded",
    "model": "it is the first argument",
    "model_weights": "the weights in the model's own folder are the ones that were checked",
    "tokenizer_mode": _OWN,
    "tokenizer_revision": _OWN,
    "skip_tokenizer_init": "whether vLLM needs the tokenizer is known here",
    "logits_processors": "RecaLLM sets it, to what holds the output to the documents",
    "generation_config": "sampling settings come with each request",
    "override_generation_config": "sampling settings come with each request",
    SPECULATIVE: "drafted tokens aren't held to the documents; start without it",
    "enable_lora": _LORA,
    "lora_modules": _LORA,
    "enable_prompt_embeds": "a constraint is bound to the token ids of its prompt",
}
"""Settings of vLLM's engine that nobody may set, and why."""


def plain_name(setting: str) -> str:
    """Returns a setting's name, or for any of speculative decoding the one that is refused."""
    return SPECULATIVE if setting.startswith(_DRAFTS) else setting


def is_installed() -> bool:
    """Whether vLLM can be imported here."""
    return find_spec("vllm") is not None


def check_installed() -> None:
    """Checks that vLLM is there.

    Raises:
        MissingExtraError: It isn't.
    """
    if not is_installed():
        raise MissingExtraError(f"this needs vLLM; {INSTALL_VLLM}")


def reads_prompts_whole() -> bool:
    """Whether vLLM mustn't read prompts in parts: where it runs on a CPU.

    There a seeded request whose prompt is read in parts ends the engine for everyone: vLLM turns
    back the request's generator, and a CPU's can't be (``_bookkeeping_sync`` of the first runner).
    """
    try:
        from vllm.platforms import current_platform
    except ModuleNotFoundError:
        return False
    return bool(current_platform.is_cpu())


def version() -> str:
    """Returns the installed vLLM's version."""
    try:
        import vllm
    except ModuleNotFoundError:
        return "unknown"
    return str(vllm.__version__)


def runner(config: Any) -> str:
    """Returns which of vLLM's model runners a configuration chose."""
    second = getattr(config, "use_v2_model_runner", None)
    return "unknown" if second is None else "V2" if second else "V1"


def checked_folder(folder: Path) -> tuple[Path, int]:
    """Checks a model folder as for loading with transformers; nothing of it runs.

    Returns:
        The folder that vLLM may open, and the number of stored parameters.

    Raises:
        CheckpointError: It is unsafe, damaged, or of a kind that needs code.
    """
    from recallm_core.models import checkpoint
    from recallm_core.models.weight_sizes import check_sizes

    files = checkpoint.check_folder(folder)
    stored = check_sizes(checkpoint.transformers_config(folder), files)
    return _plain_folder(folder), stored


def _plain_folder(folder: Path) -> Path:
    """The folder, or for the paper's checkpoints one that calls them what they are underneath."""
    from recallm_core.models import checkpoint
    from recallm_core.models.writing import cached_folder

    data = read_config(folder)
    kind = checkpoint.RECALLM_TYPES.get(str(data.get("model_type")))
    if kind is None and "auto_map" not in data:
        return folder
    plain = checkpoint.plain_config(data, kind) if kind is not None else dict(data)
    plain.pop("auto_map", None)
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    directory = cached_folder("served", f"{folder.name}-{digest}")
    for path in folder.iterdir():
        link = directory / path.name
        if path.is_file() and path.name != "config.json" and path.suffix != ".py":
            link.unlink(missing_ok=True)
            link.symlink_to(path.resolve())
    (directory / "config.json").write_text(json.dumps(plain, indent=2), "utf-8")
    return directory
