"""Everything that decides which tokens are legal, as one value that travels as a JSON string."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recallm_core.decoding.evidence_policy import EvidenceRules
from recallm_core.decoding.likely_tokens import LikelyTokens
from recallm_core.decoding.marks import PAST, GrammarSpec, Tag
from recallm_core.decoding.plain_values import (
    MAX_IDS,
    pack_bits,
    pack_floats,
    read_amount,
    read_ids,
    read_number,
    refuse_name,
    require_kind,
    unpack_bits,
    unpack_floats,
)
from recallm_core.errors import ConstraintError

__all__ = [
    "MAX_IDS",
    "MAX_JSON",
    "PAST",
    "SPEC_VERSION",
    "AnswerForm",
    "ConstraintSpec",
    "GrammarSpec",
    "RecallIn",
    "Tag",
    "hash_tokens",
]

SPEC_VERSION = 4
MAX_JSON = 64 * 2**20  # characters; a prompt of a million tokens needs about a tenth of that
RecallIn = Literal["thinking", "answer", "thinking+answer", "none"]
AnswerForm = Literal["words", "quote"]
RECALL_IN: tuple[RecallIn, ...] = ("thinking", "answer", "thinking+answer", "none")


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class ConstraintSpec:
    """One prompt's rules, independent of any engine.

    Attributes:
        prompt_length: Tokens of the prompt.
        prompt_hash: ``hash_tokens`` of the prompt; recall stays closed over any other prompt.
        vocab_size: Width of the logits.
        runs: Half-open token ranges of the prompt that may be copied.
        can_start: One bool per run position, runs concatenated: may a span begin here?
        can_end: May it end after this token (the boundary that the caller asked for)?
        can_end_hard: May it be cut after this token when it is far too long?
        open, close: The marks around a span.
        think_close: The mark that ends thinking; None when the model doesn't think.
        thinking: Whether the prompt leaves the model thinking.
        eos: Ids that end the output.
        forbidden: Ids that are never generated (control tokens with no role in an answer).
        recall_in: Where spans may be opened.
        max_span_tokens: Soft limit of one span.
        max_spans: Spans per output.
        max_thinking_tokens: The end of thinking is forced from here on; None: no limit.
        prior: A log score per run position that tilts where a span starts, or None.
        prior_weight: What the tilt is multiplied with.
        grammar: What rules the answer besides; None: nothing.
        answer_form: ``quote``: outside spans only marks and the end are legal, and the answer is
            one span; needs control tokens as marks.
        evidence: What the output has to quote before it may end; None: nothing.
        likely: What the words of the answer are drawn to; None: nothing.
    """

    prompt_length: int
    prompt_hash: str
    vocab_size: int
    runs: tuple[tuple[int, int], ...]
    can_start: NDArray[np.bool_]
    can_end: NDArray[np.bool_]
    can_end_hard: NDArray[np.bool_]
    open: Tag
    close: Tag
    think_close: Tag | None
    thinking: bool
    eos: tuple[int, ...]
    forbidden: tuple[int, ...] = ()
    recall_in: RecallIn = "thinking+answer"
    max_span_tokens: int = 128
    max_spans: int = 64
    max_thinking_tokens: int | None = None
    prior: NDArray[np.float32] | None = None
    prior_weight: float = 1.0
    grammar: GrammarSpec | None = None
    answer_form: AnswerForm = "words"
    evidence: EvidenceRules | None = None
    likely: LikelyTokens | None = None
    version: int = field(default=SPEC_VERSION)

    def __post_init__(self) -> None:
        self._check_runs()
        self._check_marks()
        if self.recall_in not in RECALL_IN:
            raise ConstraintError(f"recall_in must be one of {RECALL_IN}, got {self.recall_in!r}")
        if self.max_span_tokens < 1 or self.max_spans < 0 or (self.max_thinking_tokens or 0) < 0:
            raise ConstraintError(
                "max_span_tokens must be at least 1, max_spans and max_thinking_tokens at least 0, "
                f"got {self.max_span_tokens}, {self.max_spans} and {self.max_thinking_tokens}"
            )
        self._check_form()
        if not math.isfinite(self.prior_weight):
            raise ConstraintError(f"prior_weight must be finite, got {self.prior_weight}")

    def _check_form(self) -> None:
        if self.answer_form not in ("words", "quote"):
            raise ConstraintError(f"answer_form must be words or quote, got {self.answer_form!r}")
        marks = (self.open, self.think_close) if self.thinking else (self.open,)
        if self.answer_form == "quote" and not all(mark and mark.control for mark in marks):
            raise ConstraintError(
                "answer_form='quote' needs control tokens as marks; a prompted model, which writes "
                "its marks as text, answers in words"
            )
        if self.answer_form == "quote" and self.evidence is not None:
            raise ConstraintError("answer_form='quote' is its own way to quote: evidence is 'free'")

    def _check_runs(self) -> None:
        last = 0
        for start, end in self.runs:
            if not last <= start < end <= self.prompt_length:
                raise ConstraintError(
                    f"run ({start}, {end}) isn't an ascending, non-empty range inside a prompt of "
                    f"{self.prompt_length} tokens"
                )
            last = end
        size = sum(end - start for start, end in self.runs)
        for name in ("can_start", "can_end", "can_end_hard", "prior"):
            values = getattr(self, name)
            if values is not None and len(values) != size:
                raise ConstraintError(
                    f"{name} needs {size:,} values, one per run position, got {len(values):,}"
                )

    def _check_marks(self) -> None:
        if self.thinking and self.think_close is None:
            raise ConstraintError("a model that thinks needs a mark that ends thinking")
        if not 0 < self.vocab_size <= MAX_IDS:
            raise ConstraintError(f"vocab_size must be in [1, {MAX_IDS}], got {self.vocab_size}")
        named = set() if self.evidence is None else self.evidence.ids
        used = {i for tag in self.tags for r in (tag.ids, *tag.rest) for i in r} | set(self.eos)
        used |= named if self.likely is None else named | self.likely.ids
        wrong = sorted(i for i in used if not 0 <= i < self.vocab_size)
        if wrong:
            raise ConstraintError(
                f"ids {wrong[:5]} of marks, eos, evidence or likely answers aren't below "
                f"{self.vocab_size}, the logits' width"
            )
        texts = [tag.text for tag in self.tags]
        controls = [*(i for tag in self.tags if tag.control for i in tag.ids), *set(self.eos)]
        if len(set(texts)) < len(texts) or len(set(controls)) < len(controls):
            raise ConstraintError(f"the marks {texts} and the ids of eos must differ")
        if len(self.never_free()) >= self.vocab_size:
            raise ConstraintError("marks, eos and forbidden ids leave nothing to write")

    def is_for(self, prompt_ids: NDArray[np.int32]) -> bool:
        """Whether the spec was made for this prompt."""
        same = len(prompt_ids) == self.prompt_length
        return same and hash_tokens(prompt_ids) == self.prompt_hash

    @property
    def tags(self) -> tuple[Tag, ...]:
        """The marks in use."""
        grammar = self.grammar
        calls = (grammar.call_open, grammar.call_close) if grammar else ()
        return (self.open, self.close, *(t for t in (self.think_close, *calls) if t is not None))

    def never_free(self) -> set[int]:
        """Every id that some state of ordinary output forbids."""
        ids = {*self.forbidden, *self.eos}
        for tag in self.tags:
            ids.update(tag.ids if tag.control else ())
            for table in tag.watch:
                ids.update(t for t, after in table.items() if after in (len(tag.text), PAST))
        return {i for i in ids if i < self.vocab_size}

    def to_json(self) -> str:
        """Returns the spec as one JSON string, for a process that runs the model elsewhere."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        return json.dumps(
            plain
            | {
                "runs": [list(run) for run in self.runs],
                "can_start": pack_bits(self.can_start),
                "can_end": pack_bits(self.can_end),
                "can_end_hard": pack_bits(self.can_end_hard),
                "open": self.open.to_dict(),
                "close": self.close.to_dict(),
                "think_close": self.think_close and self.think_close.to_dict(),
                "prior": None if self.prior is None else pack_floats(self.prior),
                "grammar": self.grammar and self.grammar.to_dict(),
                "evidence": self.evidence and self.evidence.to_dict(),
                "likely": self.likely and self.likely.to_dict(),
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str) -> ConstraintSpec:
        """Rebuilds a spec, treating the string as untrusted.

        Raises:
            ConstraintError: It isn't a spec of this version, or its parts don't fit together.
        """
        if not isinstance(text, str) or len(text) > MAX_JSON:
            raise ConstraintError(
                f"a constraint spec is a JSON string of at most {MAX_JSON:,} characters"
            )
        try:
            return cls._from_data(require_kind(json.loads(text, parse_constant=refuse_name), dict))
        except ConstraintError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ConstraintError(
                f"not a constraint spec of version {SPEC_VERSION}: {type(error).__name__}: {error}"
            ) from error

    @classmethod
    def _from_data(cls, data: Mapping[str, Any]) -> ConstraintSpec:
        version = data["version"]
        if type(version) is not int or version != SPEC_VERSION:
            raise ConstraintError(
                f"constraint spec has version {version!r}, this library reads {SPEC_VERSION}; "
                "run the same recallm-core release on both sides"
            )
        runs = tuple((read_number(a), read_number(b)) for a, b in require_kind(data["runs"], list))
        size = sum(b - a for a, b in runs)
        think_close, limit = data["think_close"], data["max_thinking_tokens"]
        grammar, likely = data["grammar"], data["likely"]
        return cls(
            prompt_length=read_number(data["prompt_length"]),
            prompt_hash=require_kind(data["prompt_hash"], str),
            vocab_size=read_number(data["vocab_size"]),
            runs=runs,
            can_start=unpack_bits(data["can_start"], size),
            can_end=unpack_bits(data["can_end"], size),
            can_end_hard=unpack_bits(data["can_end_hard"], size),
            open=Tag.from_dict(require_kind(data["open"], dict)),
            close=Tag.from_dict(require_kind(data["close"], dict)),
            think_close=None
            if think_close is None
            else Tag.from_dict(require_kind(think_close, dict)),
            thinking=require_kind(data["thinking"], bool),
            eos=read_ids(data["eos"]),
            forbidden=read_ids(data["forbidden"]),
            recall_in=require_kind(data["recall_in"], str),
            max_span_tokens=read_number(data["max_span_tokens"]),
            max_spans=read_number(data["max_spans"]),
            max_thinking_tokens=None if limit is None else read_number(limit),
            prior=None if data["prior"] is None else unpack_floats(data["prior"], size),
            prior_weight=read_amount(data["prior_weight"]),
            grammar=None if grammar is None else GrammarSpec.from_dict(require_kind(grammar, dict)),
            answer_form=require_kind(data["answer_form"], str),
            evidence=_evidence(data["evidence"]),
            likely=None if likely is None else LikelyTokens.from_dict(require_kind(likely, dict)),
        )


def _evidence(data: Any) -> EvidenceRules | None:
    """Rebuilds the rules of evidence from plain JSON values."""
    if data is None:
        return None
    plain = require_kind(data, dict)
    names = ("ends", "points", "numbers", "abbreviations", "blank")
    sets = {name: frozenset(read_ids(plain[name])) for name in names}
    return EvidenceRules(
        policy=require_kind(plain["policy"], str),
        lead_in=read_ids(plain["lead_in"]),
        least=read_number(plain["least"]),
        most=read_number(plain["most"]),
        room=read_number(plain["room"]),
        abstain=tuple(read_ids(phrase) for phrase in require_kind(plain["abstain"], list)),
        patience=read_number(plain["patience"]),
        **sets,
    )


_PLAIN = (
    "version",
    "prompt_length",
    "prompt_hash",
    "vocab_size",
    "thinking",
    "eos",
    "forbidden",
    "recall_in",
    "max_span_tokens",
    "max_spans",
    "max_thinking_tokens",
    "prior_weight",
    "answer_form",
)


def hash_tokens(token_ids: NDArray[np.integer[Any]]) -> str:
    """Returns a digest of a token sequence, equal on every platform."""
    data = np.ascontiguousarray(token_ids, dtype="<i4").tobytes()
    return hashlib.blake2b(data, digest_size=16).hexdigest()
