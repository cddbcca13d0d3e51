"""What a caller may ask of one generation; unset fields come from the model's recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from recallm_core.constraint_spec import RecallIn

Boundary = Literal["word", "character"]
Scope = Literal["documents", "prompt"]
AbstainPolicy = Literal["said", "unsupported", "either"]
PriorName = Literal["none", "sentences"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "recall_in": ("thinking", "answer", "thinking+answer", "none"),
    "boundary": ("word", "character"),
    "scope": ("documents", "prompt"),
    "abstain_policy": ("said", "unsupported", "either"),
    "prior": ("none", "sentences"),
}


@dataclass(frozen=True, slots=True)
class GenerationParams:
    """Settings of one generation; None takes the default of the model's recipe.

    Attributes:
        max_new_tokens: Output tokens at most, thinking included (1,024).
        temperature: 0 is greedy (0.6).
        top_p: Nucleus (0.95).
        seed: Makes a sampled answer reproducible.
        stop: Strings that end the answer; looked for outside thinking and quotes, and cut off.
        max_thinking_tokens: The end of thinking is forced from here on (what leaves a quarter of
            ``max_new_tokens``, at most 512, for the answer).
        max_span_tokens: Soft limit of one quote (128): it closes at the next boundary.
        max_spans: Quotes per output (64).
        recall_in: Where quotes may be opened (``thinking+answer``).
        boundary: Quotes begin and end at ``word`` or ``character`` boundaries (``word``).
        scope: What may be quoted: the ``documents``, or the whole ``prompt`` as in the paper, which
            adds the messages of the user, as documents named ``message:0`` and so on.
        abstain_policy: When ``answer.abstained`` is set: the model ``said`` that the documents
            hold no answer, gave no evidence (``unsupported``), or ``either``.
        prior: Lexical scores that tilt where a quote starts: ``none`` or ``sentences``.
        prior_weight: Strength of that tilt.
    """

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    max_thinking_tokens: int | None = None
    max_span_tokens: int | None = None
    max_spans: int | None = None
    recall_in: RecallIn | None = None
    boundary: Boundary | None = None
    scope: Scope | None = None
    abstain_policy: AbstainPolicy | None = None
    prior: PriorName | None = None
    prior_weight: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        elif self.stop is not None:
            object.__setattr__(self, "stop", tuple(self.stop))
        if any(not isinstance(s, str) or not s for s in self.stop or ()):
            raise ValueError(f"stop must be non-empty strings, got {self.stop!r}")
        for name, low in _LOWEST.items():
            value = getattr(self, name)
            if value is not None and not _number_from(value, low):
                raise ValueError(f"{name} must be a number of at least {low}, got {value!r}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p!r}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in (None, *choices):
                raise ValueError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")

    def over(self, defaults: Mapping[str, Any]) -> GenerationParams:
        """Returns these params with unset fields taken from ``defaults``, by field name."""
        known = {f.name for f in fields(self)}
        unknown = sorted(set(defaults) - known)
        if unknown:
            raise ValueError(f"unknown generation params {unknown}; known: {sorted(known)}")
        missing = {k: v for k, v in defaults.items() if getattr(self, k) is None and v is not None}
        return replace(self, **missing)


_LOWEST: dict[str, float] = {
    "max_new_tokens": 1,
    "temperature": 0,
    "top_p": 0,
    "max_thinking_tokens": 0,
    "max_span_tokens": 1,
    "max_spans": 0,
    "prior_weight": 0,
}


def _number_from(value: object, low: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= low


BASE: Mapping[str, Any] = {
    "max_new_tokens": 1024,
    "temperature": 0.6,
    "top_p": 0.95,
    "stop": (),
    "max_span_tokens": 128,
    "max_spans": 64,
    "recall_in": "thinking+answer",
    "boundary": "word",
    "scope": "documents",
    "abstain_policy": "either",
}
