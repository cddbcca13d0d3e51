"""What a caller may ask of one generation; unset fields come from the model's recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from recallm_core.decoding.spec import RecallIn
from recallm_core.evidence.registry import PRIORS
from recallm_core.inputs.arguments import real_number, whole_number

Boundary = Literal["sentence", "word", "character"]
Evidence = Literal["auto", "required", "first", "free"]
Scope = Literal["documents", "prompt"]
AbstainPolicy = Literal["said", "unsupported", "either"]
AnswerForm = Literal["words", "quote"]
Owed = Literal["required", "first", "free"]
if TYPE_CHECKING:  # type checkers read no table; a test compares
    PriorName = Literal["none", "sentences", "reader"]
else:
    PriorName = Literal[PRIORS]

_CHOICES: dict[str, tuple[str, ...]] = {
    "recall_in": ("thinking", "answer", "thinking+answer", "none"),
    "boundary": ("sentence", "word", "character"),
    "scope": ("documents", "prompt"),
    "abstain_policy": ("said", "unsupported", "either"),
    "prior": PRIORS,
    "answer_form": ("words", "quote"),
    "evidence": ("auto", "required", "first", "free"),
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
        boundary: Quotes begin and end at ``sentence`` (or line), ``word`` or ``character``
            boundaries (``word``; ``sentence`` where evidence comes ``first``).
        scope: What may be quoted: the ``documents``, or the whole ``prompt`` as in the paper, which
            adds the messages of the user, as documents named ``message:0`` and so on.
        abstain_policy: When ``answer.abstained`` is set: the model ``said`` that the documents
            hold no answer, gave no evidence (``unsupported``), or ``either``.
        prior: What scores the evidence, and so tilts where a quote starts: ``none``, ``sentences``
            (by words and meaning) or ``reader`` (by a small encoder that reads the likeliest
            passages; it tilts where a quote ends, too).
        prior_weight: Strength of that tilt.
        answer_form: ``words``, or ``quote``: thinking is nothing but quotes, and the answer is one
            (``words``). Needs a model with control tokens; with tools, a schema, or no quotes
            allowed in answers, ``words`` it is.
        evidence: What the output owes before it may end. ``free``: quotes stand where the model
            opens them. ``required``: at least one quote, forced open at the end of a sentence of
            the answer where the model hasn't opened one itself. ``first``: the answer begins with
            its evidence, then says it in words. ``auto`` is the recipe's choice: ``free`` for
            trained models, never for prompted ones. With tools, ``first`` is ``required``, with a
            schema ``required`` is ``first``; without anything to quote, both are ``free``.
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
    answer_form: AnswerForm | None = None
    evidence: Evidence | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "stop", None if self.stop is None else _strings(self.stop))
        for name, low in _WHOLE.items():
            put(self, name, _whole(name, getattr(self, name), low))
        for name, high in _REAL.items():
            put(self, name, _real(name, getattr(self, name), high))
        if self.top_p == 0:
            raise ValueError("top_p must be above 0 and at most 1, got 0; temperature=0 is greedy")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value in choices):
                raise ValueError(f"{name} must be one of {choices}, got {value!r}")

    def over(self, defaults: Mapping[str, Any]) -> GenerationParams:
        """Returns these params with unset fields taken from ``defaults``, by field name."""
        known = {f.name for f in fields(self)}
        unknown = sorted(set(defaults) - known)
        if unknown:
            raise ValueError(f"unknown generation params {unknown}; known: {sorted(known)}")
        missing = {k: v for k, v in defaults.items() if getattr(self, k) is None and v is not None}
        return replace(self, **missing)


@dataclass(frozen=True, slots=True)
class ResolvedParams:
    """The settings of one generation, all filled in; ``resolving.resolve`` makes them.

    What stands here are our defaults, and they stand nowhere else. Those of ``prior``,
    ``prior_weight``, ``evidence``, ``boundary`` and ``max_thinking_tokens`` follow from the recipe
    and from the other settings. The attributes are those of ``GenerationParams``; only ``seed`` may
    be None: then each output is another.
    """

    max_new_tokens: int = 1024
    temperature: float = 0.6
    top_p: float = 0.95
    seed: int | None = None
    stop: tuple[str, ...] = ()
    max_thinking_tokens: int = 768
    max_span_tokens: int = 128
    max_spans: int = 64
    recall_in: RecallIn = "thinking+answer"
    boundary: Boundary = "word"
    scope: Scope = "documents"
    abstain_policy: AbstainPolicy = "either"
    prior: PriorName = "none"
    prior_weight: float = 1.0
    answer_form: AnswerForm = "words"
    evidence: Owed = "free"


DEFAULTS = ResolvedParams()

_FOLLOW = frozenset(
    {"seed", "prior", "prior_weight", "evidence", "boundary", "max_thinking_tokens"}
)
BASE: Mapping[str, Any] = {
    f.name: getattr(DEFAULTS, f.name) for f in fields(DEFAULTS) if f.name not in _FOLLOW
}
"""What an unset field becomes where the recipe says nothing, by name; some follow from others."""


class Settings(TypedDict, total=False):
    """Single settings as they are given by name: the fields of ``GenerationParams``."""

    max_new_tokens: int | None
    temperature: float | None
    top_p: float | None
    seed: int | None
    stop: str | Sequence[str] | None
    max_thinking_tokens: int | None
    max_span_tokens: int | None
    max_spans: int | None
    recall_in: RecallIn | None
    boundary: Boundary | None
    scope: Scope | None
    abstain_policy: AbstainPolicy | None
    prior: PriorName | None
    prior_weight: float | None
    answer_form: AnswerForm | None
    evidence: Evidence | None


_WHOLE: dict[str, int] = {
    "max_new_tokens": 1,
    "seed": -(2**63),
    "max_thinking_tokens": 0,
    "max_span_tokens": 1,
    "max_spans": 0,
}
_REAL: dict[str, float] = {"temperature": 100, "top_p": 1, "prior_weight": 1000}
_MOST = 2**31 - 1


def with_settings(params: GenerationParams | None, settings: Mapping[str, Any]) -> GenerationParams:
    """Returns params with single settings changed, as callers give both.

    Raises:
        TypeError: The params are something else, or a setting isn't one of theirs.
        ValueError: A setting is out of range.
    """
    base = GenerationParams() if params is None else params
    if not isinstance(base, GenerationParams):
        raise TypeError(
            f"params must be GenerationParams, got {type(base).__name__}; single settings may be "
            "given by name instead, for instance temperature=0"
        )
    unknown = sorted(set(settings) - set(GenerationParams.__slots__))
    if unknown:
        raise TypeError(f"unknown settings {unknown}; known: {sorted(GenerationParams.__slots__)}")
    return replace(base, **settings)


def _strings(value: object) -> tuple[str, ...]:
    listed = (value,) if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or any(not isinstance(s, str) or not s for s in listed):
        raise ValueError(f"stop must be non-empty strings, got {value!r}")
    return tuple(listed)


def _whole(name: str, value: object, low: int) -> int | None:
    high = 2**63 - 1 if name == "seed" else _MOST
    return None if value is None else whole_number(name, value, low, high)


def _real(name: str, value: object, high: float) -> float | None:
    return None if value is None else real_number(name, value, 0.0, high)
