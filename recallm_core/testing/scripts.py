"""The tokens of a script, as far as a constraint lets them through."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
from itertools import takewhile

from recallm_core.decoding.constraint import Constraint, Mask
from recallm_core.errors import GenerationError
from recallm_core.testing.json_text import WHITE, QuotedJson, plainly
from recallm_core.testing.tokenizer import CONTROL, EOS, OPEN, ByteTokenizer

_BLANK = tuple(b" \t\r\n")
_WORDS = tuple(b".")  # what the stand-in says where its script says nothing and has to
_JSON_ENDS = tuple(b'}]"0')  # what brings a JSON value to its end soonest
_MOST_WHITE = 16  # white space that a grammar may want in one place
_LONGEST = 256  # bytes of a script that a token may say


def follow(constraint: Constraint, script: str, tokenizer: ByteTokenizer) -> Iterator[int]:
    """The tokens of a script, as far as they are legal, then the shortest legal end."""
    spec = constraint.rules.spec
    marks = {CONTROL[0]: spec.open.ids, CONTROL[1]: spec.close.ids}
    marks |= {spec.open.text: spec.open.ids, spec.close.text: spec.close.ids}
    if spec.think_close is not None:
        marks |= dict.fromkeys((CONTROL[3], spec.think_close.text), spec.think_close.ids)
    speaker, at = _Speaker(constraint, script, tokenizer), 0
    for piece in re.split("(" + "|".join(map(re.escape, marks)) + ")", script):
        ids = marks.get(piece)
        if ids is not None and ids == spec.close.ids:
            yield from _close_span(constraint)
        else:
            yield from speaker.say(ids or tokenizer.encode_template(piece), at)
        at += len(piece)
    yield from _close_span(constraint)
    while not constraint.done:
        mask = constraint.mask()
        if mask.only is not None and _chooses_decimals(constraint, mask):
            yield from _as_far_as_legal(constraint, spec.open.ids)
            yield from _close_span(constraint)
        elif mask.only is not None:
            ending = (t for t in (*spec.eos, *_JSON_ENDS) if mask.allows(t))
            yield from _as_far_as_legal(constraint, [next(ending, int(mask.only[0]))])
        elif constraint.section == "thinking" and spec.think_close is not None:
            yield from _as_far_as_legal(constraint, spec.think_close.ids)
        elif mask.allows(spec.eos[0]):
            yield from _as_far_as_legal(constraint, spec.eos[:1])
        elif spec.evidence is not None and spec.evidence.policy == "required":  # owes a quote
            yield from _as_far_as_legal(constraint, spec.open.ids)
            yield from _close_span(constraint)
        else:
            yield from _as_far_as_legal(constraint, _WORDS)


def _chooses_decimals(constraint: Constraint, mask: Mask) -> bool:
    """Whether a number has ended in a full stop, so that decimals may follow, or a quote."""
    spec = constraint.rules.spec
    required = spec.evidence is not None and spec.evidence.policy == "required"
    free = constraint.section == "answer" and not constraint.in_span
    return required and free and mask.allows(spec.open.ids[0])


def _make_way(constraint: Constraint, next_token: int) -> Iterator[int]:
    """What the evidence policy forces before a token of the script can be legal."""
    rules = constraint.rules.spec.evidence
    while rules is not None and constraint.section in ("evidence", "answer"):
        if constraint.in_span:  # the script didn't open it
            yield from _close_span(constraint)
            continue
        only = constraint.mask().only
        if only is None or constraint.mask().allows(next_token):
            return
        token = rules.lead_in[0] if len(only) > 1 and rules.lead_in else int(only[0])
        if not constraint.mask().allows(token) or constraint.matcher is not None:
            return
        constraint.consume(token)
        yield token


class _Speaker:
    """Says the text of a script: under a grammar all of it, elsewhere what is legal.

    JSON is said with the white space that the grammar wants, whatever the script has.

    Args:
        constraint: Where the output stands; it moves along.
        script: The whole script, for errors.
        tokenizer: Spells it.
    """

    def __init__(self, constraint: Constraint, script: str, tokenizer: ByteTokenizer) -> None:
        self._constraint, self._script, self._tokenizer = constraint, script, tokenizer
        self._quoted = QuotedJson()

    def say(self, ids: Sequence[int], at: int) -> Iterator[int]:
        """Consumes and yields the tokens of a piece of the script.

        Args:
            ids: The piece.
            at: Where in the script it begins.

        Raises:
            GenerationError: The grammar doesn't allow it, whatever the white space.
        """
        remaining = list(ids)
        while remaining:
            if not self._constraint.in_grammar:
                self._quoted = QuotedJson()
                token = remaining.pop(0)
                yield from _as_far_as_legal(self._constraint, [token])
                at += sum(byte & 0xC0 != 0x80 for byte in self._spelling(token))
                continue
            run = list(takewhile(lambda token_id: not OPEN <= token_id <= EOS, remaining))
            if not run:
                raise self._refusal(self._spelling(remaining[0]), at)
            text = b"".join(map(self._spelling, run))
            written = yield from self._fit(text, at)
            rest = self._tokenizer.encode_plain(text[written:].decode("utf-8")).ids.tolist()
            remaining = [*rest, *remaining[len(run) :]]
            at += len(text[:written].decode("utf-8"))

    def _fit(self, data: bytes, at: int) -> Generator[int, None, int]:
        """Says JSON until the grammar is at its end; returns how much of it."""
        text, origin = plainly(data)
        written, white = 0, 0
        while written < len(text) and self._constraint.in_grammar and white < _MOST_WHITE:
            used, token = self._next(text[written : written + _LONGEST])
            if token is not None:
                yield self._take(token)
                written, white = written + used, 0 if used else white + 1
            elif text[written] in WHITE and not self._quoted.inside:
                written += 1
            else:
                break
        if written < len(text) and self._constraint.in_grammar:
            before = data[: origin[written]].decode("utf-8", "ignore")
            raise self._refusal(data[origin[written] :], at + len(before))
        return origin[written]

    def _next(self, text: bytes) -> tuple[int, int | None]:
        """The legal token that says most of a text, and how much; None: there is none."""
        legal = self._constraint.mask().only
        assert legal is not None  # a grammar lists what it allows
        best, best_token = -1, None
        for token in legal.tolist():
            spelled = self._spelling(token)
            if spelled[:1] == text[:1] or spelled[0] in WHITE:
                used = self._quoted.matched_length(spelled, text)
                if used is not None and used > best:
                    best, best_token = used, token
        return best, best_token

    def _take(self, token: int) -> int:
        self._constraint.consume(token)
        self._quoted = self._quoted.after(self._spelling(token))
        return token

    def _spelling(self, token: int) -> bytes:
        """What a token stands for; of a control token, its name."""
        if OPEN <= token <= EOS:
            return CONTROL[token - OPEN].encode()
        return self._tokenizer.token_bytes(token) or b""

    def _refusal(self, text: bytes, at: int) -> GenerationError:
        """The error for text that the grammar doesn't allow."""
        legal = self._constraint.mask().only
        assert legal is not None  # a grammar lists what it allows
        names = [self._spelling(int(t)).decode("utf-8", "replace") for t in legal]
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        return GenerationError(
            f"the script can't say {text[:20].decode('utf-8', 'replace')!r} at character {at}, "
            f"after {self._script[max(0, at - 40) : at]!r}: the schema, or the tool's parameters, "
            f"allow {', '.join(map(repr, names[:6])) or 'nothing'}{more} there; write JSON that "
            "fits, with the keys in the order of the schema, or end the script earlier: the rest "
            "is then the shortest that fits"
        )


def _as_far_as_legal(constraint: Constraint, ids: Sequence[int]) -> Iterator[int]:
    for token in ids:
        if not constraint.in_span and token not in _BLANK:
            yield from _make_way(constraint, token)
        if not constraint.done and constraint.mask().allows(token):
            constraint.consume(token)
            yield token


def _close_span(constraint: Constraint) -> Iterator[int]:
    """Copies on until the span may end, and ends it; nothing outside a span."""
    while constraint.matcher is not None:
        if constraint.matcher.can_close:
            yield from _as_far_as_legal(constraint, constraint.rules.spec.close.ids)
        if constraint.in_span:
            nearest = constraint.mask().only
            assert nearest is not None  # inside a span everything legal is listed
            yield from _as_far_as_legal(constraint, nearest[:1].tolist())
