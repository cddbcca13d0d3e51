"""What a model folder's configuration says, read as plain JSON: without weights or transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recallm_core.errors import ServerError

_MAX_CONFIG = 8 * 2**20


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """Returns a JSON object of a model folder; an empty one where there is none."""
    path = folder / name
    if not path.is_file() or path.stat().st_size > _MAX_CONFIG:
        return {}
    try:
        config = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ServerError(f"{path} can't be read as JSON: {error}") from error
    return config if isinstance(config, dict) else {}


def eos_ids(folder: Path) -> tuple[int, ...]:
    """Returns the ids that a checkpoint's configuration says end an output."""
    for name in ("generation_config.json", "config.json"):
        named = read_config(folder, name).get("eos_token_id")
        if named is not None:
            listed = named if isinstance(named, list) else [named]
            return tuple(i for i in listed if type(i) is int and i >= 0)
    return ()


def vocab_size(folder: Path) -> int | None:
    """Returns the width of the logits that a checkpoint's configuration names."""
    config = read_config(folder)
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        if type(part.get("vocab_size")) is int:
            return int(part["vocab_size"])
    return None
