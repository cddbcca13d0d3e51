"""The marks of a model, and the grammar that may rule its answer: parts of a constraint's spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recallm_core.decoding.plain_values import read_ids, read_number, require_kind
from recallm_core.errors import ConstraintError

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
        after = self.watch[state].get(token) if state else None
        return self.watch[0].get(token, 0) if after is None else after

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
            text=require_kind(data["text"], str),
            ids=read_ids(data["ids"]),
            control=require_kind(data["control"], bool),
            watch=tuple(
                {read_number(t): read_number(s, PAST) for t, s in require_kind(w, list)}
                for w in require_kind(data["watch"], list)
            ),
            rest=tuple(read_ids(r) for r in require_kind(data["rest"], list)),
            begun=read_number(data["begun"]),
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
        grammar = self.answer if self.call is None else self.call
        assert grammar is not None
        return grammar

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
            return None if data[name] is None else str(require_kind(data[name], str))

        def mark(name: str) -> Tag | None:
            return None if data[name] is None else Tag.from_dict(require_kind(data[name], dict))

        return cls(
            answer=text("answer"),
            call=text("call"),
            call_open=mark("call_open"),
            call_close=mark("call_close"),
            required=require_kind(data["required"], bool),
            parallel=require_kind(data["parallel"], bool),
        )
