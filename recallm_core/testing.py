"""Offline stand-ins with which people test their own chains, under the true constraint.

``scripted_llm`` gives a ``RecaLLM`` whose model is a script: what it would like to say. The
decoding constraint is the real one, so a quote that isn't in the documents can't be produced even
by a script that asks for it. ``random_llm`` says anything that is legal.
"""

from __future__ import annotations

import json
import random
import re
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np

from recallm_core.backends import FinishReason, GenerationRequest
from recallm_core.decoding.constraint import Constraint, Mask
from recallm_core.errors import GenerationError
from recallm_core.generator import RecaLLM
from recallm_core.locks import ForkSafeLock
from recallm_core.prompting.recipe import Recipe, trained_recipe
from recallm_core.tokenization.tokenizer import ByteDetokenizer, Detokenizer, PlainTokens

CONTROL = ("<|start_recall|>", "<|end_recall|>", "<think>", "</think>", "<|turn|>", "<|eos|>")
OPEN, CLOSE, THINK, THINK_END, TURN, EOS = range(256, 256 + len(CONTROL))

Script = str | Callable[[str], str]
_CONTROLS = re.compile("|".join(re.escape(mark) for mark in CONTROL))


class ByteTokenizer:
    """One token per byte, six control tokens above them; no file, no download.

    Args:
        pieces: Longer tokens, above the control tokens; where several fit, the longest is taken.
    """

    control_ids = frozenset(range(256, 256 + len(CONTROL)))
    eos_ids = (EOS,)

    def __init__(self, pieces: Sequence[str] = ()) -> None:
        self._pieces = [piece.encode("utf-8") for piece in dict.fromkeys(pieces)]
        self._ids = {piece: EOS + 1 + n for n, piece in enumerate(self._pieces) if len(piece) > 1}
        longest = sorted((re.escape(piece) for piece in self._ids), key=len, reverse=True)
        self._pattern = re.compile(b"|".join([*longest, b"(?s:.)"]))
        self.vocab_size = EOS + 1 + len(self._pieces)
        self.fingerprint = f"recallm-byte-tokenizer-1:{self._pieces!r}"

    def encode_plain(self, text: str) -> PlainTokens:
        """One id per UTF-8 byte, or per piece where there are any."""
        data = np.frombuffer(text.encode("utf-8"), dtype=np.uint8)
        at = (np.cumsum((data & 0xC0) != 0x80) - 1).astype(np.int32)
        if not self._ids:
            return PlainTokens(
                data.astype(np.int32), at, at + np.int32(1), np.ones(len(data), dtype=np.bool_)
            )
        pieces = [match.group() for match in self._pattern.finditer(data.tobytes())]
        ids = np.array([self._ids.get(p, p[0]) for p in pieces], dtype=np.int32)
        ends = np.cumsum([len(p) for p in pieces], dtype=np.int64)
        firsts = ends - np.array([len(p) for p in pieces], dtype=np.int64)
        whole = np.ones(len(ids), dtype=np.bool_)
        return PlainTokens(ids, at[firsts], at[ends - 1] + np.int32(1), whole)

    def encode_template(self, text: str) -> list[int]:
        """Like plain text, but control tokens are recognised."""
        ids: list[int] = []
        last = 0
        for match in _CONTROLS.finditer(text):
            ids.extend(self.encode_plain(text[last : match.start()]).ids.tolist())
            ids.append(256 + CONTROL.index(match.group()))
            last = match.end()
        ids.extend(self.encode_plain(text[last:]).ids.tolist())
        return ids

    def control_id(self, token: str) -> int | None:
        """The id of one of ``CONTROL``."""
        return 256 + CONTROL.index(token) if token in CONTROL else None

    def token_bytes(self, token: int) -> bytes | None:
        """What a token stands for."""
        if 0 <= token < 256:
            return bytes([token])
        return self._pieces[token - EOS - 1] if EOS < token < self.vocab_size else None

    def detokenizer(self) -> Detokenizer:
        """A fresh incremental decoder."""
        return ByteDetokenizer(self)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        **_: Any,
    ) -> str:
        """One ``<|turn|>`` before each message, and one for the reply; tools come first."""
        shown = [f"<|turn|>tools\n{json.dumps(list(tools))}"] if tools else []
        for message in messages:
            calls = "".join(
                f"<tool_call>\n{json.dumps(call['function'])}\n</tool_call>"
                for call in message.get("tool_calls", ())
            )
            shown.append(f"<|turn|>{message['role']}\n{message['content']}{calls}")
        return "".join(shown) + "<|turn|>"


class _Backend:
    """What the stand-ins have in common: a tokenizer, a window, and a record of their use.

    Attributes:
        requests: Every request, in order.
        closed_streams: How many streams were closed, or dropped, before their end.
    """

    in_process = True

    def __init__(
        self,
        *,
        tokenizer: ByteTokenizer | None = None,
        window: int = 1_000_000,
        tokens_per_chunk: int = 1,
        fail_after: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer or ByteTokenizer()
        self.vocab_size = self.tokenizer.vocab_size
        self.window = window
        self.requests: list[GenerationRequest] = []
        self.closed_streams = 0
        self.chunk = max(1, tokens_per_chunk)
        self.fail_after = fail_after
        self._lock = ForkSafeLock()

    def generate(self, request: GenerationRequest) -> ScriptedStream:
        """Starts a stream; nothing is computed before it is read."""
        with self._lock:
            self.requests.append(request)
            number = len(self.requests) - 1
        return ScriptedStream(self, request, self._tokens(request, number))

    def _tokens(self, request: GenerationRequest, number: int) -> Iterator[int]:
        raise NotImplementedError

    def note_closed(self) -> None:
        """Counts a stream that was closed early."""
        with self._lock:
            self.closed_streams += 1

    def close(self) -> None:
        """Nothing to free."""


class ScriptedBackend(_Backend):
    """A model that follows a script as far as the constraint lets it.

    Args:
        script: What to say, or a function of the question's prompt text that returns it. Control
            tokens are written out: ``<|start_recall|>words of a document<|end_recall|></think>The
            answer.``; a model driven by text marks writes its own marks in their place. Anything
            after the script is end-of-sequence. Where the constraint forbids a token of the script,
            it is skipped; a span that can't be closed yet goes on along the nearest legal token
            until it may close. Where the evidence policy forces a span open that the script
            doesn't have, the stand-in quotes the first sentence that it may, and goes on.
            JSON (of a schema, or a tool call) may have any white space between
            its values; where it doesn't fit otherwise, ``GenerationError`` names the place.
        tokenizer: Its tokenizer.
        window: Tokens of input and output together.
        tokens_per_chunk: How many tokens a stream yields at once.
        fail_after: Raise after this many tokens, to test error handling.
    """

    def __init__(self, script: Script = "", **options: Any) -> None:
        super().__init__(**options)
        self._script = script

    def _tokens(self, request: GenerationRequest, number: int) -> Iterator[int]:
        script = self._script
        if not isinstance(script, str):
            known = (self.tokenizer.token_bytes(t) or b"" for t in request.token_ids.tolist())
            script = script(b"".join(known).decode("utf-8", "replace"))
        return _follow(request.rules.start(request.prior), script, self.tokenizer)


class RandomBackend(_Backend):
    """A model that says anything that is legal: seeded, uniform over the legal tokens.

    Args:
        seed: Equal seeds and equal requests in equal order give equal outputs; the seed of a
            request's sampling replaces it.
        marks: How often it goes for a mark (opening, closing, end of thinking) where it could;
            uniform choice alone would hardly ever write one.
        tokenizer: Its tokenizer.
        window: Tokens of input and output together.
        tokens_per_chunk: How many tokens a stream yields at once.
        fail_after: Raise after this many tokens, to test error handling.
    """

    def __init__(self, seed: int = 0, *, marks: float = 0.1, **options: Any) -> None:
        super().__init__(**options)
        self._seed = seed
        self._marks = marks

    def _tokens(self, request: GenerationRequest, number: int) -> Iterator[int]:
        seed = request.sampling.seed
        source = random.Random(f"{self._seed}:{number}" if seed is None else seed)
        return random_walk(request.rules.start(request.prior), source, marks=self._marks)


class ScriptedStream:
    """The tokens of one request to a stand-in."""

    cached_tokens = 0

    def __init__(
        self, backend: _Backend, request: GenerationRequest, tokens: Iterator[int]
    ) -> None:
        self.finish_reason: FinishReason | None = None
        self._backend = backend
        self._left = request.sampling.max_new_tokens
        self._tokens = tokens
        self._given = 0
        self._drop = weakref.finalize(self, backend.note_closed)
        self._drop.atexit = False

    def __iter__(self) -> ScriptedStream:
        return self

    def __next__(self) -> tuple[int, ...]:
        out: list[int] = []
        while self.finish_reason is None and len(out) < self._backend.chunk:
            if self._given == self._backend.fail_after:
                raise GenerationError("the stand-in failed, as it was told to")
            token = next(self._tokens, None)
            if token is None:
                self._end("stop")
                break
            self._given += 1
            out.append(token)
            if token in self._backend.tokenizer.eos_ids:
                self._end("stop")
            elif self._given >= self._left:
                self._end("length")
        if not out:
            raise StopIteration
        return tuple(out)

    def _end(self, reason: FinishReason) -> None:
        if self.finish_reason is None:
            self.finish_reason = reason
        self._drop.detach()

    def close(self) -> None:
        """Ends the stream."""
        if self.finish_reason is None:
            self.finish_reason = "cancelled"
        self._drop()


def random_walk(
    constraint: Constraint, source: random.Random, *, marks: float = 0.1
) -> Iterator[int]:
    """Consumes and yields random legal tokens until the end of the output.

    Args:
        constraint: Where to walk from; it moves along.
        source: The randomness.
        marks: How often a mark is begun where that is legal.
    """
    spec = constraint.rules.spec
    goals = [*[spec.open.ids] * 8, spec.close.ids, spec.eos[:1]]
    if spec.think_close is not None:
        goals.append(spec.think_close.ids)
    plan: list[int] = []
    while not constraint.done:
        mask = constraint.mask()
        if not plan and source.random() < marks:
            plan = list(spec.close.ids if constraint.in_span else source.choice(goals))
        token = plan.pop(0) if plan else -1
        if token < 0 or not mask.allows(token):
            plan = []
            token = _any_legal(mask, spec.vocab_size, source)
        constraint.consume(token)
        yield token


def _any_legal(mask: Mask, vocab_size: int, source: random.Random) -> int:
    if mask.only is not None:
        return int(source.choice(mask.only))
    while True:
        token = source.randrange(vocab_size)
        if mask.allows(token):
            return token


_BLANK = tuple(b" \t\r\n")
_WORDS = tuple(b".")  # what the stand-in says where its script says nothing and has to
_JSON_ENDS = tuple(b'}]"0')  # what brings a JSON value to its end soonest
_WHITE = tuple(b" \n\r\t")
_MOST_WHITE = 16  # white space that a grammar may want in one place
_QUOTE, _ESCAPE = b'"\\'
_ESCAPES = re.compile(  # surrogates only in pairs
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|"
    rb"\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}|\\[^u]|\x7f",
    re.DOTALL,
)
_LONGEST = 256  # bytes of a script that a token may say


def _follow(constraint: Constraint, script: str, tokenizer: ByteTokenizer) -> Iterator[int]:
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
        self._quoted = _Quoted()

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
                self._quoted = _Quoted()
                token = remaining.pop(0)
                yield from _as_far_as_legal(self._constraint, [token])
                at += sum(byte & 0xC0 != 0x80 for byte in self._spelled(token))
                continue
            run = list(takewhile(lambda token_id: not OPEN <= token_id <= EOS, remaining))
            if not run:
                raise self._refused(self._spelled(remaining[0]), at)
            text = b"".join(map(self._spelled, run))
            written = yield from self._fit(text, at)
            rest = self._tokenizer.encode_plain(text[written:].decode("utf-8")).ids.tolist()
            remaining = [*rest, *remaining[len(run) :]]
            at += len(text[:written].decode("utf-8"))

    def _fit(self, data: bytes, at: int) -> Generator[int, None, int]:
        """Says JSON until the grammar is at its end; returns how much of it."""
        text, origin = _plainly(data)
        written, white = 0, 0
        while written < len(text) and self._constraint.in_grammar and white < _MOST_WHITE:
            used, token = self._next(text[written : written + _LONGEST])
            if token is not None:
                yield self._take(token)
                written, white = written + used, 0 if used else white + 1
            elif text[written] in _WHITE and not self._quoted.inside:
                written += 1
            else:
                break
        if written < len(text) and self._constraint.in_grammar:
            before = data[: origin[written]].decode("utf-8", "ignore")
            raise self._refused(data[origin[written] :], at + len(before))
        return origin[written]

    def _next(self, text: bytes) -> tuple[int, int | None]:
        """The legal token that says most of a text, and how much; None: there is none."""
        legal = self._constraint.mask().only
        assert legal is not None  # a grammar lists what it allows
        best, best_token = -1, None
        for token in legal.tolist():
            spelled = self._spelled(token)
            if spelled[:1] == text[:1] or spelled[0] in _WHITE:
                used = self._quoted.used(spelled, text)
                if used is not None and used > best:
                    best, best_token = used, token
        return best, best_token

    def _take(self, token: int) -> int:
        self._constraint.consume(token)
        self._quoted = self._quoted.after(self._spelled(token))
        return token

    def _spelled(self, token: int) -> bytes:
        """What a token stands for; of a control token, its name."""
        if OPEN <= token <= EOS:
            return CONTROL[token - OPEN].encode()
        return self._tokenizer.token_bytes(token) or b""

    def _refused(self, text: bytes, at: int) -> GenerationError:
        """The error for text that the grammar doesn't allow."""
        legal = self._constraint.mask().only
        assert legal is not None  # a grammar lists what it allows
        names = [self._spelled(int(t)).decode("utf-8", "replace") for t in legal]
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        return GenerationError(
            f"the script can't say {text[:20].decode('utf-8', 'replace')!r} at character {at}, "
            f"after {self._script[max(0, at - 40) : at]!r}: the schema, or the tool's parameters, "
            f"allow {', '.join(map(repr, names[:6])) or 'nothing'}{more} there; write JSON that "
            "fits, with the keys in the order of the schema, or end the script earlier: the rest "
            "is then the shortest that fits"
        )


def _plainly(text: bytes) -> tuple[bytes, list[int]]:
    """JSON with its characters written as grammars want them, and where each byte comes from.

    Escapes of printable characters are these characters, and the one control character that JSON
    may hold bare is an escape.
    """
    out, origin, last = bytearray(), list[int](), 0
    for match in _ESCAPES.finditer(text):
        plain = _unescaped(match.group())
        out += text[last : match.start()] + plain
        origin += [*range(last, match.start()), *[match.start()] * len(plain)]
        last = match.end()
    return bytes(out + text[last:]), [*origin, *range(last, len(text) + 1)]


def _unescaped(escape: bytes) -> bytes:
    if escape == b"\x7f":
        return b"\\u007f"
    if escape[1:2] not in (b"u", b"/"):
        return escape
    character: str = json.loads(b'"' + escape + b'"')
    bare = character.isprintable() and character not in '"\\'
    return character.encode("utf-8") if bare or character > "\x7f" else escape


@dataclass(frozen=True, slots=True)
class _Quoted:
    """Whether JSON stands inside a string, where white space is text."""

    inside: bool = False
    escaped: bool = False

    def after(self, text: bytes) -> _Quoted:
        """The state some bytes later."""
        inside, escaped = self.inside, self.escaped
        for byte in text:
            if escaped or not inside:
                escaped, inside = False, inside or byte == _QUOTE
            else:
                escaped, inside = byte == _ESCAPE, byte != _QUOTE
        return _Quoted(inside, escaped)

    def used(self, token: bytes, text: bytes) -> int | None:
        """How much of ``text`` a token says, but for white space; None: it says something else."""
        state, at = self, 0
        for byte in token:
            while not state.inside and byte not in _WHITE and text[at : at + 1].isspace():
                at += 1
            if at < len(text) and text[at] == byte:
                at += 1
            elif state.inside or byte not in _WHITE:
                return None
            state = state.after(bytes([byte]))
        return at


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


def scripted_llm(
    script: Script = "", *, recipe: Recipe | None = None, **backend_options: Any
) -> RecaLLM:
    """Returns a ``RecaLLM`` that follows a script under the true constraint.

    Args:
        script: See ``ScriptedBackend``.
        recipe: How the model is driven; a trained one by default.
        backend_options: Further arguments of ``ScriptedBackend``.
    """
    return _llm(ScriptedBackend(script, **backend_options), recipe, "scripted")


def random_llm(seed: int = 0, *, recipe: Recipe | None = None, **backend_options: Any) -> RecaLLM:
    """Returns a ``RecaLLM`` that says anything that the true constraint lets through.

    Args:
        seed: See ``RandomBackend``.
        recipe: How the model is driven; a trained one by default.
        backend_options: Further arguments of ``RandomBackend``.
    """
    return _llm(RandomBackend(seed, **backend_options), recipe, "random")


def _llm(backend: ScriptedBackend | RandomBackend, recipe: Recipe | None, name: str) -> RecaLLM:
    recipe_in_use = recipe or trained_recipe(sampling={"temperature": 0.0})
    return RecaLLM(backend.tokenizer, backend, recipe_in_use, name=name)
