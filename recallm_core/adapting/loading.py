"""What a framework says of a model and its settings, as arguments of the core."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recallm_core.backends.vllm.connect import is_address
from recallm_core.inputs.arguments import without_password
from recallm_core.inputs.model_config import context_length
from recallm_core.models import shipped
from recallm_core.prompting.params import GenerationParams

if TYPE_CHECKING:
    from recallm_core.generator import RecaLLM

PARAMS = frozenset(GenerationParams.__slots__)
"""The settings of a call by the names that the core has for them."""

_OTHER_NAMES = {"max_tokens": "max_new_tokens", "stop_sequences": "stop"}
_MAX_CONFIG = 1_000_000  # bytes


def without_secrets(value: Any) -> Any:
    """Returns an address, a model's name or further options as they came, for fields that show.

    Raises:
        ValueError: There is a password or a key in it, which would be shown, saved and traced.
    """
    if isinstance(value, str) and "@" in value.partition("://")[2]:
        raise ValueError("a server's address holds no user or password; give api_key= instead")
    if isinstance(value, Mapping) and "api_key" in value:
        raise ValueError("a key in load_options would be shown and saved; give api_key= instead")
    return value


def refuse_unknown(names: Iterable[str], known: Collection[str]) -> None:
    """Raises where a field isn't one that there is: frameworks drop a misspelt one silently.

    Raises:
        ValueError: Some are unknown.
    """
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(f"unknown settings {unknown}; known: {sorted(known)}")


def load_arguments(
    model: str | None,
    *,
    base_url: str | None,
    api_key: str | None = None,
    timeout: float | None = None,
    max_retries: int | None = None,
) -> tuple[str | None, dict[str, Any]]:
    """Returns what frameworks say of a model as a name and options for ``RecaLLM.load``.

    Args:
        model: A name, or the address of a server; None: nothing was said.
        base_url: A server's address; ``model`` is then the name that it is served under.
        api_key: The server's key; without effect, like what follows, on a model in process.
        timeout: Seconds that the server may say nothing.
        max_retries: How often a request is sent again that the server was too busy for.

    Raises:
        ValueError: There are two addresses.
    """
    served = model is not None and is_address(model)
    if served and base_url is not None:
        raise ValueError(
            f"model is the address {without_password(str(model))!r} already; leave base_url out"
        )
    if base_url is None and not served:
        return model, {}
    options: dict[str, Any] = {"api_key": api_key, "timeout": timeout, "max_retries": max_retries}
    if base_url is not None:
        options["served_model"] = model
    return base_url or model, {name: value for name, value in options.items() if value is not None}


def load_shared(model: str, **options: Any) -> RecaLLM:
    """Returns a loaded model; the same one for equal arguments while anyone holds it.

    Args:
        model: As in ``RecaLLM.load``.
        options: As in ``RecaLLM.load``.

    Raises:
        CheckpointError: The model can't be loaded.
    """
    from recallm_core import generator

    return generator.load_shared(model, **options)


def core_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a call's settings under the core's names; frameworks call two of them otherwise."""
    return {_OTHER_NAMES.get(name, name): value for name, value in options.items()}


def settings_of(fields: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a call over those of a model.

    Args:
        fields: Has the settings as attributes; the output's length is its ``max_tokens``.
        options: The call's, by the core's names; others among them are left out.
    """
    settings = {
        name: getattr(fields, "max_tokens" if name == "max_new_tokens" else name) for name in PARAMS
    }
    return settings | {name: value for name, value in options.items() if name in PARAMS}


def unloaded_context_length(model: str) -> int | None:
    """Returns the context length that a local folder's configuration names, without its weights.

    Raises:
        CheckpointError: The configuration can't be read.
    """
    return context_length(shipped(model) or Path(model))


def unloaded_shows_tools(model: str) -> bool:
    """Whether a local folder's chat template can show tools; a model elsewhere is taken to."""
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
