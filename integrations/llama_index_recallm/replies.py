"""What the responses of any LlamaIndex LLM say beside their words, whoever's raw data they hold."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.llms.types import ChatResponse

import recallm_core as recallm

_IN = ("prompt_tokens", "input_tokens", "prompt_eval_count", "prompt_token_count")
_OUT = ("completion_tokens", "output_tokens", "eval_count", "candidates_token_count")
_HOLDERS = ("usage", "usage_metadata")
_ENDINGS = ("finish_reason", "stop_reason", "done_reason")
_CUT = ("length", "max_tokens")


def usage_of(response: ChatResponse) -> recallm.Usage | None:
    """Returns the tokens that a response says were spent; None where it doesn't."""
    raw = response.raw
    holders = [_get(raw, name) for name in _HOLDERS]
    for holder in (response.additional_kwargs, *holders, raw):
        read, written = _number(holder, _IN), _number(holder, _OUT)
        if read is not None and written is not None:
            return recallm.Usage(prompt_tokens=read, answer_tokens=written)
    return None


def ending_of(response: ChatResponse) -> str:
    """Returns ``length`` for a response that was cut off, else ``stop``."""
    raw = response.raw
    choices = _get(raw, "choices") or _get(raw, "candidates")
    first = choices[0] if isinstance(choices, list) and choices else None
    reasons = [str(_get(holder, key)).casefold() for holder in (raw, first) for key in _ENDINGS]
    cut = any(reason.endswith(_CUT) for reason in reasons)
    return "length" if cut else "stop"


def _number(holder: Any, names: tuple[str, ...]) -> int | None:
    values = (_get(holder, name) for name in names)
    return next((value for value in values if isinstance(value, int)), None)


def _get(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, dict) else getattr(holder, name, None)
