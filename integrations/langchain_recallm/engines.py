"""What a chat model says of the model behind it, without loading its weights."""

from __future__ import annotations

import json
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from recallm_core.generator import RecaLLM

_NAMES: WeakKeyDictionary[RecaLLM, str] = WeakKeyDictionary()
_NAMING = threading.Lock()
_MAX_CONFIG = 1_000_000  # bytes


def name_of(engine: RecaLLM) -> str:
    """Returns a name that no other model has had, for the keys of caches."""
    with _NAMING:
        return _NAMES.setdefault(engine, uuid.uuid4().hex)


def window(model: str) -> int | None:
    """Returns the window that a local folder's configuration names, without loading weights."""
    from recallm_core.models import shipped

    config = (shipped(model) or Path(model)) / "config.json"
    if not config.is_file() or config.stat().st_size > _MAX_CONFIG:
        return None
    length = json.loads(config.read_text("utf-8")).get("max_position_embeddings")
    return length if isinstance(length, int) and length > 0 else None


def knows_tools(model: str) -> bool:
    """Whether a local folder's chat template can show tools; a model elsewhere is taken to."""
    from recallm_core.models import shipped

    folder = shipped(model) or Path(model)
    if not (folder / "tokenizer_config.json").is_file():
        return True
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        path = folder / name
        if path.is_file() and path.stat().st_size <= _MAX_CONFIG:
            text = path.read_text("utf-8")
            template = text if name.endswith("jinja") else json.loads(text).get("chat_template")
            if template:
                return "tools" in str(template)
    return False
