"""Models behind chat models: loaded when first needed, shared by all who ask for the same one."""

from __future__ import annotations

import json
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

if TYPE_CHECKING:
    from recallm_core.generator import RecaLLM

_LOADED: WeakValueDictionary[str, RecaLLM] = WeakValueDictionary()
_NAMES: WeakKeyDictionary[RecaLLM, str] = WeakKeyDictionary()
_LOADING = threading.Lock()
_MAX_CONFIG = 1_000_000  # bytes


def load(model: str, options: dict[str, Any]) -> RecaLLM:
    """Returns a model; the same one for the same name and options while anyone holds it.

    Raises:
        CheckpointError: It can't be loaded.
    """
    from recallm_core.generator import RecaLLM

    key = f"{model}\0{sorted(options.items(), key=lambda item: item[0])!r}"
    with _LOADING:
        found = _LOADED.get(key)
        if found is None:
            found = RecaLLM.load(model, **options)
            _LOADED[key] = found
        return found


def name_of(engine: RecaLLM) -> str:
    """Returns a name that no other model has had, for the keys of caches."""
    with _LOADING:
        return _NAMES.setdefault(engine, uuid.uuid4().hex)


def window(model: str) -> int | None:
    """Returns the window that a local folder's configuration names, without loading weights."""
    from recallm_core.models import shipped

    config = (shipped(model) or Path(model)) / "config.json"
    if not config.is_file() or config.stat().st_size > _MAX_CONFIG:
        return None
    found = json.loads(config.read_text("utf-8")).get("max_position_embeddings")
    return found if isinstance(found, int) and found > 0 else None


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
            found = text if name.endswith("jinja") else json.loads(text).get("chat_template")
            if found:
                return "tools" in str(found)
    return False
