"""Everything that decides which tokens are legal, as one value that travels as a JSON string."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recallm_core.errors import ConstraintError

SPEC_VERSION = 1
RecallIn = Literal["thinking", "answer", "thinking+answer", "none"]
RECALL_IN: tuple[RecallIn, ...] = ("thinking", "answer", "thinking+answer", "none")

PAST = -1  # in a watch table: this token carries text past the end of the tag


@dataclass(frozen=True, slots=True)
class Tag:
    """A mark that switches the decoding state: one control token, or ordinary text.

    A text tag is recognised across token boundaries. ``watch[s]`` tells, when the last ``s``
    characters of the output are a beginning of the tag, how long that beginning is after a token;
    ``len(text)`` completes the tag and ``PAST`` carries text beyond it. A token that isn't in
    ``watch[s]`` is looked up in ``watch[0]``, and leads to 0 when it isn't there either.

    Attributes:
        text: What the tag looks like.
        ids: Its one fixed encoding; a single id for a control token.
        control: Whether the tag is a control token, which text can't spell.
        watch: Per state, token -> next state; empty for control tags.
        rest: Per state, the fixed encoding of what is still missing; empty for control tags.
        begun: From this state on the tag counts as begun, and the rest is forced.
    """

    text: str
    ids: tuple[int, ...]
    control: bool = True
    watch: tuple[Mapping[int, int], ...] = ()
    rest: tuple[tuple[int, ...], ...] = ()
    begun: int = 0

    def advance(self, state: int, token: int) -> int:
        """Returns the state after one more token of ordinary output."""
        if self.control:
            return 0
        found = self.watch[state].get(token) if state else None
        return self.watch[0].get(token, 0) if found is None else found

    def finishers(self, state: int) -> tuple[int, ...]:
        """Ids that would complete the tag in this state, or carry text past its end."""
        if self.control:
            return self.ids
        size = len(self.text)
        merged = {**self.watch[0], **self.watch[state]}
        return tuple(t for t, after in merged.items() if after in (size, PAST))

    def passers(self, state: int) -> tuple[int, ...]:
        """Ids that would carry text past the end of the tag in this state."""
        if self.control:
            return ()
        merged = {**self.watch[0], **self.watch[state]}
        return tuple(t for t, after in merged.items() if after == PAST)

    def to_dict(self) -> dict[str, Any]:
        """Returns the tag as plain JSON values."""
        return {
            "text": self.text,
            "ids": list(self.ids),
            "control": self.control,
            "watch": [[[int(t), int(s)] for t, s in w.items()] for w in self.watch],
            "rest": [list(r) for r in self.rest],
            "begun": self.begun,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Tag:
        """Rebuilds a tag from ``to_dict``."""
        return cls(
            text=str(data["text"]),
            ids=tuple(int(i) for i in data["ids"]),
            control=bool(data["control"]),
            watch=tuple({int(t): int(s) for t, s in w} for w in data["watch"]),
            rest=tuple(tuple(int(i) for i in r) for r in data["rest"]),
            begun=int(data["begun"]),
        )


@dataclass(frozen=True, slots=True, eq=False)
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
    version: int = field(default=SPEC_VERSION)

    def __post_init__(self) -> None:
        size = sum(end - start for start, end in self.runs)
        for name in ("can_start", "can_end", "can_end_hard"):
            if len(getattr(self, name)) != size:
                raise ConstraintError(
                    f"{name} needs {size:,} values, one per run position, "
                    f"got {len(getattr(self, name)):,}"
                )
        if self.prior is not None and len(self.prior) != size:
            raise ConstraintError(f"prior needs {size:,} scores, got {len(self.prior):,}")
        last = 0
        for start, end in self.runs:
            if not last <= start < end <= self.prompt_length:
                raise ConstraintError(
                    f"run ({start}, {end}) isn't an ascending, non-empty range inside a prompt of "
                    f"{self.prompt_length} tokens"
                )
            last = end
        if self.recall_in not in RECALL_IN:
            raise ConstraintError(f"recall_in must be one of {RECALL_IN}, got {self.recall_in!r}")
        if self.max_span_tokens < 1 or self.max_spans < 0:
            raise ConstraintError(
                f"max_span_tokens must be at least 1 and max_spans at least 0, "
                f"got {self.max_span_tokens} and {self.max_spans}"
            )

    def to_json(self) -> str:
        """Returns the spec as one JSON string, for a process that runs the model elsewhere."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        return json.dumps(
            plain
            | {
                "runs": [list(run) for run in self.runs],
                "can_start": _pack_bits(self.can_start),
                "can_end": _pack_bits(self.can_end),
                "can_end_hard": _pack_bits(self.can_end_hard),
                "open": self.open.to_dict(),
                "close": self.close.to_dict(),
                "think_close": self.think_close and self.think_close.to_dict(),
                "prior": None if self.prior is None else _pack_floats(self.prior),
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str) -> ConstraintSpec:
        """Rebuilds a spec, treating the string as untrusted.

        Raises:
            ConstraintError: It isn't a spec of this version, or its parts don't fit together.
        """
        try:
            data = json.loads(text)
            version = data["version"]
            if version != SPEC_VERSION:
                raise ConstraintError(
                    f"constraint spec has version {version!r}, this library reads {SPEC_VERSION}; "
                    "run the same recallm-core release on both sides"
                )
            runs = tuple((int(a), int(b)) for a, b in data["runs"])
            size = sum(b - a for a, b in runs)
            think_close = data["think_close"]
            return cls(
                **{name: data[name] for name in _PLAIN if name not in ("eos", "forbidden")},
                eos=tuple(int(i) for i in data["eos"]),
                forbidden=tuple(int(i) for i in data["forbidden"]),
                runs=runs,
                can_start=_unpack_bits(data["can_start"], size),
                can_end=_unpack_bits(data["can_end"], size),
                can_end_hard=_unpack_bits(data["can_end_hard"], size),
                open=Tag.from_dict(data["open"]),
                close=Tag.from_dict(data["close"]),
                think_close=None if think_close is None else Tag.from_dict(think_close),
                prior=None if data["prior"] is None else _unpack_floats(data["prior"], size),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            if isinstance(error, ConstraintError):
                raise
            raise ConstraintError(
                f"not a constraint spec of version {SPEC_VERSION}: {type(error).__name__}: {error}"
            ) from error


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
)


def hash_tokens(token_ids: NDArray[np.integer[Any]]) -> str:
    """Returns a digest of a token sequence, equal on every platform."""
    data = np.ascontiguousarray(token_ids, dtype="<i4").tobytes()
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _pack_bits(bits: NDArray[np.bool_]) -> str:
    return base64.b64encode(np.packbits(bits).tobytes()).decode("ascii")


def _unpack_bits(text: str, size: int) -> NDArray[np.bool_]:
    data = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    if len(data) != (size + 7) // 8:
        raise ConstraintError(f"a bitmap of {size} bits needs {(size + 7) // 8} bytes")
    return np.unpackbits(data, count=size).astype(np.bool_)


def _pack_floats(values: NDArray[np.float32]) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")


def _unpack_floats(text: str, size: int) -> NDArray[np.float32]:
    values = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4")
    if len(values) != size or not np.isfinite(values).all():
        raise ConstraintError(f"the prior needs {size} finite scores, got {len(values)}")
    return values.astype(np.float32)
