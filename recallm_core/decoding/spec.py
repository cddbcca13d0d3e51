"""Everything that decides which tokens are legal, as one value that travels as a JSON string."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recallm_core.decoding.evidence_policy import EvidenceRules
from recallm_core.errors import ConstraintError

SPEC_VERSION = 2
MAX_JSON = 64 * 2**20  # characters; a prompt of a million tokens needs about a tenth of that
MAX_IDS = 2**31 - 1  # ids and positions are 32-bit integers
RecallIn = Literal["thinking", "answer", "thinking+answer", "none"]
AnswerForm = Literal["words", "quote"]
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

    def __post_init__(self) -> None:
        if not self.text or not self.ids:
            raise ConstraintError(f"a mark needs a text and ids, got {self.text!r} and {self.ids}")
        if self.control:
            if len(self.ids) != 1 or self.watch or self.rest:
                raise ConstraintError(f"the control token {self.text!r} must be exactly one id")
            return
        self._check_text_tag()

    def _check_text_tag(self) -> None:
        """Every state has to lead to the end of the tag along its fixed encoding."""
        size = len(self.text)
        if len(self.watch) != size or len(self.rest) != size or self.rest[0] != self.ids:
            raise ConstraintError(
                f"the text mark {self.text!r} needs a table and a rest for each of {size} states"
            )
        if not 0 < self.begun <= size or any(
            not (after == PAST or 0 <= after <= size) for w in self.watch for after in w.values()
        ):
            raise ConstraintError(f"the text mark {self.text!r} names a state that it doesn't have")
        for start, rest in enumerate(self.rest):
            state = start
            for token in rest:
                state = self.advance(state, token) if 0 <= state < size else PAST
            if state != size:
                raise ConstraintError(f"the rest of {self.text!r} from state {start} isn't its end")

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
            text=_checked(data["text"], str),
            ids=_ids(data["ids"]),
            control=_checked(data["control"], bool),
            watch=tuple(
                {_number(t): _number(s, PAST) for t, s in _checked(w, list)}
                for w in _checked(data["watch"], list)
            ),
            rest=tuple(_ids(r) for r in _checked(data["rest"], list)),
            begun=_number(data["begun"]),
        )


@dataclass(frozen=True, slots=True)
class GrammarSpec:
    """What rules the answer once thinking is over: a schema for all of it, or tool calls.

    Attributes:
        answer: Grammar of the whole answer; None where tools are offered instead.
        call: Grammar of what stands between the marks of one tool call.
        call_open, call_close: The marks around a tool call; both or neither.
        required: The answer must begin with a call.
        parallel: Further calls may follow the first.
    """

    answer: str | None = None
    call: str | None = None
    call_open: Tag | None = None
    call_close: Tag | None = None
    required: bool = False
    parallel: bool = True

    def __post_init__(self) -> None:
        marks = (self.call_open, self.call_close)
        if (self.answer is None) == (self.call is None):
            raise ConstraintError("a grammar rules either the whole answer or tool calls")
        if any((mark is None) != (self.call is None) for mark in marks):
            raise ConstraintError("tool calls need both marks, and nothing else does")

    @property
    def text(self) -> str:
        """The grammar, whichever of the two it is."""
        found = self.answer if self.call is None else self.call
        assert found is not None
        return found

    def to_dict(self) -> dict[str, Any]:
        """Returns the grammar as plain JSON values."""
        return {
            "answer": self.answer,
            "call": self.call,
            "call_open": self.call_open and self.call_open.to_dict(),
            "call_close": self.call_close and self.call_close.to_dict(),
            "required": self.required,
            "parallel": self.parallel,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GrammarSpec:
        """Rebuilds a grammar from ``to_dict``."""

        def text(name: str) -> str | None:
            return None if data[name] is None else str(_checked(data[name], str))

        def mark(name: str) -> Tag | None:
            return None if data[name] is None else Tag.from_dict(_checked(data[name], dict))

        return cls(
            answer=text("answer"),
            call=text("call"),
            call_open=mark("call_open"),
            call_close=mark("call_close"),
            required=_checked(data["required"], bool),
            parallel=_checked(data["parallel"], bool),
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
        grammar: What rules the answer besides; None: nothing.
        answer_form: ``quote``: outside spans only marks and the end are legal, and the answer is
            one span; needs control tokens as marks.
        evidence: What the output has to quote before it may end; None: nothing.
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
        used |= named
        wrong = sorted(i for i in used if not 0 <= i < self.vocab_size)
        if wrong:
            raise ConstraintError(
                f"ids {wrong[:5]} of marks, eos or evidence aren't below {self.vocab_size}, "
                "the logits' width"
            )
        texts = [tag.text for tag in self.tags]
        controls = [*(i for tag in self.tags if tag.control for i in tag.ids), *set(self.eos)]
        if len(set(texts)) < len(texts) or len(set(controls)) < len(controls):
            raise ConstraintError(f"the marks {texts} and the ids of eos must differ")
        if len(self.never_free()) >= self.vocab_size:
            raise ConstraintError("marks, eos and forbidden ids leave nothing to write")

    @property
    def tags(self) -> tuple[Tag, ...]:
        """The marks in use."""
        grammar = self.grammar
        calls = (grammar.call_open, grammar.call_close) if grammar else ()
        return (self.open, self.close, *(t for t in (self.think_close, *calls) if t is not None))

    def never_free(self) -> set[int]:
        """Every id that some state of ordinary output forbids."""
        found = {*self.forbidden, *self.eos}
        for tag in self.tags:
            found.update(tag.ids if tag.control else ())
            for table in tag.watch:
                found.update(t for t, after in table.items() if after in (len(tag.text), PAST))
        return {i for i in found if i < self.vocab_size}

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
                "grammar": self.grammar and self.grammar.to_dict(),
                "evidence": self.evidence and self.evidence.to_dict(),
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
            return cls._from_data(_checked(json.loads(text, parse_constant=_refuse), dict))
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
        runs = tuple((_number(a), _number(b)) for a, b in _checked(data["runs"], list))
        size = sum(b - a for a, b in runs)
        think_close, limit = data["think_close"], data["max_thinking_tokens"]
        grammar = data["grammar"]
        return cls(
            prompt_length=_number(data["prompt_length"]),
            prompt_hash=_checked(data["prompt_hash"], str),
            vocab_size=_number(data["vocab_size"]),
            runs=runs,
            can_start=_unpack_bits(data["can_start"], size),
            can_end=_unpack_bits(data["can_end"], size),
            can_end_hard=_unpack_bits(data["can_end_hard"], size),
            open=Tag.from_dict(_checked(data["open"], dict)),
            close=Tag.from_dict(_checked(data["close"], dict)),
            think_close=None if think_close is None else Tag.from_dict(_checked(think_close, dict)),
            thinking=_checked(data["thinking"], bool),
            eos=_ids(data["eos"]),
            forbidden=_ids(data["forbidden"]),
            recall_in=_checked(data["recall_in"], str),
            max_span_tokens=_number(data["max_span_tokens"]),
            max_spans=_number(data["max_spans"]),
            max_thinking_tokens=None if limit is None else _number(limit),
            prior=None if data["prior"] is None else _unpack_floats(data["prior"], size),
            prior_weight=float(_checked(data["prior_weight"], (int, float))),
            grammar=None if grammar is None else GrammarSpec.from_dict(_checked(grammar, dict)),
            answer_form=_checked(data["answer_form"], str),
            evidence=_evidence(data["evidence"]),
        )


def _evidence(data: Any) -> EvidenceRules | None:
    """Rebuilds the rules of evidence from plain JSON values."""
    if data is None:
        return None
    plain = _checked(data, dict)
    names = ("ends", "points", "numbers", "abbreviations", "blank")
    sets = {name: frozenset(_ids(plain[name])) for name in names}
    return EvidenceRules(
        policy=_checked(plain["policy"], str),
        lead_in=_ids(plain["lead_in"]),
        least=_number(plain["least"]),
        most=_number(plain["most"]),
        room=_number(plain["room"]),
        abstain=tuple(_ids(phrase) for phrase in _checked(plain["abstain"], list)),
        patience=_number(plain["patience"]),
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


def _checked(value: Any, kind: type | tuple[type, ...]) -> Any:
    """The value, if it has exactly the kind that was asked for: a bool is no number here."""
    if type(value) not in (kind if isinstance(kind, tuple) else (kind,)):
        raise TypeError(f"expected {kind}, got {str(value)[:60]!r}")
    return value


def _number(value: Any, low: int = 0) -> int:
    if not low <= _checked(value, int) <= MAX_IDS:
        raise ValueError(f"expected a number in [{low}, {MAX_IDS}], got {str(value)[:60]}")
    return int(value)


def _ids(values: Any) -> tuple[int, ...]:
    return tuple(_number(value) for value in _checked(values, list))


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no number")


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
